"""Random transcoder sets: written to disk in exactly the published layouts, and computed naively in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

N_LAYERS, D_MODEL, D_TRANSCODER, N_POS = 3, 6, 20, 7


@dataclass
class RandomSet:
    """A set as plain float64 tensors, and the arithmetic of the specification in its most literal form."""

    kind: str
    activation: str
    skip_layers: tuple[int, ...] = ()
    k: int = 4
    n_layers: int = N_LAYERS
    seed: int = 0
    W_enc: list[Tensor] = field(init=False)
    W_dec: list[Tensor] = field(init=False)
    b_enc: list[Tensor] = field(init=False)
    b_dec: list[Tensor] = field(init=False)
    threshold: list[Tensor] = field(init=False)
    W_skip: dict[int, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).double()

        layers = range(self.n_layers)
        self.W_enc = [draw(D_TRANSCODER, D_MODEL) for _ in layers]
        self.W_dec = [draw(D_TRANSCODER, self.written(layer), D_MODEL) for layer in layers]
        self.b_enc = [draw(D_TRANSCODER) for _ in layers]
        self.b_dec = [draw(D_MODEL) for _ in layers]
        self.threshold = [draw(D_TRANSCODER).abs() for _ in layers]
        self.W_skip = {layer: draw(D_MODEL, D_MODEL) for layer in self.skip_layers}

    def written(self, layer: int) -> int:
        return self.n_layers - layer if self.kind == "clt" else 1

    def inputs(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self.seed + 1)
        return [torch.randn(N_POS, D_MODEL, generator=generator) for _ in range(self.n_layers)]

    def preactivations(self, x: Tensor, layer: int) -> Tensor:
        return x.double() @ self.W_enc[layer].T + self.b_enc[layer]

    def activations(self, x: Tensor, layer: int) -> Tensor:
        z = self.preactivations(x, layer)
        if self.activation == "relu":
            return z.clamp(min=0)
        if self.activation == "jumprelu":
            return z * (z > self.threshold[layer])
        if self.activation == "topk_relu":
            z = z.clamp(min=0)
        kept = torch.zeros_like(z)
        for position in range(len(z)):
            best = sorted(range(D_TRANSCODER), key=lambda f: -float(z[position, f]))[: self.k]
            kept[position, best] = z[position, best]
        return kept

    def skip(self, x: Tensor, layer: int) -> Tensor:
        """Per-layer sets apply the stored matrix transposed, cross-layer sets as it is."""
        matrix = self.W_skip[layer]
        return x.double() @ (matrix.T if self.kind == "plt" else matrix)

    def reconstruction(self, inputs: list[Tensor], zeroed: set[int]) -> list[Tensor]:
        out = [self.b_dec[layer].repeat(N_POS, 1) for layer in range(self.n_layers)]
        for layer, x in enumerate(inputs):
            if layer in self.W_skip:
                out[layer] += self.skip(x, layer)
            acts = self.activations(x, layer)
            for slot in range(self.written(layer)):
                for position in set(range(N_POS)) - zeroed:
                    out[layer + slot][position] += acts[position] @ self.W_dec[layer][:, slot]
        return out

    def layer_files(self, layer: int) -> dict[str, dict[str, Tensor]]:
        """File name → tensors, in the published layout."""
        if self.kind == "plt":
            tensors = {
                "W_enc": self.W_enc[layer],
                "W_dec": self.W_dec[layer][:, 0],
                "b_enc": self.b_enc[layer],
                "b_dec": self.b_dec[layer],
            }
            if self.activation == "jumprelu":
                tensors["activation_function.threshold"] = self.threshold[layer]
            if layer in self.W_skip:
                tensors["W_skip"] = self.W_skip[layer]
            return {f"layer_{layer}.safetensors": tensors}
        encoder = {
            f"W_enc_{layer}": self.W_enc[layer],
            f"b_enc_{layer}": self.b_enc[layer],
            f"b_dec_{layer}": self.b_dec[layer],
        }
        if self.activation == "jumprelu":
            encoder[f"threshold_{layer}"] = self.threshold[layer]
        if layer in self.W_skip:
            encoder[f"W_skip_{layer}"] = self.W_skip[layer]
        return {
            f"W_enc_{layer}.safetensors": encoder,
            f"W_dec_{layer}.safetensors": {f"W_dec_{layer}": self.W_dec[layer]},
        }

    def config(self) -> dict[str, object]:
        kinds = {"plt": "transcoder_set", "clt": "cross_layer_transcoder"}
        values: dict[str, object] = {
            "model_kind": kinds[self.kind],
            "model_name": "tiny",
            "feature_input_hook": "hook_resid_mid",
            "feature_output_hook": "hook_mlp_out",
        }
        return values | ({"activation": "topk", "k": self.k} if self.activation == "topk" else {})

    def write(self, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for layer in range(self.n_layers):
            for name, tensors in self.layer_files(layer).items():
                stored = {key: tensor.to(dtype).contiguous() for key, tensor in tensors.items()}
                save_file(stored, folder / name)
        (folder / "config.yaml").write_text(yaml.safe_dump(self.config()))
        return folder


@pytest.fixture
def random_set() -> Callable[..., RandomSet]:
    """Makes a RandomSet from its fields."""
    return RandomSet
