"""Cotangents going down and streams going up, with value vectors and their cotangents for every head.

Everything is linear, with patterns and norm scales frozen (Ameisen et al. 2025, "attribution graphs"). `z` is the cotangent of
what a head reads, `(…, kv_head, group, d_head)`, before the pattern is transposed; a head's number is `kv_head * group size +
group`. The pattern of a folded layer is divided by the norms' scales, so that `Σ pattern[k, q] ⟨z[q], v[k]⟩` is a head's share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.linear import FoldedLayer, LinearEngine, Targets, push_attention


@dataclass(frozen=True, slots=True)
class Pulled:
    """Cotangents of some targets at one block.

    Attributes:
        layer: The block.
        above: `(target, pos, d_model)`, at the block's output.
        z: `(target, pos, kv_head, group, d_head)`, cotangents of what the heads read.
    """

    layer: int
    above: Tensor
    z: Tensor


def heads_of(folded: FoldedLayer, c: Tensor) -> Tensor:
    """`z (…, kv_head, group, d_head)` for cotangents `c (…, d_model)` of attention's output."""
    n_kv, group = folded.pattern.shape[0], folded.pattern.shape[3]
    return (c @ folded.W_O).view(*c.shape[:-1], n_kv, group, -1)


def pulled_through(folded: FoldedLayer, z: Tensor) -> Tensor:
    """What attention passes back to the stream `(target, pos, d_model)`."""
    n_pos = z.shape[1]
    back = torch.einsum("nkqg,tqnge->tkne", folded.pattern[:, :n_pos, :n_pos], z)
    return back.flatten(2) @ folded.W_V


def skip_back(folded: FoldedLayer, G: Tensor, positions: slice | Tensor) -> Tensor | None:
    """What flows back from a block's output through its skip connection; None without one."""
    if folded.skip is None or folded.skip_scale is None:
        return None
    return (G @ folded.skip) * folded.skip_scale[positions, None]


def pull(engine: LinearEngine, targets: Targets, attention: bool = True) -> Iterator[Pulled]:
    """Pull targets down through all blocks, highest first.

    Args:
        engine: The engine.
        targets: In any order.
        attention: False to leave attention out.
    """
    n_pos = int(targets.positions.max()) + 1
    G = engine.tokens.new_zeros(len(targets), n_pos, engine.tokens.shape[1])
    _start(engine, targets, engine.n_layers, G)
    for layer in range(engine.n_layers - 1, -1, -1):
        folded = engine.layers[layer]
        above = G.to(engine.devices[layer])
        below = above.clone()
        skip = skip_back(folded, above, slice(n_pos))
        if not engine.weights.parallel:
            below = below if skip is None else below + skip
            _start(engine, targets, layer, below)
        z = heads_of(folded, below)
        yield Pulled(layer, above, z)
        if attention:
            below = below + pulled_through(folded, z)
        if engine.weights.parallel:
            below = below if skip is None else below + skip
            _start(engine, targets, layer, below)
        G = below


def _start(engine: LinearEngine, targets: Targets, layer: int, G: Tensor) -> None:
    """Add the directions of the targets that begin at a layer."""
    here = (targets.layers == layer).nonzero().squeeze(1)
    if len(here):
        index = here.to(G.device), targets.positions[here].to(G.device)
        G.index_put_(index, engine.directions(targets.select(here)).to(G), accumulate=True)


def pull_in_place(engine: LinearEngine, targets: Targets) -> Iterator[tuple[int, Tensor]]:
    """Layer and `z (target, kv_head, group, d_head)` of the cotangents that stay at their targets' positions.

    Above, they go only through the residual stream, skip connections and each head's look at its own position.
    """
    G = engine.tokens.new_zeros(len(targets), engine.tokens.shape[1])
    _start_in_place(engine, targets, engine.n_layers, G)
    for layer in range(engine.n_layers - 1, -1, -1):
        folded = engine.layers[layer]
        G = G.to(engine.devices[layer])
        at = targets.positions.to(G.device)
        skip = skip_back(folded, G, at)
        if not engine.weights.parallel:
            G = G.clone() if skip is None else G + skip
            _start_in_place(engine, targets, layer, G)
        z = heads_of(folded, G)
        yield layer, z
        back = torch.einsum("ntg,tnge->tne", folded.pattern[:, at, at], z)
        G = G + back.flatten(1) @ folded.W_V
        if engine.weights.parallel:
            G = G if skip is None else G + skip
            _start_in_place(engine, targets, layer, G)


def _start_in_place(engine: LinearEngine, targets: Targets, layer: int, G: Tensor) -> None:
    here = (targets.layers == layer).nonzero().squeeze(1)
    if len(here):
        G[here.to(G.device)] += engine.directions(targets.select(here)).to(G)


def push_in_place(engine: LinearEngine, sources: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Layer and values `(source, kv_head, d_head)` of what sources add while staying at their own positions."""
    layers, positions = engine.columns.places(sources)
    D = engine.tokens.new_zeros(len(sources), engine.tokens.shape[1])
    tokens = (layers < 0).nonzero().squeeze(1)
    D[tokens.to(D.device)] = engine.tokens[positions[tokens].to(D.device)]
    for layer, folded in enumerate(engine.layers):
        D = D.to(engine.devices[layer])
        at = positions.to(D.device)
        n_kv = folded.pattern.shape[0]
        values = (D @ folded.W_V.T).view(len(D), n_kv, -1)
        yield layer, values
        read = torch.einsum("nsg,sne->snge", folded.pattern[:, at, at], values)
        out = read.flatten(1) @ folded.W_O.T
        middle = D if engine.weights.parallel else D + out
        if folded.skip is not None and folded.skip_scale is not None:
            out = out + (middle * folded.skip_scale[at, None]) @ folded.skip.T
        D = D + out
        writing, vectors = engine.decoders[layer].written_by(sources, layers, positions)
        D.index_add_(0, writing.to(D.device), vectors.to(D))


@dataclass(frozen=True, slots=True)
class Carried:
    """A vector field written by one head, propagated upwards: `stream`, `values` and `read` as in `Level`."""

    layer: int
    stream: Tensor
    values: Tensor
    read: Tensor


def carry(engine: LinearEngine, layer: int, x: Tensor) -> Iterator[Carried]:
    """What `x (pos, d_model)`, written by attention of `layer`, adds in higher blocks without further attention.

    The first is at `layer` itself, after its attention (`values` empty); the last is the final norm's input.
    """
    D = x[None]
    for index in range(layer, engine.n_layers):
        folded = engine.layers[index]
        D = D.to(engine.devices[index])
        own = index == layer
        values = D.new_empty(0) if own else push_attention(folded, D, 0, attention=False)[0]
        read = torch.zeros_like(D) if own and engine.weights.parallel else D
        yield Carried(index, D, values, read)
        if folded.skip is not None and folded.skip_scale is not None:
            D = D + (read * folded.skip_scale[: D.shape[1], None]) @ folded.skip.T
    D = D.to(engine.frozen.ln_final_scale.device)
    yield Carried(engine.n_layers, D, D.new_empty(0), D)
