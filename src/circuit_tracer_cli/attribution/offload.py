"""Weights that a trace no longer needs wait in host memory or on the disk, and are back when it ends, however it ends.

On the disk they lie in a file without a name, which the system removes with the process: nothing is left behind by a kill either.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Literal, Self

import torch
from torch import Tensor

from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.weights import EagerWeights

Place = Literal["none", "cpu", "disk"]


def on_disk(tensor: Tensor) -> Tensor:
    """A copy of a tensor on the CPU whose memory is a file without a name, in `TMPDIR` or the usual place."""
    if not tensor.numel():
        return tensor.cpu()
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    with tempfile.TemporaryFile(prefix="circuit-tracer-offload-") as file:
        file.write(flat.numpy().data)
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return torch.frombuffer(mapped, dtype=torch.uint8).view(tensor.dtype).view(tensor.shape)


class Offload:
    """Moves weights away, each once; leaving the `with` block brings them back.

    Args:
        place: `cpu`, `disk`, or `none` to move nothing. To the CPU nothing moves that is there already.
        when_restored: Called after parameters have come back.
    """

    def __init__(self, place: Place, when_restored: Callable[[], None] | None = None) -> None:
        self.place, self._when_restored = place, when_restored
        self._parameters: dict[int, tuple[Tensor, Tensor, torch.device]] = {}
        self._weights: dict[int, tuple[EagerWeights, torch.device]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    @property
    def moved_bytes(self) -> int:
        """Size of what is away now."""
        stored = [away for _, away, _ in self._parameters.values()]
        stored += [weights.tensor for weights, _ in self._weights.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in stored)

    def parameters(self, parameters: Iterable[Tensor]) -> None:
        """Move a model's parameters; until they are back they are empty. Quantised ones stay."""
        for parameter in parameters:
            known = id(parameter) in self._parameters
            if known or not parameter.is_floating_point() or not self._moves(parameter):
                continue
            device = parameter.device
            away = self._away(parameter.data)
            self._parameters[id(parameter)] = parameter, away, device
            parameter.data = torch.empty(0, dtype=parameter.dtype, device=device)

    def transcoders(self, transcoders: Transcoders) -> None:
        """Move the encoders and decoders that are held in memory. Rows can still be asked for; they come from the new place."""
        for layer in getattr(transcoders, "layers", ()):
            for weights in (layer.W_enc, layer.W_dec):
                if (
                    isinstance(weights, EagerWeights)
                    and id(weights) not in self._weights
                    and self._moves(weights.tensor)
                ):
                    self._weights[id(weights)] = weights, weights.device
                    weights.tensor = self._away(weights.tensor)

    def restore(self) -> None:
        """Bring everything back, one tensor at a time; on a CPU, what lies on the disk stays mapped and is read when used."""
        moved = bool(self._parameters)
        while self._parameters:
            _, (parameter, away, device) = self._parameters.popitem()
            parameter.data = away.to(device)
        while self._weights:
            _, (weights, device) = self._weights.popitem()
            weights.tensor = weights.tensor.to(device)
        if moved and self._when_restored is not None:
            self._when_restored()

    def _moves(self, tensor: Tensor) -> bool:
        return self.place == "disk" or (self.place == "cpu" and tensor.device.type != "cpu")

    def _away(self, tensor: Tensor) -> Tensor:
        return on_disk(tensor) if self.place == "disk" else tensor.detach().to("cpu")
