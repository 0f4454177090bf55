"""The strongest chains of edges from a prompt token to a target, and the most influential nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.graph.defaults import STABILITY_GRID
from circuit_tracer_cli.graph.edges import Array
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import (
    as_array,
    compute_edge_influence,
    node_influence,
    row_scale,
    topological_waves,
)
from circuit_tracer_cli.graph.prune import stability_of


@dataclass(frozen=True, slots=True)
class Path:
    """One chain of edges.

    Attributes:
        nodes: Node indices from the source to the target.
        weights: Direct effect of each edge, one fewer than nodes.
        strength: Product of the absolute weights, each divided by the sum over its target's incoming edges.
        sign: 1 if the path raises its target, -1 if it lowers it: the product of the weights' signs.
    """

    nodes: tuple[int, ...]
    weights: tuple[float, ...]
    strength: float
    sign: int


@dataclass(frozen=True, slots=True)
class _Best:
    """The `k` strongest paths into each node, each as its last step and the rank of the path that it extends.

    Attributes:
        strength: float64 `(T, k)`, descending; zero where there are fewer paths.
        source: int64 `(T, k)`, node before the last, -1 where the path begins.
        rank: int64 `(T, k)`, rank of the extended path among those of `source`.
        weight: float32 `(T, k)`, of the last edge.
    """

    strength: Array
    source: Array
    rank: Array
    weight: Array


def strongest_paths(
    graph: Graph, k: int = 5, source: int | None = None, target: int | None = None
) -> list[Path]:
    """The `k` strongest paths, strongest first, exactly: the best of each node are built from the best of its sources.

    Args:
        graph: Pruned or not; only stored edges are followed.
        k: How many.
        source: Node that the paths start from; by default any token.
        target: Node that they end at; by default any target (or the graph's root), and then a path is also weighted by its
            target's weight.

    Raises:
        InvalidValue: `k` isn't positive, a node is outside the graph, or features aren't in layer order.
    """
    _check_arguments(graph, k, source, target)
    layout = graph.layout
    sources = list(range(layout.token_offset, layout.logit_offset)) if source is None else [source]
    best = _best_into_each(graph, k, sources)
    weights = as_array(graph.logit_weights)
    ends = weights.nonzero()[0] if target is None else np.array([target])
    worth = best.strength[ends]
    if target is None:
        worth = worth * weights[ends, None]
    ranked = worth.flatten()
    order = np.argsort(-ranked, kind="stable")[:k].tolist()
    return [_unrolled(best, int(ends[i // k]), i % k) for i in order if ranked[i] > 0]


def strongest_nodes(graph: Graph, n: int = 10) -> list[tuple[int, float]]:
    """Features and errors with the largest influence on the targets, as (node, share of all influence), largest first.

    Only kept nodes of a pruned graph are listed; the shares are then of the influence within it.
    """
    influence = node_influence(graph.edges, row_scale(graph.edges), as_array(graph.logit_weights))
    total = float(influence.sum())
    inner = influence[: graph.layout.token_offset]
    if graph.pruning is not None:
        inner = inner * graph.pruning.node_mask[: len(inner)].cpu().numpy()
    order = np.argsort(-inner, kind="stable")[:n].tolist()
    return [(node, float(inner[node]) / total) for node in order if inner[node] > 0]


def paths_into(graph: Graph, nodes: Sequence[int]) -> dict[int, Path]:
    """Return the strongest path from a token to each of some nodes, where there is one, in one pass. Raises InvalidValue."""
    layout = graph.layout
    best = _best_into_each(graph, 1, list(range(layout.token_offset, layout.logit_offset)))
    return {node: _unrolled(best, node, 0) for node in nodes if best.strength[node, 0] > 0}


@dataclass(frozen=True, slots=True)
class RankedEdge:
    """One edge among the strongest.

    Attributes:
        source, target: Node indices.
        weight: Direct effect.
        share: The part of all that reaches the targets, along paths of any length, that passes this edge: its normalised weight
            times the influence of its target (`compute_edge_influence`), over the targets' weights.
        stability: Share of the prunings of `STABILITY_GRID` that keep it; None where that isn't known.
    """

    source: int
    target: int
    weight: float
    share: float
    stability: float | None


def strongest_edges(graph: Graph, n: int = 10) -> list[RankedEdge]:
    """Return the edges that carry most influence, largest share first; shares of a pruned graph are within what is left."""
    edges, steady = graph.edges, stability_of(graph)
    whole = float(graph.logit_weights.sum()) or 1.0
    shares = compute_edge_influence(edges, graph.logit_weights).cpu()
    best = shares.topk(min(n, len(shares)))
    targets = torch.searchsorted(edges.indptr.cpu(), best.indices, right=True) - 1
    return [
        RankedEdge(
            int(edges.indices[place]),
            target,
            float(edges.values[place]),
            share / whole,
            None if steady is None else int(steady.edges[place]) / len(STABILITY_GRID),
        )
        for place, target, share in zip(
            best.indices.tolist(), targets.tolist(), best.values.tolist(), strict=True
        )
        if share > 0
    ]


def _check_arguments(graph: Graph, k: int, source: int | None, target: int | None) -> None:
    if k < 1:
        raise InvalidValue(f"the number of paths must be at least 1, not {k}")
    for name, node in (("source", source), ("target", target)):
        if node is not None and not 0 <= node < graph.n_nodes:
            raise InvalidValue(f"{name} {node} is outside the graph's {graph.n_nodes} nodes")


def _best_into_each(graph: Graph, k: int, sources: list[int]) -> _Best:
    edges = graph.edges.to("cpu")
    if topological_waves(edges) is None:
        raise InvalidValue(
            "the graph has a cycle or features out of layer order, so it has no strongest path"
        )
    n = edges.n
    best = _Best(
        strength=np.zeros((n, k)),
        source=np.full((n, k), -1),
        rank=np.zeros((n, k), dtype=np.int64),
        weight=np.zeros((n, k), dtype=np.float32),
    )
    best.strength[sources, 0] = 1.0
    starts, scale = set(sources), row_scale(edges)
    for node, columns, weights in edges.rows():  # sources have lower numbers, so they're done by now
        if node not in starts:
            _fill(best, node, columns, weights, float(scale[node]))
    return best


def _fill(best: _Best, node: int, columns: Array, weights: Array, scale: float) -> None:
    """The best paths into one node. Only the `k` edges with the best first choice can be on one of the `k` best paths."""
    k = best.strength.shape[1]
    shares = np.abs(weights, dtype=np.float64) * scale
    edge = _largest(best.strength[:, 0].take(columns) * shares, k)
    strengths = (best.strength[columns[edge]] * shares[edge, None]).flatten()
    chosen = _largest(strengths, k)
    found, edge = len(chosen), edge[chosen // k]
    best.strength[node, :found] = strengths[chosen]
    best.source[node, :found] = columns[edge]
    best.rank[node, :found] = chosen % k
    best.weight[node, :found] = weights[edge]


def _largest(values: Array, k: int) -> Array:
    """Indices of the `k` largest values above zero, largest first, ties in index order."""
    least = np.partition(values, -k)[-k] if len(values) > k else 0.0
    places = ((values >= least) & (values > 0)).nonzero()[0]
    return places[np.argsort(-values[places], kind="stable")][:k]


def _unrolled(best: _Best, node: int, rank: int) -> Path:
    nodes, weights, strength = [node], [], float(best.strength[node, rank])
    while (before := int(best.source[node, rank])) >= 0:
        weights.append(float(best.weight[node, rank]))
        node, rank = before, int(best.rank[node, rank])
        nodes.append(node)
    sign = -1 if sum(weight < 0 for weight in weights) % 2 else 1
    return Path(tuple(reversed(nodes)), tuple(reversed(weights)), strength, sign)
