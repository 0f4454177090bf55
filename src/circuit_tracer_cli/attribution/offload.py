"""Weights that a trace no longer needs move to host memory or to disk, and are moved back however the trace ends.

On disk they are in an unnamed file, which the system removes with the process: even a kill leaves nothing behind.
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
    """Return a copy of a tensor on the CPU whose memory is an unnamed file, in `TMPDIR` or the default place."""
    if not tensor.numel():
        return tensor.cpu()
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    with tempfile.TemporaryFile(prefix="circuit-tracer-offload-") as file:
        file.write(flat.numpy().data)
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return torch.frombuffer(mapped, dtype=torch.uint8).view(tensor.dtype).view(tensor.shape)


class Offload:
    """Moves weights out of the way, each once; leaving the `with` block moves them back.

    Args:
        place: `cpu`, `disk`, or `none` to move nothing. Weights on the CPU stay there under `cpu`.
        when_restored: Called after parameters are back.
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
        """Return the bytes that are offloaded now."""
        stored = [away for _, away, _ in self._parameters.values()]
        stored += [weights.tensor for weights, _ in self._weights.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in stored)

    def parameters(self, parameters: Iterable[Tensor]) -> None:
        """Move a model's parameters, which are empty until they are back. Quantized ones stay."""
        for parameter in parameters:
            known = id(parameter) in self._parameters
            if known or not parameter.is_floating_point() or not self._moves(parameter):
                continue
            device = parameter.device
            away = self._away(parameter.data)
            self._parameters[id(parameter)] = parameter, away, device
            parameter.data = torch.empty(0, dtype=parameter.dtype, device=device)

    def transcoders(self, transcoders: Transcoders) -> None:
        """Move the encoders and decoders that are in memory. Rows can still be read; they come from the new place."""
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
        """Move everything back, one tensor at a time; on a CPU, tensors on disk stay mapped and are read when used."""
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
