"""What a loader of one layout gets and gives. The table of loaders is in `formats/__init__.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from circuit_tracer_cli.transcoders.base import Kind, Transcoders
from circuit_tracer_cli.transcoders.config import SetConfig


@dataclass(frozen=True, slots=True)
class SetSource:
    """A transcoder set on disk."""

    folder: Path
    config: SetConfig


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Where and how weights are wanted."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    lazy_encoder: bool = False
    lazy_decoder: bool = True
    devices: tuple[torch.device, ...] = ()  # one per layer, where layers lie on several

    def of_layer(self, layer: int) -> LoadOptions:
        """The options of one layer."""
        return replace(self, device=self.devices[layer]) if self.devices else self


@dataclass(frozen=True, slots=True)
class SetShape:
    """What is known about a set from its headers. Sizes are in bytes as stored, one per layer."""

    kind: Kind
    n_layers: int
    d_model: int
    d_transcoder: int
    activations: tuple[str, ...]  # per layer
    skip_layers: tuple[int, ...]  # the layers with a skip connection
    stored_dtype: torch.dtype
    encoder_bytes: tuple[int, ...]
    decoder_bytes: tuple[int, ...]

    @property
    def has_skip(self) -> bool:
        """Whether any layer has a skip connection."""
        return bool(self.skip_layers)


class Format(Protocol):
    """A loader: a module with this constant and these three functions."""

    @property
    def KIND(self) -> Kind:
        """The kind of set that it loads."""

    def matches(self, source: SetSource) -> bool:
        """Whether the files are of this layout, judged by their names and tensors, not the set's name."""

    def shapes(self, source: SetSource) -> SetShape:
        """Sizes and activation from the headers. Raises BadTranscoders for a set that can't be loaded."""

    def load(self, source: SetSource, options: LoadOptions) -> Transcoders:
        """The set. Raises BadTranscoders for one that `shapes` refuses, or whose weights aren't finite."""
