"""Writes a RandomSet in exactly the layouts that others publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from tests.transcoders.conftest import RandomSet
from torch import Tensor

# layout → (kind, activation, whether it can have skip connections)
LAYOUTS = {
    "gemma-scope": ("plt", "jumprelu", False),
    "gemma-scope-2-plt": ("plt", "jumprelu", True),
    "gemma-scope-2-clt": ("clt", "jumprelu", True),
    "saelens": ("plt", "jumprelu", True),
    "sparsify": ("plt", "topk_relu", True),
}


def write(tiny: RandomSet, layout: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if layout in {"saelens", "sparsify"}:
        for layer in range(tiny.n_layers):
            _write_trained(tiny, layout, layer, folder, dtype)
        if layout == "sparsify":
            (folder / "config.json").write_text(json.dumps({"model": "tiny"}))
        return folder
    names = [_write_layer(tiny, layout, layer, folder, dtype) for layer in range(tiny.n_layers)]
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny.config() | {"transcoders": names}))
    return folder


def _write_layer(tiny: RandomSet, layout: str, layer: int, folder: Path, dtype: torch.dtype) -> str:
    if layout == "gemma-scope":
        name = f"layer_{layer}/width_16k/average_l0_{layer}/params.npz"
        arrays = {
            "W_enc": tiny.W_enc[layer].T,
            "W_dec": tiny.W_dec[layer][:, 0],
            "b_enc": tiny.b_enc[layer],
            "b_dec": tiny.b_dec[layer],
            "threshold": tiny.threshold[layer],
        }
        (folder / name).parent.mkdir(parents=True)
        np.savez(
            folder / name, **{key: np.ascontiguousarray(a.to(dtype).numpy()) for key, a in arrays.items()}
        )
        return name
    name = f"params_{layer}.safetensors"
    tensors = {
        "w_enc": tiny.W_enc[layer].T,
        "w_dec": _all_slots(tiny, layer) if layout.endswith("clt") else tiny.W_dec[layer][:, 0],
        "b_enc": tiny.b_enc[layer],
        "b_dec": tiny.b_dec[layer],
        "threshold": tiny.threshold[layer],
    }
    if layer in tiny.W_skip:
        # x @ affine; RandomSet applies a per-layer set's skip transposed
        skip = tiny.W_skip[layer]
        tensors["affine_skip_connection"] = skip if layout.endswith("clt") else skip.T
    _save(tensors, folder / name, dtype)
    return name


def _all_slots(tiny: RandomSet, layer: int) -> Tensor:
    """A decoder with slots for earlier layers too, which mean nothing."""
    earlier = torch.full((len(tiny.W_dec[layer]), layer, tiny.W_dec[layer].shape[2]), 7.0).double()
    return torch.cat([earlier, tiny.W_dec[layer]], dim=1)


def _write_trained(tiny: RandomSet, layout: str, layer: int, folder: Path, dtype: torch.dtype) -> None:
    skip = {"W_skip": tiny.W_skip[layer]} if layer in tiny.W_skip else {}
    if layout == "sparsify":
        inside = folder / f"layers.{layer}.mlp"
        values: dict[str, Any] = {
            "activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": 20, "k": tiny.k,
            "multi_topk": False, "skip_connection": bool(skip), "transcode": True, "d_in": 6,
        }  # fmt: skip
        tensors = {
            "encoder.weight": tiny.W_enc[layer],
            "encoder.bias": tiny.b_enc[layer],
            "W_dec": tiny.W_dec[layer][:, 0],
            "b_dec": tiny.b_dec[layer],
        }
        name = "sae.safetensors"
    else:
        inside = folder / f"layer_{layer}"
        hooks = {
            "hook_name": f"blocks.{layer}.ln2.hook_normalized",
            "hook_name_out": f"blocks.{layer}.hook_mlp_out",
        }
        values = {
            "d_in": 6, "d_sae": 20, "d_out": 6, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": False,
            "normalize_activations": "none", "architecture": "jumprelu_skip_transcoder",
            "metadata": {"model_name": "tiny", **hooks},
        }  # fmt: skip
        tensors = {
            "W_enc": tiny.W_enc[layer].T,
            "W_dec": tiny.W_dec[layer][:, 0],
            "b_enc": tiny.b_enc[layer],
            "b_dec": tiny.b_dec[layer],
            "threshold": tiny.threshold[layer],
        }
        name = "sae_weights.safetensors"
    inside.mkdir()
    (inside / "cfg.json").write_text(json.dumps(values))
    _save(tensors | skip, inside / name, dtype)


def _save(tensors: dict[str, Tensor], path: Path, dtype: torch.dtype) -> None:
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}, path)
