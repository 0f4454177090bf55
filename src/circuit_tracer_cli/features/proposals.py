"""Labels for the nodes of one graph, from the weights and the graph alone, for sets without feature examples.

What a feature raises and lowers is `W_dec · W_U`, with the gains of the norms (`features/finish.py`). What drives a node is its
share of each token over all paths, `D = N_F D + N_E`, with `N` the absolute weights of each row divided by their sum (Ameisen
et al. 2025, "Graph pruning"), among the most influential features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.features.finish import directions, strongest_effects
from circuit_tracer_cli.graph.defaults import NODE_THRESHOLD
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import ROW_SUM_FLOOR, compute_node_influence
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.tokens import TokenTexts

MOST_NODES = 2000
"""Largest number of features that get a label, most influential first, beyond those kept by the default pruning."""
MOST_FLOPS = 2e12
"""Largest number of operations for `W_dec · W_U`, beyond the features that the default pruning keeps."""
_TOKENS, _DRIVERS = 5, 5
_BLOCK_ELEMENTS = 2**24


@torch.no_grad()
def proposals(graph: Graph, model: ReplacementModel) -> dict[str, Any]:
    """Return what `graph.proposals.proposals_of` makes labels from, for the graph's metadata under `PROPOSALS`.

    Costs `2 · d_model · vocabulary` operations for each feature (1.2 GFLOP in Gemma 2 2B).

    Args:
        graph: A raw graph. Features among its targets get a label too.
        model: The model that it was made with, its weights in place.
    """
    nodes = _labelled_nodes(graph, flops_per_feature(model))
    rows = graph.selected_features[nodes].cpu()
    targets = [(slot, row) for slot, row in enumerate(graph.target_rows()) if row is not None]
    if targets:
        nodes = torch.cat([nodes, torch.tensor([graph.layout.logit_offset + slot for slot, _ in targets])])
        rows = torch.cat([rows, torch.tensor([row for _, row in targets])])
    places = graph.active_features[rows.to(graph.active_features.device)].cpu()
    drivers = _drivers(graph, nodes)
    wanted = sorted({(layer, feature) for layer, _, feature in places.tolist()})
    ids = [graph.node_id(node) for node in nodes.tolist()]
    values = graph.activation_values[rows.to(graph.activation_values.device)]
    negative = [one for one, value in zip(ids, values.tolist(), strict=True) if value < 0]
    return {
        "features": _effects(model, wanted),
        "drivers": dict(zip(ids, drivers, strict=True)),
        **({"negative": negative} if negative else {}),
    }


def flops_per_feature(model: ReplacementModel) -> int:
    """Operations for the effects of one feature on all outputs."""
    return 2 * model.cfg.d_model * model.cfg.d_vocab


def _labelled_nodes(graph: Graph, flops: int) -> Tensor:
    """int64, ascending: features that account for the default share of influence, and as many more as the budget allows."""
    influence = compute_node_influence(graph.edges, graph.logit_weights.to(graph.edges.device)).cpu().double()
    order = torch.argsort(influence, descending=True, stable=True)
    shares = influence[order].cumsum(0) / influence.sum().clamp_min(1e-30)
    is_feature = order < graph.layout.n_features
    shown = int((is_feature & (shares <= NODE_THRESHOLD)).sum()) + 1
    count = min(MOST_NODES, max(shown, int(MOST_FLOPS // flops)))
    return order[is_feature & (influence[order] > 0)][:count].sort().values


def _drivers(graph: Graph, nodes: Tensor) -> list[list[list[float]]]:
    """`[[position, share], …]` of the strongest tokens behind each node, leaving out features outside `nodes`."""
    layout, first = graph.layout, graph.layout.token_offset
    rows = torch.zeros(len(nodes), len(nodes) + graph.n_pos, dtype=torch.float64)
    scale = torch.zeros(len(nodes), 1, dtype=torch.float64)
    done, height = 0, max(1, _BLOCK_ELEMENTS // 4 // max(1, graph.n_nodes))
    for part in nodes.split(torch.unique_consecutive(nodes // height, return_counts=True)[1].tolist()):
        begin, places = int(part[0]), slice(done, done + len(part))
        dense = graph.edges.dense_rows(begin, int(part[-1]) + 1).cpu()[part - begin].double().abs()
        rows[places] = torch.cat([dense[:, nodes], dense[:, first : layout.logit_offset]], dim=1)
        errors = dense[:, layout.error_offset : first].sum(dim=1, keepdim=True)
        scale[places] = rows[places].sum(dim=1, keepdim=True) + errors
        done += len(part)
    rows /= scale.clamp_min(ROW_SUM_FLOOR)
    among, tokens = rows[:, : len(nodes)], rows[:, len(nodes) :]
    ordered = bool((among.triu() == 0).all())  # features are numbered by layer, so that sources come first
    system = torch.eye(len(nodes), dtype=torch.float64) - among
    solved = (
        torch.linalg.solve_triangular(system, tokens, upper=False, unitriangular=True)
        if ordered
        else torch.linalg.solve(system, tokens)
    )
    shares, positions = solved.topk(min(_DRIVERS, graph.n_pos), dim=1)
    return [
        [[p, round(share, 4)] for p, share in zip(at, values, strict=True) if share >= 0.005]
        for at, values in zip(positions.tolist(), shares.tolist(), strict=True)
    ]


def _effects(model: ReplacementModel, wanted: list[tuple[int, int]]) -> dict[str, dict[str, Any]]:
    """Tokens that features raise and lower, by `layer/feature`; empty for a model without linear weights or tokenizer."""
    weights = model.model.weights
    if weights is None or model.tokenizer is None:
        return {}
    W_U = weights.W_U[: len(model.tokenizer)]
    texts, found = TokenTexts(model.tokenizer), dict[str, dict[str, Any]]()
    block = max(1, _BLOCK_ELEMENTS // max(1, len(W_U)))
    for layer in sorted({layer for layer, _ in wanted}):
        features = torch.tensor([feature for at, feature in wanted if at == layer])
        for part in features.split(block):
            rows = directions(model, layer, part.to(model.transcoders.device))
            effects = strongest_effects(rows, W_U, min(_TOKENS, len(W_U)))
            for place, feature in enumerate(part.tolist()):
                found[f"{layer}/{feature}"] = {
                    "promotes": _pairs(texts, effects.top[place], effects.strength[place]),
                    "suppresses": _pairs(texts, effects.bottom[place], effects.weakness[place]),
                }
    return found


def _pairs(texts: TokenTexts, ids: Any, strengths: Any) -> list[list[Any]]:
    return [
        [texts[token], round(value, 2)] for token, value in zip(ids.tolist(), strengths.tolist(), strict=True)
    ]
