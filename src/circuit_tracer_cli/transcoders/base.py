"""What the engine asks of a transcoder set, per-layer or cross-layer alike."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor


class Transcoders(Protocol):
    """A set of transcoders, one per layer.

    A feature of layer `l` reads the residual stream at `feature_input_hook` of layer `l` and writes at `feature_output_hook` of the
    layers `written_layers(l)`: `l` alone for a per-layer set, `l … n_layers-1` for a cross-layer one.
    """

    kind: Literal["plt", "clt"]
    n_layers: int
    d_model: int
    d_transcoder: int
    feature_input_hook: str
    feature_output_hook: str
    scan: str | list[str] | None
    has_skip: bool
    dtype: torch.dtype
    device: torch.device

    def encode_layer(self, x: Tensor, layer: int, apply_activation_function: bool = True) -> Tensor:
        """`(pos, d_model)` at the read point → activations (or pre-activations) `(pos, feature)` in the set's dtype."""

    def encoder_rows(self, layer: int, features: Tensor) -> Tensor:
        """Encoder rows `(n, d_model)` of `features (n)` int64, in any order, repeats allowed."""

    def decoder_rows(self, layer: int, features: Tensor) -> Tensor:
        """Decoder rows `(n, written, d_model)`; slot `k` writes to layer `layer + k`. Not scaled by any activation."""

    def written_layers(self, layer: int) -> range:
        """The layers that features of `layer` write to."""

    def bias(self, layer: int) -> Tensor:
        """`b_dec (d_model)` of the layer."""

    def skip_matrix(self, layer: int) -> Tensor | None:
        """`S (d_in, d_out)` with skip(x) = x @ S, whatever the layout's own orientation; None without a skip connection."""
