"""Per-layer transcoders: features of a layer write to that layer only."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from circuit_tracer_cli.files.tensors import save_tensors
from circuit_tracer_cli.transcoders.activations import Activation, JumpReLU, RectifiedTopK, ReLU, TopK
from circuit_tracer_cli.transcoders.layer import TranscoderLayer
from circuit_tracer_cli.transcoders.layered import LayeredTranscoders
from circuit_tracer_cli.transcoders.rows import EagerWeights


class SingleLayerTranscoder(TranscoderLayer):
    """The transcoder of one layer; its decoder has a single written layer."""

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
        """From tensors as in the standard file: `W_dec (feature, d_model)`, `W_skip` for x @ W_skip.T."""
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


class TranscoderSet(LayeredTranscoders[SingleLayerTranscoder]):
    """One single-layer transcoder per layer."""

    kind = "plt"

    def to_safetensors(self, path: Path | str) -> None:
        """Write `layer_{i}.safetensors` for every layer into the folder `path`."""
        for index in range(self.n_layers):
            self.write_layer(Path(path), index)

    def write_layer(self, folder: Path, layer: int) -> None:
        """Write the file of one layer, atomically. Raises BadTranscoders for weights that aren't finite."""
        self.layers[layer].to_safetensors(folder / f"layer_{layer}.safetensors")

    def _written(self, index: int) -> int:
        return 1
