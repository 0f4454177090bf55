"""How much memory is free now on the devices of the layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from circuit_tracer_cli.planning.memory import WORK
from circuit_tracer_cli.planning.sizes import Budget, DeviceBudget

if TYPE_CHECKING:
    import torch

UNKNOWN = 2**62
"""Assumed where a system doesn't report its free memory."""

WORK_OF_A_MULTIPROCESSOR = 512
"""Rows times positions in a block for each multiprocessor: some tiles of a matrix product for each, whatever the width."""

WORK_OF_OTHERS = 2**14
"""The same for an accelerator that doesn't say how many it has."""


def busy_work(device: torch.device) -> int:
    """Rows times positions in one block that keep a device's arithmetic busy, a power of two."""
    if device.type == "cpu":
        return WORK[False]
    if device.type != "cuda":
        return WORK_OF_OTHERS
    import torch

    count = torch.cuda.get_device_properties(device).multi_processor_count
    return int(2 ** round(math.log2(count * WORK_OF_A_MULTIPROCESSOR)))


def memory_budget(
    layers: Sequence[torch.device],
    host: int | None,
    available: Callable[[torch.device], int | None],
    busy: Callable[[torch.device], int] | None = None,
) -> Budget:
    """Return the memory of the host and of the device of every layer.

    Args:
        layers: The device of each layer.
        host: Free bytes of the host; None if unknown.
        available: Free bytes on a device; None if unknown.
        busy: Rows times positions that keep a device busy; None for a usual number.
    """
    free, devices = UNKNOWN if host is None else host, list(dict.fromkeys(layers))
    others = [device for device in devices if device.type != "cpu"]
    unified = any(device.type == "mps" for device in others)
    work = min(map(busy, others)) if busy is not None and others else None
    if len(devices) == 1:
        return Budget(free, available(devices[0]) if others else None, unified=unified, busy_work=work)

    def at(device: torch.device) -> int:
        known = available(device)
        return UNKNOWN if known is None else known

    shared = tuple(
        DeviceBudget(str(device), at(device), tuple(i for i, one in enumerate(layers) if one == device))
        for device in devices
    )
    return Budget(free, sum(device.free for device in shared), shared, unified, work)
