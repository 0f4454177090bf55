"""One layer of a transcoder set: what per-layer and cross-layer transcoders have in common."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from circuit_tracer_cli.transcoders.activations import Activation
from circuit_tracer_cli.transcoders.rows import WeightSource


class TranscoderLayer:
    """The features of one layer: encoder, activation function, a decoder for each written layer, biases.

    Args:
        W_enc: `(feature, d_model)`.
        W_dec: `(feature, written, d_model)`; slot `k` writes to this layer + `k`.
        b_enc: `(feature)`.
        b_dec: `(d_model)`, added at this layer's write point.
        activation: Pre-activations → activations.
        skip: `S (d_in, d_out)` with skip(x) = x @ S, or None.
    """

    def __init__(
        self,
        W_enc: WeightSource,
        W_dec: WeightSource,
        b_enc: Tensor,
        b_dec: Tensor,
        activation: Activation,
        skip: Tensor | None = None,
    ) -> None:
        self.W_enc = W_enc
        self.W_dec = W_dec
        self.b_enc = b_enc
        self.b_dec = b_dec
        self.activation = activation
        self.skip = skip

    @property
    def d_transcoder(self) -> int:
        """Features of this layer."""
        return self.W_enc.shape[0]

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.W_enc.shape[1]

    @property
    def n_written(self) -> int:
        """How many layers the features write to."""
        return self.W_dec.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.b_enc.dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.b_enc.device

    def encode(self, x: Tensor, apply_activation_function: bool = True) -> Tensor:
        """`x (..., d_model)`, cast to the weights' dtype → (pre-)activations `(..., feature)`."""
        x = x.to(self.device, self.dtype)
        z = x.new_empty(*x.shape[:-1], self.d_transcoder)
        for start, block in self.W_enc.blocks():
            part = functional.linear(x, block, self.b_enc[start : start + len(block)])
            if self.W_enc.lazy and not bool(part.isfinite().all()):
                self.W_enc.require_finite(block)
            if len(block) == self.d_transcoder:
                z = part
            else:
                z[..., start : start + len(block)] = part
        return self.activation(z) if apply_activation_function else z

    def compute_skip(self, x: Tensor) -> Tensor:
        """The skip term `(..., d_model)` of `x (..., d_model)`. Raises ValueError if there is none."""
        if self.skip is None:
            raise ValueError("this transcoder layer has no skip connection")
        return x.to(self.device, self.dtype) @ self.skip

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move and cast in place, one tensor at a time, so that the layer never exists twice."""
        self.W_enc = self.W_enc.to(device, dtype)
        self.W_dec = self.W_dec.to(device, dtype)
        self.b_enc = self.b_enc.to(device, dtype)
        self.b_dec = self.b_dec.to(device, dtype)
        self.activation = self.activation.to(device, dtype)
        self.skip = None if self.skip is None else self.skip.to(device, dtype)
