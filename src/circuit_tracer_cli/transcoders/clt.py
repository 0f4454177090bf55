"""Cross-layer transcoders: features of a layer write to that layer and all later ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from circuit_tracer_cli.files.tensors import save_tensors
from circuit_tracer_cli.transcoders.activations import Activation, JumpReLU, ReLU
from circuit_tracer_cli.transcoders.layers import LayeredTranscoders, TranscoderLayer
from circuit_tracer_cli.transcoders.weights import EagerWeights


class CrossLayerTranscoder(LayeredTranscoders[TranscoderLayer]):
    """One transcoder over all layers. Layer `l` has a decoder `(feature, n_layers - l, d_model)`."""

    kind = "clt"

    @property
    def expected_l0(self) -> float | None:
        """Active features per layer and position: as stated in the set's files, else implied by its TopK, else None."""
        return super().expected_l0 if self.joint is None else self.joint.k / self.n_layers

    @classmethod
    def from_tensors(
        cls,
        W_enc: Sequence[Tensor],
        W_dec: Sequence[Tensor],
        b_enc: Sequence[Tensor],
        b_dec: Sequence[Tensor],
        *,
        activations: Sequence[Activation] | None = None,
        W_skip: Sequence[Tensor | None] | None = None,
        feature_input_hook: str = "hook_resid_mid",
        feature_output_hook: str = "hook_mlp_out",
        scan: str | list[str] | None = None,
    ) -> CrossLayerTranscoder:
        """Make a set from one tensor per layer, shaped as in the standard files; `W_skip` is applied as x @ W_skip."""
        layers = [
            TranscoderLayer(
                EagerWeights(W_enc[i]),
                EagerWeights(W_dec[i]),
                b_enc[i],
                b_dec[i],
                ReLU() if activations is None else activations[i],
                None if W_skip is None else W_skip[i],
            )
            for i in range(len(W_enc))
        ]
        return cls(layers, feature_input_hook, feature_output_hook, scan)

    def to_safetensors(self, path: Path | str) -> None:
        """Write `W_enc_{i}.safetensors` and `W_dec_{i}.safetensors` for every layer into a folder."""
        for index in range(self.n_layers):
            self.write_layer(Path(path), index)

    def write_layer(self, folder: Path, layer: int) -> None:
        """Write the two files of one layer, each atomically. Raises BadTranscoders for weights that aren't finite."""
        written = self.layers[layer]
        tensors = {
            f"W_enc_{layer}": written.W_enc.load().tensor,
            f"b_enc_{layer}": written.b_enc,
            f"b_dec_{layer}": written.b_dec,
        }
        if self.joint is not None:
            tensors[f"W_dec_norm_{layer}"] = self.joint.norms[layer]
        if isinstance(written.activation, JumpReLU):
            tensors[f"threshold_{layer}"] = written.activation.threshold
        if written.skip is not None:
            tensors[f"W_skip_{layer}"] = written.skip
        save_tensors(folder / f"W_enc_{layer}.safetensors", tensors)
        save_tensors(folder / f"W_dec_{layer}.safetensors", {f"W_dec_{layer}": written.W_dec.load().tensor})

    def _written(self, index: int) -> int:
        return self.n_layers - index
