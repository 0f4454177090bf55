"""Prunes a graph to the nodes and edges that account for most of the influence (Ameisen et al. 2025, "Graph pruning").

Edge scores are computed block by block and never stored: memory holds the edges, one bit mask, and arrays over the nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from circuit_tracer_cli.errors import InvalidValue, UnsuitableValue
from circuit_tracer_cli.files.scratch import scratch_array
from circuit_tracer_cli.graph.defaults import EDGE_THRESHOLD, NODE_THRESHOLD, STABILITY_GRID
from circuit_tracer_cli.graph.edges import EDGE_BLOCK, Array, Edges, require_memory
from circuit_tracer_cli.graph.graph import Graph, Pruning, Stability
from circuit_tracer_cli.graph.influence import (
    as_array,
    compute_graph_scores,
    masked_magnitudes,
    node_influence,
    row_scale,
)
from circuit_tracer_cli.graph.layout import NodeLayout

ScoreStream = Callable[[], Iterable[Array]]
"""Returns the same blocks of float32 scores on each call."""

MOST_STEADY_EDGES = 1 << 22
"""Edges among the nodes of the widest pruning of `STABILITY_GRID` beyond which nothing is measured: they are held in memory."""

_HIGH_BINS = 1 << 15  # the sign bit of a score is never set
_LOW_BINS = 1 << 16


@dataclass(frozen=True, slots=True)
class PruneResult:
    """The kept part of a graph. Unpacks as `node_mask, edge_mask, cumulative_scores`.

    Attributes:
        node_mask: bool `(T)`.
        edge_keep: bool `(nnz)`, over the stored edges.
        cumulative_scores: float32 `(T)`: share of the influence of the nodes up to and including this one, most
            influential first.
        edges: The edges that `edge_keep` refers to.
    """

    node_mask: torch.Tensor
    edge_keep: torch.Tensor
    cumulative_scores: torch.Tensor
    edges: Edges

    @property
    def edge_mask(self) -> torch.Tensor:
        """bool `(T, T)`, row = target. Made on each access; `edge_keep` has the same information in less memory."""
        n = self.edges.n
        require_memory(n**2, self.edges.device, f"the dense {n} x {n} edge mask")
        keep, mask = self.edge_keep.cpu().numpy(), np.zeros((n, n), dtype=np.bool_)
        for block in self.edges.blocks():
            mask[block.rows, block.columns] = keep[block.place]
        return torch.from_numpy(mask).to(self.edges.device)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter((self.node_mask, self.edge_mask, self.cumulative_scores))

    def __len__(self) -> int:
        return 3

    def __getitem__(self, place: Any) -> Any:
        return tuple(self)[place]


def prune_graph(
    graph: Graph, node_threshold: float = NODE_THRESHOLD, edge_threshold: float = EDGE_THRESHOLD
) -> PruneResult:
    """Keep the fewest nodes that account for `node_threshold` of the influence, and then the fewest edges for `edge_threshold`.

    Tokens and targets always stay. A feature stays only with kept edges in and out, an error node with a kept edge out. In a
    graph with another root, that node takes the place of the targets.

    Raises:
        InvalidValue: A threshold outside 0..1.
        UnsuitableValue: The graph was pruned with other thresholds.
    """
    check_threshold(node_threshold, "node_threshold")
    check_threshold(edge_threshold, "edge_threshold")
    edges, layout = graph.edges, graph.layout
    if graph.pruning is not None:
        _require_same_thresholds(graph.pruning, node_threshold, edge_threshold)
        keep = torch.ones(edges.nnz, dtype=torch.bool, device=edges.device)
        return PruneResult(graph.pruning.node_mask, keep, graph.pruning.cumulative_scores, edges)
    weights = as_array(graph.logit_weights)
    influence, always = _influence_of(graph), _always_kept(graph)
    node_mask = (influence >= find_threshold(influence, node_threshold)).numpy() | always
    edge_keep = _strongest_edges(edges, _edge_scores(edges, weights, node_mask), edge_threshold)
    alive = _without_dead_ends(edges, edge_keep, node_mask, layout, always)
    return PruneResult(
        torch.from_numpy(alive).to(edges.device),
        torch.from_numpy(edge_keep).to(edges.device),
        cumulative_scores(influence).to(edges.device),
        edges,
    )


def stability_of(graph: Graph) -> Stability | None:
    """Return how steadily the prunings of a fixed grid keep the nodes and edges of a raw graph, without a model.

    Only edges among the nodes of the widest of them are looked at again. None for a graph with too many of these
    (`MOST_STEADY_EDGES`); a graph that is pruned already has what was measured before.
    """
    if graph.pruning is not None:
        return graph.pruning.stability
    edges, layout = graph.edges, graph.layout
    influence, always = _influence_of(graph), _always_kept(graph)
    masks = {
        node: (influence >= find_threshold(influence, node)).numpy() | always
        for node in sorted({node for node, _ in STABILITY_GRID})
    }
    inside = _edges_among(edges, masks[max(masks)])
    if inside is None:
        return None
    inner = edges.to("cpu").select(torch.from_numpy(inside))
    of_nodes, of_inner = np.zeros(edges.n, np.uint8), np.zeros(inner.nnz, np.uint8)
    for node, mask in masks.items():
        scores = np.concatenate(
            [np.zeros(0, np.float32), *_edge_scores(inner, as_array(graph.logit_weights), mask)()]
        )
        for edge in (edge for at, edge in STABILITY_GRID if at == node):
            keep = scores >= select_threshold(partial(_chunks, scores), edge)
            of_nodes += _without_dead_ends(inner, keep, mask, layout, always)
            of_inner += keep
    of_edges, release = scratch_array(edges.nnz, np.uint8)
    done = 0
    for start in range(0, edges.nnz, EDGE_BLOCK):
        block = inside[start : start + EDGE_BLOCK]
        stop = done + int(np.count_nonzero(block))
        of_edges[start : start + EDGE_BLOCK] = 0
        of_edges[start : start + EDGE_BLOCK][block] = of_inner[done:stop]
        done = stop
    release()
    return Stability(torch.from_numpy(of_nodes), torch.from_numpy(of_edges))


def _influence_of(graph: Graph) -> torch.Tensor:
    """float32 `(T)`: the influence that nodes are ranked by."""
    edges = graph.edges
    influence = node_influence(edges, row_scale(edges), as_array(graph.logit_weights))
    return torch.from_numpy(influence).to(torch.float32)


def _always_kept(graph: Graph) -> Array:
    """bool `(T)`: tokens, and targets or the root in their place."""
    layout, always = graph.layout, np.zeros(graph.n_nodes, dtype=np.bool_)
    always[layout.token_offset : layout.logit_offset] = True
    always[slice(layout.logit_offset, None) if graph.root is None else graph.root] = True
    return always


def _edges_among(edges: Edges, node_mask: Array) -> Array | None:
    """bool `(nnz)`: the edges with both ends in the mask; None where they are too many to hold."""
    inside, release = scratch_array(edges.nnz, np.bool_)
    count = 0
    for block in edges.blocks():
        both = block.of_rows(node_mask) & node_mask.take(block.columns)
        inside[block.place] = both
        count += int(np.count_nonzero(both))
        if count > MOST_STEADY_EDGES:
            return None
    release()
    return inside


def _chunks(scores: Array) -> Iterator[Array]:
    return (scores[start : start + EDGE_BLOCK] for start in range(0, len(scores), EDGE_BLOCK))


def pruned_graph(
    graph: Graph,
    node_threshold: float | None = None,
    edge_threshold: float | None = None,
    *,
    stability: bool = True,
) -> Graph:
    """Return the graph with only the kept edges, the same nodes in the same order, and the record of the pruning.

    The record says how steadily other thresholds keep nodes and edges (`stability_of`), unless `stability` is False. Thresholds
    left out are those that the graph was pruned with already, else 0.8 and 0.98. A graph pruned with the same thresholds is
    returned as it is. Raises as `prune_graph` does.
    """
    done = graph.pruning
    node_default, edge_default = NODE_THRESHOLD, EDGE_THRESHOLD
    if done is not None:
        node_default, edge_default = done.node_threshold, done.edge_threshold
    node_threshold = check_threshold(
        node_default if node_threshold is None else node_threshold, "node_threshold"
    )
    edge_threshold = check_threshold(
        edge_default if edge_threshold is None else edge_threshold, "edge_threshold"
    )
    if done is not None:
        _require_same_thresholds(done, node_threshold, edge_threshold)
        return graph
    result = prune_graph(graph, node_threshold, edge_threshold)
    replacement, completeness = compute_graph_scores(graph)
    steady = stability_of(graph) if stability else None
    return graph.replace(
        adjacency_matrix=graph.edges.select(result.edge_keep),
        pruning=Pruning(
            node_mask=result.node_mask,
            cumulative_scores=result.cumulative_scores,
            node_threshold=node_threshold,
            edge_threshold=edge_threshold,
            replacement_score=replacement,
            completeness_score=completeness,
            n_edges_before=graph.edges.nnz,
            stability=None
            if steady is None
            else Stability(steady.nodes, steady.edges[result.edge_keep.cpu()]),
        ),
    )


def _require_same_thresholds(done: Pruning, node_threshold: float, edge_threshold: float) -> None:
    if (done.node_threshold, done.edge_threshold) != (node_threshold, edge_threshold):
        raise UnsuitableValue(
            f"the graph was already pruned with thresholds {done.node_threshold:g} and {done.edge_threshold:g}",
            "omit the thresholds, or start from the raw graph",
        )


def _edge_scores(edges: Edges, weights: Array, node_mask: Array) -> ScoreStream:
    """The scores of the edges among the masked nodes; zero for all other edges."""
    scale = row_scale(edges, node_mask)
    factor = scale * (node_influence(edges, scale, weights, node_mask) + weights)

    def scores() -> Iterator[Array]:
        for block in edges.blocks():
            yield (masked_magnitudes(block, node_mask) * block.of_rows(factor)).astype(np.float32)

    return scores


def _strongest_edges(edges: Edges, scores: ScoreStream, threshold: float) -> Array:
    """bool `(nnz)`: the edges that hold the share `threshold` of the edge scores."""
    least = select_threshold(scores, threshold)
    keep, release = scratch_array(edges.nnz, np.bool_)
    done = 0
    for block in scores():
        keep[done : done + len(block)] = block >= least
        done += len(block)
    release()
    return keep


def _without_dead_ends(
    edges: Edges, edge_keep: Array, node_mask: Array, layout: NodeLayout, always: Array
) -> Array:
    """Return the mask without features and errors that lack edges in or out; their edges are removed from `edge_keep`.

    Nodes of `always` stay.
    """
    while True:
        has_out, has_in = np.zeros_like(node_mask), np.zeros_like(node_mask)
        for block in edges.blocks():
            kept = edge_keep[block.place]
            has_out[block.columns[kept]] = True
            rows, some = block.reduce_rows(np.logical_or, kept)
            has_in[rows] |= some
        alive = node_mask.copy()
        alive[: layout.token_offset] &= has_out[: layout.token_offset]
        alive[: layout.error_offset] &= has_in[: layout.error_offset]
        alive |= always
        if np.array_equal(alive, node_mask):
            return node_mask
        node_mask = alive
        for block in edges.blocks():
            edge_keep[block.place] &= node_mask.take(block.columns) & block.of_rows(node_mask)


def cumulative_scores(influence: torch.Tensor) -> torch.Tensor:
    """Return float32 `(T)`: the share of the total at each node's rank; all ones if there is no influence."""
    order = influence.argsort(descending=True, stable=True)
    ranked = influence[order].to(torch.float64)
    total = ranked.sum()
    if not bool(total > 0):
        return torch.ones_like(influence)
    scores = torch.empty_like(influence)
    scores[order] = (ranked.cumsum(0) / total).to(torch.float32)
    return scores


def check_threshold(value: float, name: str) -> float:
    """Return the value as a float. Raises InvalidValue unless it is in 0..1."""
    if not 0 <= value <= 1:
        raise InvalidValue(
            f"{name} must be between 0 and 1, not {value}", "1 keeps everything, 0 only the strongest"
        )
    return float(value)


def find_threshold(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return the smallest score to keep so that all scores at least as large sum to the share `threshold` of the total.

    0 gives the largest score, 1 the smallest above zero. Scores that aren't above zero are never chosen.

    Returns:
        A scalar tensor like `scores`; infinity if no score is above zero.
    """
    check_threshold(threshold, "threshold")
    flat = scores.detach().flatten()

    def blocks() -> Iterable[Array]:
        for start in range(0, len(flat), EDGE_BLOCK):
            yield flat[start : start + EDGE_BLOCK].to("cpu", torch.float32).numpy()

    found = select_threshold(blocks, threshold)
    if math.isinf(found):
        return scores.new_tensor(math.inf)
    return flat[flat.to(torch.float32) == found].min()


def select_threshold(stream: ScoreStream, threshold: float) -> float:
    """`find_threshold` over scores that are computed block by block, twice, and never stored.

    For floats above zero the order of their bits is the order of their values: a first histogram over the upper sixteen bits
    finds the bin, a second over the lower sixteen the exact value.
    """
    sums = np.zeros(_HIGH_BINS)
    for block in stream():
        scores = np.maximum(block, np.float32(0))
        np.add.at(sums, _bits(scores) >> 16, scores.astype(np.float64))
    total = float(sums.sum())
    if not total > 0:
        return math.inf
    high, above = _first_reaching(sums, 0.0, threshold, total)
    fine = np.zeros(_LOW_BINS)
    for block in stream():
        scores = np.maximum(block, np.float32(0))
        scores = scores[_bits(scores) >> 16 == high]
        np.add.at(fine, _bits(scores) & (_LOW_BINS - 1), scores.astype(np.float64))
    low, _ = _first_reaching(fine, above, threshold, total)
    return float(np.array((high << 16) | low, dtype=np.int32).view(np.float32))


def _bits(scores: Array) -> Array:
    return scores.view(np.int32).astype(np.int64)


def _first_reaching(sums: Array, above: float, threshold: float, total: float) -> tuple[int, float]:
    """The highest bin at which the share reaches `threshold` (else the lowest that isn't empty), and the sum above it."""
    filled = sums.nonzero()[0][::-1]
    cumulative = above + sums[filled].cumsum()
    reached = (cumulative / total >= threshold).nonzero()[0]
    place = int(reached[0]) if len(reached) and threshold < 1 else len(filled) - 1
    return int(filled[place]), float(cumulative[place - 1]) if place else above
