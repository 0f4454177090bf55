"""The demo's transcoders as files: writing the standard layouts, reading them back, replacing MLPs by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.model import Edit
from training.transcoder_training import SparseTranscoder

CONFIG = """model_kind: {kind}
model_name: demo
feature_input_hook: mlp.hook_in
feature_output_hook: mlp.hook_out
scan: {scan}
"""


def export_transcoders(model: SparseTranscoder, scale: Tensor, folder: Path, cross_layer: bool) -> None:
    """Write bfloat16 files in real units, each layer's threshold spelled out per feature."""
    folder.mkdir(parents=True, exist_ok=True)
    for layer in range(model.layers):
        reach = model.reach[layer]
        decoder = model.decoder[layer].detach().view(model.features, reach, model.width)
        decoder = decoder * scale[layer : layer + reach, None]
        parts = {
            "W_enc": model.encoder[layer].detach(),
            "b_enc": model.encoder_bias[layer].detach(),
            "b_dec": model.decoder_bias[layer].detach() * scale[layer],
        }
        threshold = model.threshold[layer].expand(model.features)
        if cross_layer:
            encoder = {f"{name}_{layer}": tensor for name, tensor in parts.items()}
            _save({**encoder, f"threshold_{layer}": threshold}, folder / f"W_enc_{layer}.safetensors")
            _save({f"W_dec_{layer}": decoder}, folder / f"W_dec_{layer}.safetensors")
        else:
            whole = {**parts, "W_dec": decoder[:, 0], "activation_function.threshold": threshold}
            _save(whole, folder / f"layer_{layer}.safetensors")
    kind, scan = ("cross_layer_transcoder", "demo-clt") if cross_layer else ("transcoder_set", "demo-plt")
    (folder / "config.yaml").write_text(CONFIG.format(kind=kind, scan=scan), encoding="utf-8")


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(0o644)


@dataclass
class ShippedSet:
    """A transcoder set as it lies on disk, in float32; `decoder[l]` is (features, reach, width)."""

    encoder: list[Tensor]
    encoder_bias: list[Tensor]
    decoder: list[Tensor]
    decoder_bias: list[Tensor]
    threshold: list[Tensor]

    @classmethod
    def load(cls, folder: Path) -> ShippedSet:
        """Read either layout."""
        cross_layer = (folder / "W_enc_0.safetensors").exists()
        count = len(list(folder.glob("W_enc_*.safetensors" if cross_layer else "layer_*.safetensors")))
        columns: list[list[Tensor]] = [[] for _ in range(5)]
        for layer in range(count):
            if cross_layer:
                files = load_file(folder / f"W_enc_{layer}.safetensors") | load_file(
                    folder / f"W_dec_{layer}.safetensors"
                )
                names = [f"{name}_{layer}" for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")]
            else:
                files = load_file(folder / f"layer_{layer}.safetensors")
                names = ["W_enc", "b_enc", "W_dec", "b_dec", "activation_function.threshold"]
            for column, name in zip(columns, names, strict=True):
                column.append(files[name].float())
        decoder = [w if w.dim() == 3 else w[:, None] for w in columns[2]]
        return cls(columns[0], columns[1], decoder, columns[3], columns[4])

    def encode(self, x: Tensor, layer: int) -> Tensor:
        """Activations of a layer's features."""
        pre = x @ self.encoder[layer].T + self.encoder_bias[layer]
        return pre * (pre > self.threshold[layer])

    def decode(self, activations: Sequence[Tensor], layer: int) -> Tensor:
        """The output of `layer` from the activations of all layers up to it."""
        output = self.decoder_bias[layer].expand(*activations[layer].shape[:-1], -1)
        for source in range(layer + 1):
            if layer - source < self.decoder[source].shape[1]:
                output = output + activations[source] @ self.decoder[source][:, layer - source]
        return output

    def replacing(self) -> Edit:
        """An edit that puts the transcoders in place of every MLP, except at position 0."""
        activations: list[Tensor] = []

        def edit(layer: int, x: Tensor, output: Tensor) -> Tensor:
            activations.append(self.encode(x, layer))
            replaced = self.decode(activations, layer)
            return torch.cat((output[:, :1], replaced[:, 1:]), dim=1)

        return edit
