"""The parts of a block's input that no source wrote: biases, learned positions, MLP outputs at untraced positions.

The stream is affine in the graph's sources: `d = Σ sources + constants`. With patterns and scales frozen, constants
propagate upwards like sources, each under its name.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.attention.prompt import FrozenPrompt
from circuit_tracer_cli.attribution.linear import push_attention, through_norm

DECODER_BIASES = "decoder biases"
ATTENTION_BIASES = "attention and norm biases"
LEARNED_POSITIONS = "position vectors"
UNTRACED = "MLP outputs at untraced positions"
NAMES = (DECODER_BIASES, ATTENTION_BIASES, LEARNED_POSITIONS, UNTRACED)


@dataclass(frozen=True, slots=True)
class Origins:
    """The stream at the beginning of a block, split by what wrote it.

    Attributes:
        constants: `(name, pos, d_model)`, in the order of `NAMES`.
        sources: `(pos, d_model)`, all sources together.
    """

    constants: Tensor
    sources: Tensor


def origins(prompt: FrozenPrompt, layer: int) -> Origins:
    """The parts of the input stream of block `layer`; they add up to the recorded one."""
    engine, frozen = prompt.engine, prompt.frozen
    first = frozen.layers[0].residual
    assert first is not None
    D = engine.tokens.new_zeros(len(NAMES) + 1, *engine.tokens.shape)
    D[NAMES.index(LEARNED_POSITIONS)] = first.to(D) - engine.tokens
    D[-1] = engine.tokens
    for index in range(layer):
        folded = engine.layers[index]
        D = D.to(engine.devices[index])
        _, out = push_attention(folded, D, 0)
        out[NAMES.index(ATTENTION_BIASES)] += _attention_bias(prompt, index)
        read = D if engine.weights.parallel else D + out
        if folded.skip is not None and folded.skip_scale is not None:
            out = out + (read * folded.skip_scale[:, None]) @ folded.skip.T
        written, bias = _written(prompt, index), _written_constant(prompt, index)
        zeroed = list(prompt.tokens.zero_positions)
        out[-1] += written
        out[NAMES.index(UNTRACED), zeroed] += bias[zeroed]
        bias[zeroed] = 0
        out[NAMES.index(DECODER_BIASES)] += bias
        D = D + out
    D = D.to(engine.devices[min(layer, engine.n_layers - 1)])
    return Origins(D[:-1], D[-1])


def _attention_bias(prompt: FrozenPrompt, layer: int) -> Tensor:
    """What a block's attention adds regardless of its input `(pos, d_model)`: biases of norms, values and output."""
    weights, frozen = prompt.engine.weights.layers[layer], prompt.frozen.layers[layer]
    dtype = prompt.engine.dtype
    n_kv, d_head, _ = weights.W_V.shape
    pattern = frozen.pattern.to(dtype)
    value = torch.zeros(n_kv, d_head, dtype=dtype, device=pattern.device)
    if weights.ln1.bias is not None:
        value = value + weights.W_V.to(dtype) @ weights.ln1.bias.to(dtype)
    if weights.b_V is not None:
        value = value + weights.b_V.to(dtype)
    spread = value.repeat_interleave(len(pattern) // n_kv, 0)  # (head, d_head)
    each = torch.einsum("dha,ha->hd", weights.W_O.to(dtype), spread)
    out = pattern.sum(2).T @ each
    if weights.b_O is not None:
        out = out + weights.b_O.to(dtype)
    if weights.ln1_post is not None and frozen.ln1_post_scale is not None:
        out = through_norm(out, weights.ln1_post) / frozen.ln1_post_scale.to(dtype)[:, None]
        out = out if weights.ln1_post.bias is None else out + weights.ln1_post.bias.to(dtype)
    return out


def _written(prompt: FrozenPrompt, layer: int) -> Tensor:
    """What features and errors at all positions add to the stream at a layer's write point `(pos, d_model)`."""
    decoders = prompt.engine.decoders[layer]
    out = decoders.rows.new_zeros(prompt.n_pos, decoders.rows.shape[1])
    return out.index_add_(0, decoders.position_of_row().to(out.device), decoders.rows)


def _written_constant(prompt: FrozenPrompt, layer: int) -> Tensor:
    """What a layer adds at its write point other than sources and its skip connection `(pos, d_model)`."""
    engine, frozen, model = prompt.engine, prompt.frozen.layers[layer], prompt.model
    weights = engine.weights.layers[layer]
    out = frozen.feature_output.to(engine.devices[layer], engine.dtype)
    skip = model.transcoders.skip_matrix(layer)
    if skip is not None:
        read = frozen.feature_input.to(out)
        if engine.points.read == "normed" and weights.ln2.bias is not None:
            read = read - weights.ln2.bias.to(out)
        out = out - read @ skip.to(out)
    if engine.points.write == "mlp" and weights.ln2_post is not None and frozen.ln2_post_scale is not None:
        out = through_norm(out, weights.ln2_post) / frozen.ln2_post_scale.to(out)[:, None]
        out = out if weights.ln2_post.bias is None else out + weights.ln2_post.bias.to(out)
    return out - _written(prompt, layer)
