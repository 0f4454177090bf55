"""Per-layer transcoders: features of a layer write to that layer only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from circuit_tracer_cli.files.tensors import save_tensors
from circuit_tracer_cli.transcoders.activations import Activation, JumpReLU, RectifiedTopK, ReLU, TopK
from circuit_tracer_cli.transcoders.layers import LayeredTranscoders, TranscoderLayer
from circuit_tracer_cli.transcoders.weights import EagerWeights, ZeroWeights


class SingleLayerTranscoder(TranscoderLayer):
    """The transcoder of one layer; its decoder writes to a single layer."""

    @classmethod
    def from_tensors(
        cls,
        W_enc: Tensor,
        W_dec: Tensor,
        b_enc: Tensor,
        b_dec: Tensor,
        activation: Activation | None = None,
        W_skip: Tensor | None = None,
    ) -> SingleLayerTranscoder:
        """Make a layer from tensors as in the standard file: `W_dec (feature, d_model)`, `W_skip` for x @ W_skip.T."""
        skip = None if W_skip is None else W_skip.T
        decoder = EagerWeights(W_dec.unsqueeze(1))
        return cls(EagerWeights(W_enc), decoder, b_enc, b_dec, activation or ReLU(), skip)

    def decode(self, acts: Tensor, input_acts: Tensor | None = None) -> Tensor:
        """Activations `(pos, feature)` → reconstruction `(pos, d_model)`. A skip needs the input."""
        out = self.b_dec.expand(*acts.shape[:-1], -1).clone()
        for start, block in self.W_dec.blocks():
            out += acts[..., start : start + len(block)] @ block[:, 0]
        if self.skip is None:
            return out
        if input_acts is None:
            raise ValueError("a transcoder with a skip connection needs its input to decode")
        return out + self.compute_skip(input_acts)

    def forward(self, x: Tensor) -> Tensor:
        """`x (pos, d_model)` at the read point → reconstruction `(pos, d_model)`."""
        return self.decode(self.encode(x), x)

    __call__ = forward

    def to_safetensors(self, path: Path | str) -> None:
        """Write the standard file of this layer (atomically)."""
        tensors = {
            "W_enc": self.W_enc.load().tensor,
            "W_dec": self.W_dec.load().tensor[:, 0],
            "b_enc": self.b_enc,
            "b_dec": self.b_dec,
        }
        if self.skip is not None:
            tensors["W_skip"] = self.skip.T
        if isinstance(self.activation, JumpReLU):
            tensors["activation_function.threshold"] = self.activation.threshold
        if isinstance(self.activation, TopK | RectifiedTopK):
            tensors["k"] = torch.tensor(self.activation.k)
        save_tensors(Path(path), tensors)


class NoTranscoder(SingleLayerTranscoder):
    """Stands for a layer without a transcoder: no feature is ever active, and it reconstructs nothing."""

    def __init__(self, like: SingleLayerTranscoder) -> None:
        device, dtype = like.device, like.dtype
        super().__init__(
            ZeroWeights(like.W_enc.shape, device, dtype),
            ZeroWeights(like.W_dec.shape, device, dtype),
            torch.zeros((), device=device, dtype=dtype).expand(like.d_transcoder),
            torch.zeros(like.d_model, device=device, dtype=dtype),
            ReLU(),
        )

    @property
    def present(self) -> bool:
        """False: there is no transcoder."""
        return False

    def encode(self, x: Tensor, apply_activation_function: bool = True) -> Tensor:
        """Zeros `(..., feature)` for `x (..., d_model)`."""
        return torch.zeros(*x.shape[:-1], self.d_transcoder, device=self.device, dtype=self.dtype)


class TranscoderSet(LayeredTranscoders[SingleLayerTranscoder]):
    """One transcoder per layer, or for some of the layers."""

    kind = "plt"

    @classmethod
    def of_some_layers(
        cls,
        layers: Mapping[int, SingleLayerTranscoder],
        n_layers: int,
        feature_input_hook: str,
        feature_output_hook: str,
        scan: str | list[str] | None = None,
    ) -> Self:
        """Return a set for a model of `n_layers` that has transcoders for the layers given."""
        like = next(iter(layers.values()))
        found = [layers.get(layer) or NoTranscoder(like) for layer in range(n_layers)]
        return cls(found, feature_input_hook, feature_output_hook, scan)

    def cover(self, n_layers: int) -> Self:
        """Add layers without a transcoder, in place, up to a model's `n_layers`; returns the set."""
        more = n_layers - self.n_layers
        self.layers += tuple(NoTranscoder(self.layers[0]) for _ in range(more))
        return self

    def to_safetensors(self, path: Path | str) -> None:
        """Write `layer_{i}.safetensors` into the folder `path` for every layer with a transcoder."""
        for index in set(range(self.n_layers)) - set(self.missing_layers):
            self.write_layer(Path(path), index)

    def write_layer(self, folder: Path, layer: int) -> None:
        """Write the file of one layer, atomically. Raises BadTranscoders for weights that aren't finite."""
        self.layers[layer].to_safetensors(folder / f"layer_{layer}.safetensors")

    def _written(self, index: int) -> int:
        return 1
