"""Replacement and completeness scores before and after pruning, with error nodes pruned like others and with all of them kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.graph.edges import Edges
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import compute_graph_scores
from circuit_tracer_cli.graph.prune import pruned_graph


@dataclass(frozen=True, slots=True)
class Scores:
    """Both scores of a graph."""

    replacement: float
    completeness: float


@dataclass(frozen=True, slots=True)
class PruningScores:
    """Scores of a graph before and after pruning.

    Attributes:
        before: Scores of the full graph.
        errors_pruned: Scores of the pruned graph; pruned errors no longer count, so the scores look better.
        errors_kept: Scores of the pruned graph plus every edge from an error into it; None for a graph that was already pruned.
        n_nodes, n_edges: Numbers of kept nodes and edges.
    """

    before: Scores
    errors_pruned: Scores
    errors_kept: Scores | None
    n_nodes: int
    n_edges: int


def measure_scores(
    graph: Graph, node_threshold: float | None = None, edge_threshold: float | None = None
) -> PruningScores:
    """Prune a graph (if it isn't pruned yet) and score it in both conventions."""
    pruned = pruned_graph(graph, node_threshold, edge_threshold)
    assert pruned.pruning is not None
    mask = pruned.pruning.node_mask.cpu()
    with_errors = None
    if graph.pruning is None:
        with_errors = _scores(_with_edges(graph, _union(graph, pruned.edges, mask)))
    return PruningScores(
        before=_scores(graph),
        errors_pruned=_scores(_with_edges(graph, pruned.edges)),
        errors_kept=with_errors,
        n_nodes=int(mask.sum()),
        n_edges=pruned.edges.nnz,
    )


def _scores(graph: Graph) -> Scores:
    return Scores(*compute_graph_scores(graph))


def _with_edges(graph: Graph, edges: Edges) -> Graph:
    """The graph with other edges, as an unpruned graph."""
    return graph.replace(adjacency_matrix=edges, pruning=None, metadata=None)


def _union(graph: Graph, kept: Edges, mask: Tensor) -> Edges:
    """The kept edges, and all edges from errors into kept nodes."""
    edges, layout = graph.edges.to("cpu"), graph.layout
    keys, kept_keys = _keys(edges), _keys(kept.to("cpu"))
    place = torch.searchsorted(kept_keys, keys).clamp(max=max(0, len(kept_keys) - 1))
    keep = kept_keys[place] == keys if len(kept_keys) else torch.zeros_like(keys, dtype=torch.bool)
    sources = edges.indices.long()
    from_error = (sources >= layout.error_offset) & (sources < layout.token_offset)
    return edges.select(keep | (from_error & mask[keys // edges.n]))


def _keys(edges: Edges) -> Tensor:
    """`target * T + source` of every stored edge, ascending."""
    rows = torch.repeat_interleave(torch.arange(edges.n), edges.indptr.diff())
    return rows * edges.n + edges.indices.long()
