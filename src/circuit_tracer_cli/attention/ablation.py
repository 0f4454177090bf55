"""What a target loses without a head, everything else frozen: the number that an ablation measures."""

from __future__ import annotations

import torch
from torch import Tensor

from circuit_tracer_cli.attention.loadings import mixed
from circuit_tracer_cli.attention.prompt import FrozenPrompt
from circuit_tracer_cli.attention.walks import pull
from circuit_tracer_cli.attribution.linear import Targets, push_attention


@torch.no_grad()
def ablation_effects(prompt: FrozenPrompt, targets: Targets) -> Tensor:
    """What goes through every head to targets, the whole stream and the values' biases taken together.

    With patterns and norm scales frozen a target's pre-activation (a logit, demeaned) falls by exactly this when all rows of the
    head's pattern are set to zero: the map is affine in each row alone.

    Args:
        prompt: The frozen prompt, with what every block begins with.
        targets: Whose change is predicted.

    Returns:
        `(target, layer, head, query)` in float64; the sum over queries is the ablation at all positions.
    """
    engine = prompt.engine
    n_pos = int(targets.positions.max()) + 1
    out = torch.zeros(len(targets), engine.n_layers, prompt.n_heads, prompt.n_pos, dtype=torch.float64)
    for level in pull(engine, targets):
        frozen, weights = prompt.frozen.layers[level.layer], engine.weights.layers[level.layer]
        assert frozen.residual is not None
        folded = engine.layers[level.layer]
        values = push_attention(folded, frozen.residual.to(level.z)[None], 0)[0]  # (1, key, kv_head, d_head)
        bias = level.z.new_zeros(values.shape[2:])
        if weights.ln1.bias is not None:
            bias = bias + weights.W_V.to(bias) @ weights.ln1.bias.to(bias)
        if weights.b_V is not None:
            bias = bias + weights.b_V.to(bias)
        # The folded pattern is divided by the norm's scales, which biases don't see.
        values = values + frozen.ln1_scale.to(bias)[:, None, None] * bias
        read = mixed(folded, values[:, :n_pos], 0)[0]  # (query, kv_head, group, d_head)
        shares = torch.einsum("qnga,tqnga->tngq", read, level.z)
        out[:, level.layer, :, :n_pos] = shares.flatten(1, 2).double().cpu()
    return out
