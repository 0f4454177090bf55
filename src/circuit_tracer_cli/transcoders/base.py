"""The interface of transcoder sets, per-layer or cross-layer, for the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from circuit_tracer_cli.transcoders.activations import TopKOverLayers

Kind = Literal["plt", "clt"]


class Transcoders(Protocol):
    """A set of transcoders, one per layer.

    A feature of layer `l` reads the residual stream at `feature_input_hook` of layer `l` and writes at
    `feature_output_hook` of the layers `written_layers(l)`: `l` alone for a per-layer set, `l … n_layers-1`
    for a cross-layer one.
    """

    stated_l0: float | None
    commit: str | None  # commit of the hub repository that its files came from
    joint: TopKOverLayers | None  # how active features are chosen, if over all layers at once
    normalized: str | None  # how `ln2.hook_normalized` is read, if the set's configuration tells

    @property
    def of_model(self) -> bool:
        """Whether its features are the model's own neurons: their encoder rows depend on what they read."""

    @property
    def kind(self) -> Kind:
        """Per-layer (`plt`) or cross-layer (`clt`)."""

    @property
    def n_layers(self) -> int:
        """Number of layers of the set; the model must have as many."""

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""

    @property
    def d_transcoder(self) -> int:
        """Features per layer."""

    @property
    def feature_input_hook(self) -> str:
        """The hook that features read from, relative to a block."""

    @property
    def feature_output_hook(self) -> str:
        """The hook that features write to, relative to a block."""

    @property
    def scan(self) -> str | list[str] | None:
        """The id under which feature examples are found."""

    @property
    def expected_l0(self) -> float | None:
        """Active features per layer and position that the set was trained for; None if its files don't tell."""

    @property
    def missing_layers(self) -> tuple[int, ...]:
        """The layers of the model without a transcoder; the full outputs of their MLPs are error nodes."""

    @property
    def has_skip(self) -> bool:
        """True if any layer has a skip connection; see `skip_matrix` for each."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of features and rows."""

    @property
    def device(self) -> torch.device:
        """The device of layer 0; each layer's features and rows are on that layer's own device."""

    def cover(self, n_layers: int) -> Any:
        """Add layers without a transcoder, in place, up to a model's `n_layers`; returns the set."""

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Any:
        """Move and cast every weight, in place; returns the set."""

    def place(self, devices: Sequence[torch.device], dtype: torch.dtype | None = None) -> Any:
        """Move each layer to its own device and cast every weight, in place; returns the set."""

    def encode_layer(self, x: Tensor, layer: int, apply_activation_function: bool = True) -> Tensor:
        """`(pos, d_model)` at the read point → activations or pre-activations `(pos, feature)`."""

    def readings(self, x: Tensor, layer: int, frozen: Tensor) -> Tensor:
        """`(pos, d_model)` at the read point → what encoder rows read `(pos, feature)`, constants included.

        Pre-activations; of the model's own neurons the value of their linearisation at `frozen (pos, d_model)`.
        """

    def strongest(self, acts: Tensor, layer: int) -> Tensor:
        """Activations `(pos, feature)` of `layer` with those set to zero that can't be nodes."""

    def encoder_rows(self, layer: int, features: Tensor, x: Tensor | None = None) -> Tensor:
        """Encoder rows `(n, d_model)` of `features (n)` int64, in any order, repeats allowed.

        `x (n, d_model)` is what each of them reads; only the model's own neurons need it.
        """

    def decoder_rows(self, layer: int, features: Tensor) -> Tensor:
        """Unscaled decoder rows `(n, written, d_model)`; slot `k` writes to layer `layer + k`."""

    def written_layers(self, layer: int) -> range:
        """The layers that features of `layer` write to."""

    def bias(self, layer: int) -> Tensor:
        """`b_dec (d_model)` of the layer."""

    def skip_matrix(self, layer: int) -> Tensor | None:
        """`S (d_in, d_out)` with skip(x) = x @ S, whatever the layout's orientation; None without a skip."""
