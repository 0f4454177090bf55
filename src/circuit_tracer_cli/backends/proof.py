"""Checks a loaded model against the linear weights that the engine will use, on a few tokens, before any trace.

Anything that changes what a module does (adapters, hooks, parametrizations, unknown storage) shows up as a difference.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from circuit_tracer_cli.backends.base import Hooks, LayerWeights, LinearWeights
from circuit_tracer_cli.backends.hooked import HookedBackend
from circuit_tracer_cli.backends.transformers import TransformersBackend
from circuit_tracer_cli.errors import UnsupportedArchitecture

N_TOKENS = 5
_READ, _WRITE = "mlp.hook_in", "hook_mlp_out"


def tolerance(dtype: torch.dtype, *, quantised: bool) -> float:
    """Largest difference of a module from its weights, relative to its output's norm.

    Sixteen bits round at 2⁻⁸ in a chain of a few steps; quantized projections (8 bits) also round their inputs.
    """
    if quantised:
        return 0.15
    return 1e-3 if dtype in (torch.float32, torch.float64) else 0.03


@torch.no_grad()
def prove(model: TransformersBackend) -> None:
    """Replay a short pass with the linear weights, and compare it with the model.

    For each layer: attention's output from the block's input, its own pattern and `W_V`, `W_O`; what the block adds to the
    stream; at the end the logits from the final norm and `W_U`.

    Raises:
        UnsupportedArchitecture: A module doesn't do what its weights say; names the first one.
    """
    weights = model.weights
    if weights is None:
        return
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Tensor], None]:
        return lambda value: seen.__setitem__(name, value[0].detach())

    layers = range(model.shape.n_layers)
    modules = model.modules
    write = model.write_hook(_WRITE)
    at_layer = ["hook_in", "attn.hook_pattern", "attn.hook_out", "mlp.hook_in", write]
    at_layer += [f"{part}.hook_in" for part in ("ln1_post", "ln2") if modules.has(part)]
    names = [f"blocks.{layer}.{name}" for layer in layers for name in at_layer] + ["ln_final.hook_in"]
    with model.zero_softcap():
        logits, _ = model.run(_tokens(model), Hooks({name: [keep(name)] for name in names}))
    limit = tolerance(model.dtype, quantised=bool(getattr(model.hf_model, "is_quantized", False)))
    for layer in layers:
        at = {name: seen[f"blocks.{layer}.{name}"] for name in at_layer}
        after = seen[f"blocks.{layer + 1}.hook_in" if layer + 1 < len(layers) else "ln_final.hook_in"]
        _check_layer(model, layer, weights.layers[layer], at, after.to(at[write].device), limit)
    _check_logits(model, weights, seen["ln_final.hook_in"], logits, limit)


@torch.no_grad()
def prove_same(model: HookedBackend, logits: Tensor) -> None:
    """Compare a library's run with the `logits (pos, vocab)` from `short_logits` before it wrapped the model.

    Raises UnsupportedArchitecture if they differ: a library could read weights and bypass what changes them.
    """
    limit = tolerance(model.dtype, quantised=bool(getattr(model.hf_model, "is_quantized", False)))
    theirs = _wide(short_logits(model).to(logits.device))
    off = float((_wide(logits) - theirs).norm() / _wide(logits).norm().clamp(min=1e-30))
    if off > limit:
        raise UnsupportedArchitecture(
            f"the backend {model.name} doesn't compute what {model.config.model_name} does: logits are off by {off:.1%}",
            hint="use --backend transformers",
        )


@torch.no_grad()
def short_logits(model: HookedBackend) -> Tensor:
    """Logits `(pos, vocab)` of the short pass that models are checked on."""
    return model.run(_tokens(model), Hooks())[0]


def _tokens(model: HookedBackend) -> Tensor:
    """Ids `(pos)` from all over the vocabulary."""
    vocabulary = model.shape.d_vocab
    ids = [(2 * i + 1) * vocabulary // (2 * N_TOKENS) for i in range(N_TOKENS)]
    return torch.tensor(ids, device=model.device)


def _check_layer(
    model: TransformersBackend,
    layer: int,
    weights: LayerWeights,
    at: dict[str, Tensor],
    after: Tensor,
    limit: float,
) -> None:
    """Compare one block with its weights; `after (pos, d_model)` is its output."""
    layout = model.shape.layout
    block = f"{layout.layers}.{layer}"
    x = _wide(at["hook_in"])
    normed = weights.ln1.apply(x, weights.ln1.scale(x))
    attention = _wide(at["attn.hook_out"])
    _compare(
        model,
        f"{block}.{layout.attn}",
        _attention(weights, normed, at["attn.hook_pattern"]),
        attention,
        limit,
    )
    added = attention
    if weights.ln1_post is not None:
        added = weights.ln1_post.apply(added, weights.ln1_post.scale(added))
    middle = x if model.shape.parallel else x + added
    if layout.ln2 is not None:
        ours = weights.ln2.apply(middle, weights.ln2.scale(middle))
        _compare(model, f"{block}.{layout.ln2}", ours, at["mlp.hook_in"], limit)
    write = model.write_hook(_WRITE)
    stream = x + added + _wide(at[write])
    _compare(model, block, stream, after, limit)


def _attention(weights: LayerWeights, normed: Tensor, pattern: Tensor) -> Tensor:
    """Attention's output `(pos, d_model)` from `normed (pos, d_model)` and `pattern (head, query, key)`."""
    values = torch.einsum("khd,pd->pkh", _wide(weights.W_V), normed)
    if weights.b_V is not None:
        values = values + _wide(weights.b_V)
    spread = values.repeat_interleave(pattern.shape[0] // values.shape[1], dim=1)
    mixed = torch.einsum("hqk,khd->qhd", _wide(pattern), spread)
    out = torch.einsum("dhe,qhe->qd", _wide(weights.W_O), mixed)
    return out if weights.b_O is None else out + _wide(weights.b_O)


def _check_logits(
    model: TransformersBackend, weights: LinearWeights, final: Tensor, logits: Tensor, limit: float
) -> None:
    """Compare the last position's logits `(vocab)` with `W_U` behind the final norm."""
    x = _wide(final)[-1:]
    normed = weights.ln_final.apply(x, weights.ln_final.scale(x))[0]
    ours = _wide(weights.W_U.to(normed.device) @ normed.to(weights.W_U.dtype))
    bias = getattr(model.modules.unembed, "bias", None)
    ours = ours if bias is None else ours + _wide(bias.to(ours.device))
    _compare(model, "the unembedding (or the final norm)", ours, logits[-1].to(ours.device), limit)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _compare(model: TransformersBackend, name: str, ours: Tensor, theirs: Tensor, limit: float) -> None:
    theirs = _wide(theirs)
    off = float((ours - theirs).norm() / theirs.norm().clamp(min=1e-30))
    silent = float(theirs.norm()) == 0 and float(ours.norm()) < 1e-6
    if off <= limit or silent or not bool(torch.isfinite(theirs).all()):  # NaN is reported at its origin
        return
    raise UnsupportedArchitecture(
        f"{name} of {model.config.model_name} doesn't match its weights: its output is off by {off:.1%}",
        hint="something changes it (an adapter, a hook, a parametrization): merge that into the weights, or remove it",
    )
