"""How much memory is free now, where layers are to lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from circuit_tracer_cli.planning.sizes import Budget, DeviceBudget

if TYPE_CHECKING:
    import torch

UNKNOWN = 2**62
"""Where a system doesn't tell how much is free."""


def memory_budget(
    layers: Sequence[torch.device], host: int | None, available: Callable[[torch.device], int | None]
) -> Budget:
    """The memory of the host and of the device of every layer.

    Args:
        layers: The device of each layer.
        host: Free bytes of the host; None where nobody knows.
        available: Free bytes on a device; None where nobody knows.
    """
    free, devices = UNKNOWN if host is None else host, list(dict.fromkeys(layers))
    if len(devices) == 1:
        return Budget(free, None if devices[0].type == "cpu" else available(devices[0]))

    def at(device: torch.device) -> int:
        known = available(device)
        return UNKNOWN if known is None else known

    shared = tuple(
        DeviceBudget(str(device), at(device), tuple(i for i, one in enumerate(layers) if one == device))
        for device in devices
    )
    return Budget(free, sum(device.free for device in shared), shared)
