"""The activation functions of features, for inference. Each belongs to one layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from circuit_tracer_cli.errors import InvalidValue


class Activation(Protocol):
    """Pre-activations `(..., feature)` → activations of the same shape and dtype."""

    @property
    def name(self) -> str:
        """The name in `config.yaml`."""

    def __call__(self, z: Tensor) -> Tensor: ...

    def to(self, device: torch.device, dtype: torch.dtype) -> Activation:
        """Return the function with its parameters on another device."""


@dataclass(frozen=True, slots=True)
class ReLU:
    """`max(z, 0)`."""

    name = "relu"

    def __call__(self, z: Tensor) -> Tensor:
        return torch.relu(z)

    def to(self, device: torch.device, dtype: torch.dtype) -> ReLU:
        """Return the function itself: it has no parameters."""
        return self


@dataclass(frozen=True, slots=True, eq=False)
class JumpReLU:
    """`z` where `z > threshold`, strictly, else 0. A negative threshold lets negative values pass."""

    threshold: Tensor  # (feature), or a scalar
    name = "jumprelu"

    def __call__(self, z: Tensor) -> Tensor:
        return torch.where(z > self.threshold, z, torch.zeros((), dtype=z.dtype, device=z.device))

    def to(self, device: torch.device, dtype: torch.dtype) -> JumpReLU:
        """Return the function with its threshold on another device."""
        return JumpReLU(self.threshold.to(device, dtype))


@dataclass(frozen=True, slots=True)
class TopK:
    """Keep the `k` largest entries of each position, whatever their sign; set everything else to 0."""

    k: int
    name = "topk"

    def __call__(self, z: Tensor) -> Tensor:
        values, features = z.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(z).scatter_(-1, features, values)

    def to(self, device: torch.device, dtype: torch.dtype) -> TopK:
        """Return the function itself: it has no parameters."""
        return self


@dataclass(frozen=True, slots=True)
class RectifiedTopK:
    """Keep the `k` largest entries of each position if they are positive; set everything else to 0."""

    k: int
    name = "topk_relu"

    def __call__(self, z: Tensor) -> Tensor:
        values, features = torch.relu(z).topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(z).scatter_(-1, features, values)

    def to(self, device: torch.device, dtype: torch.dtype) -> RectifiedTopK:
        """Return the function itself: it has no parameters."""
        return self


@dataclass(frozen=True, slots=True)
class OneLayerOfTopK:
    """Stands for a layer of a set whose active features are chosen over all layers at once."""

    name = "cross_layer_topk"

    def __call__(self, z: Tensor) -> Tensor:
        """Raise InvalidValue: the choice needs the pre-activations of every layer."""
        raise InvalidValue(
            "this set chooses its active features over all layers at once, so one layer can't be computed alone",
            hint="attribute works with it; interventions, validate and features build don't",
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> OneLayerOfTopK:
        """Return the function itself: it has no parameters."""
        return self


OUTLIER_FACTOR = 20
"""Inputs whose norm is this many times that of the others are outliers, which were excluded from training."""


@dataclass(frozen=True, slots=True)
class TopKOverLayers:
    """For each token, keep the `k` features of all layers whose activation times decoder norm is largest.

    A decoder's norm is taken over all layers that it writes to (ByteDance-Seed/Cross-Layer-TopK-CLT).
    """

    k: int
    norms: tuple[Tensor, ...]  # per layer (feature), in float32 or better

    def select(self, preactivations: Iterable[Tensor]) -> list[Tensor]:
        """Return activations `(pos, feature)` of every layer for its pre-activations, a layer at a time.

        Only `k` candidates for each token and one layer's pre-activations are in memory at once; the result is sparse (COO).
        """
        best: tuple[Tensor, Tensor, Tensor] | None = (
            None  # scores, values, layer * feature + feature: (pos, k)
        )
        width, n_layers = len(self.norms[0]), 0
        for layer, z in enumerate(preactivations):
            n_layers += 1
            values = torch.relu(z)
            norms = self.norms[layer].to(z.device)
            scores = values.to(norms.dtype) * norms
            top, index = scores.topk(min(self.k, width), dim=-1)
            found = top, values.gather(1, index), index + layer * width
            if best is not None:
                joined = [torch.cat([old, new.to(old)], dim=1) for old, new in zip(best, found, strict=True)]
                top, index = joined[0].topk(min(self.k, joined[0].shape[1]), dim=-1)
                found = top, joined[1].gather(1, index), joined[2].gather(1, index)
            best = found
        assert best is not None
        scores, values, places = best
        return [self._of_layer(values, places, layer, width) for layer in range(n_layers)]

    def _of_layer(self, values: Tensor, places: Tensor, layer: int, width: int) -> Tensor:
        kept = (places // width == layer) & (values != 0)
        positions = kept.nonzero()[:, 0]
        index = torch.stack([positions, places[kept] % width])
        return torch.sparse_coo_tensor(
            index, values[kept], (len(values), width), check_invariants=False
        ).coalesce()

    def outliers(self, inputs: Sequence[Tensor], zeroed: Sequence[int]) -> list[int]:
        """Return the positions whose input `(pos, d_model)` is an outlier in any layer, in addition to those in `zeroed`.

        Training compared with the mean norm of many tokens; in a short prompt one outlier would move that mean, so it is
        compared with the median of the prompt.
        """
        kept = [pos for pos in range(len(inputs[0])) if pos not in set(zeroed)]
        if not kept:
            return []
        norms = torch.stack([x[kept].float().norm(dim=1).cpu() for x in inputs])
        found = (norms >= OUTLIER_FACTOR * norms.median(dim=1, keepdim=True).values).any(0)
        return [pos for pos, outlier in zip(kept, found.tolist(), strict=True) if outlier]
