"""Inputs and outputs of a layout's loader. The table of loaders is in `formats/__init__.py`."""

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
    """The device and form of the weights."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    lazy_encoder: bool = False
    lazy_decoder: bool = True
    devices: tuple[torch.device, ...] = ()  # one per layer, if layers are on several

    def of_layer(self, layer: int) -> LoadOptions:
        """The options of one layer."""
        return replace(self, device=self.devices[layer]) if self.devices else self


@dataclass(frozen=True, slots=True)
class SetShape:
    """What is known about a set from its headers. Sizes are in bytes as stored, one per layer of the model.

    A layer without a transcoder isn't in `layers`; its activation is `none` and its sizes are 0.
    """

    kind: Kind
    n_layers: int
    d_model: int
    d_transcoder: int
    activations: tuple[str, ...]  # per layer
    skip_layers: tuple[int, ...]  # the layers with a skip connection
    stored_dtype: torch.dtype
    encoder_bytes: tuple[int, ...]
    decoder_bytes: tuple[int, ...]
    layers: tuple[int, ...] = ()  # the layers with a transcoder; empty for all of them

    @property
    def has_skip(self) -> bool:
        """True if any layer has a skip connection."""
        return bool(self.skip_layers)

    @property
    def present(self) -> tuple[int, ...]:
        """The layers with a transcoder."""
        return self.layers or tuple(range(self.n_layers))

    def covering(self, n_layers: int) -> SetShape:
        """Return the shape for a model of `n_layers`; only per-layer sets can leave layers out."""
        more = n_layers - self.n_layers
        if more <= 0 or self.kind != "plt":
            return self
        return replace(
            self,
            n_layers=n_layers,
            activations=self.activations + ("none",) * more,
            encoder_bytes=self.encoder_bytes + (0,) * more,
            decoder_bytes=self.decoder_bytes + (0,) * more,
            layers=self.present,
        )


class Format(Protocol):
    """The loader of one layout."""

    @property
    def KIND(self) -> Kind:
        """The kind of set that it loads."""

    def matches(self, source: SetSource) -> bool:
        """True if the files are of this layout, judged by their names and tensors, not the set's name."""

    def files(self, source: SetSource) -> list[Path]:
        """Return the weight files. Raises BadTranscoders if one is missing."""

    def shapes(self, source: SetSource) -> SetShape:
        """Return sizes and activation from the headers. Raises BadTranscoders for a set that can't be loaded."""

    def load(self, source: SetSource, options: LoadOptions) -> Transcoders:
        """Return the set. Raises BadTranscoders if `shapes` refuses it, or its weights aren't finite."""
