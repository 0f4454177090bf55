"""The activation functions of features, for inference. Each belongs to one layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Activation(Protocol):
    """Pre-activations `(..., feature)` → activations of the same shape and dtype."""

    @property
    def name(self) -> str:
        """The name in `config.yaml`."""

    def __call__(self, z: Tensor) -> Tensor: ...

    def to(self, device: torch.device, dtype: torch.dtype) -> Activation:
        """The same function with its parameters elsewhere."""


@dataclass(frozen=True, slots=True)
class ReLU:
    """`max(z, 0)`."""

    name = "relu"

    def __call__(self, z: Tensor) -> Tensor:
        return torch.relu(z)

    def to(self, device: torch.device, dtype: torch.dtype) -> ReLU:
        """Itself: there is nothing to move."""
        return self


@dataclass(frozen=True, slots=True, eq=False)
class JumpReLU:
    """`z` where `z > threshold`, strictly, else 0. A negative threshold lets negative values pass."""

    threshold: Tensor  # (feature), or a scalar
    name = "jumprelu"

    def __call__(self, z: Tensor) -> Tensor:
        return torch.where(z > self.threshold, z, torch.zeros((), dtype=z.dtype, device=z.device))

    def to(self, device: torch.device, dtype: torch.dtype) -> JumpReLU:
        """The same with its threshold elsewhere."""
        return JumpReLU(self.threshold.to(device, dtype))


@dataclass(frozen=True, slots=True)
class TopK:
    """The `k` largest entries of each position, whatever their sign; everything else 0."""

    k: int
    name = "topk"

    def __call__(self, z: Tensor) -> Tensor:
        values, features = z.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(z).scatter_(-1, features, values)

    def to(self, device: torch.device, dtype: torch.dtype) -> TopK:
        """Itself: there is nothing to move."""
        return self


@dataclass(frozen=True, slots=True)
class RectifiedTopK:
    """The `k` largest entries of each position, of which the negative ones become 0, like everything else."""

    k: int
    name = "topk_relu"

    def __call__(self, z: Tensor) -> Tensor:
        values, features = torch.relu(z).topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(z).scatter_(-1, features, values)

    def to(self, device: torch.device, dtype: torch.dtype) -> RectifiedTopK:
        """Itself: there is nothing to move."""
        return self
