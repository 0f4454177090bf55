"""Reads linear weights out of a TransformerBridge, whose adapters give every family the same component names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.backends.base import LayerWeights, LinearWeights, NormKind, NormWeights
from circuit_tracer_cli.errors import UnsupportedArchitecture


def norm_weights(bridge_norm: Any) -> NormWeights:
    """The record of a norm component; Gemma's gains are stored as offsets from one."""
    module = bridge_norm.original_component
    eps = getattr(module, "eps", None)
    if eps is None:
        eps = getattr(module, "variance_epsilon", None)
    if eps is None:
        raise UnsupportedArchitecture(f"the norm {type(module).__name__} has no epsilon that is known")
    gain = module.weight.detach()
    gain = 1.0 + gain.float() if bridge_norm.uses_weight_offset else gain
    bias = getattr(module, "bias", None)
    kind: NormKind = "rms" if bridge_norm.uses_rms_norm else "layer"
    return NormWeights(kind, gain, float(eps), None if bias is None else bias.detach())


def projection(component: Any) -> tuple[Tensor, Tensor | None]:
    """Weight `(out, in)` and bias of a linear component, Conv1D's transposed storage undone as a view."""
    module = component.original_component
    weight = module.weight.detach()
    if type(module).__name__ == "Conv1D":
        weight = weight.T
    bias = getattr(module, "bias", None)
    return weight, None if bias is None else bias.detach()


def has_component(block: Any, name: str) -> bool:
    """Whether the block's adapter declares the component."""
    return name in block.submodules


def layer_weights(block: Any, d_head: int) -> LayerWeights:
    """The linear weights of one block."""
    v, b_v = projection(block.attn.v)
    o, b_o = projection(block.attn.o)
    return LayerWeights(
        W_V=v.reshape(-1, d_head, v.shape[1]),
        W_O=o.reshape(o.shape[0], -1, d_head),
        b_V=None if b_v is None else b_v.reshape(-1, d_head),
        b_O=b_o,
        ln1=norm_weights(block.ln1),
        ln2=norm_weights(block.ln2),
        ln1_post=norm_weights(block.ln1_post) if has_component(block, "ln1_post") else None,
        ln2_post=norm_weights(block.ln2_post) if has_component(block, "ln2_post") else None,
    )


def linear_weights(bridge: Any, d_head: int, *, parallel: bool) -> LinearWeights:
    """The linear weights of a booted bridge, as views where the storage allows."""
    with torch.no_grad():
        return LinearWeights(
            layers=tuple(layer_weights(block, d_head) for block in bridge.blocks),
            ln_final=norm_weights(bridge.ln_final),
            W_U=bridge.unembed.original_component.weight.detach(),
            W_E=bridge.embed.original_component.weight.detach(),
            parallel=parallel,
        )
