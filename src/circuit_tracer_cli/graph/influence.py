"""How much each node and edge contributes to the targets, over all paths (Ameisen et al. 2025, section "Graph pruning"),
and how much of that features and tokens explain rather than errors (the two scores).

A graph's influence is `w·Â + w·Â² + …`, with `Â` the absolute weights divided by their row sums and `w` the targets' weights.
Over compressed rows one pass is enough if nodes are numbered so that no node reads a later one that has edges itself;
other matrices are iterated until nothing changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np
import torch

from circuit_tracer_cli.graph.edges import Array, EdgeBlock, Edges

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph

ROW_SUM_FLOOR = 1e-10
"""Smallest value that a row is divided by."""


@overload
def normalize_matrix(matrix: torch.Tensor) -> torch.Tensor: ...
@overload
def normalize_matrix(matrix: Edges) -> Edges: ...
def normalize_matrix(matrix: torch.Tensor | Edges) -> torch.Tensor | Edges:
    """Absolute values with each row divided by its sum; rows of zeros stay zero. Shape `(T, T)` in and out."""
    if isinstance(matrix, torch.Tensor):
        absolute = matrix.abs()
        return absolute / absolute.sum(dim=1, keepdim=True).clamp(min=ROW_SUM_FLOOR)
    values = _scaled_magnitudes(matrix, row_scale(matrix))
    return Edges(matrix.indptr, matrix.indices, values)


def compute_influence(
    A: torch.Tensor | Edges, logit_weights: torch.Tensor, max_iter: int = 1000
) -> torch.Tensor:
    """Influence `(T)` of every node through a matrix that is already normalized.

    Args:
        A: `(T, T)`, row = target.
        logit_weights: `(T)`, zero except for the targets; not part of the result.
        max_iter: Largest number of products after the first.

    Raises:
        RuntimeError: The matrix has a cycle.
    """
    if isinstance(A, Edges):
        influence = _propagate(A, np.ones(A.n), as_array(logit_weights), signed=True, max_iter=max_iter)
        return torch.from_numpy(influence).to(logit_weights)
    current = total = logit_weights @ A
    iterations = 0
    while bool(current.any()):
        if iterations >= max_iter:
            raise _no_convergence(iterations)
        current = current @ A
        total = total + current
        iterations += 1
    return total


def compute_node_influence(adjacency: torch.Tensor | Edges, logit_weights: torch.Tensor) -> torch.Tensor:
    """Influence `(T)` of every node on the targets, over the normalized matrix. Raises RuntimeError on a cycle."""
    if isinstance(adjacency, Edges):
        influence = node_influence(adjacency, row_scale(adjacency), as_array(logit_weights))
        return torch.from_numpy(influence).to(logit_weights)
    return compute_influence(normalize_matrix(adjacency), logit_weights)


@overload
def compute_edge_influence(pruned: torch.Tensor, logit_weights: torch.Tensor) -> torch.Tensor: ...
@overload
def compute_edge_influence(pruned: Edges, logit_weights: torch.Tensor) -> torch.Tensor: ...
def compute_edge_influence(pruned: torch.Tensor | Edges, logit_weights: torch.Tensor) -> torch.Tensor:
    """Score of each edge: its normalized weight times its target's influence, including the target's own weight.

    Returns:
        `(T, T)` for a dense matrix, float32 `(nnz)` in stored order for `Edges`. Raises RuntimeError on a cycle.
    """
    if isinstance(pruned, torch.Tensor):
        normalized = normalize_matrix(pruned)
        reach = compute_influence(normalized, logit_weights) + logit_weights
        return normalized * reach[:, None]
    scale, weights = row_scale(pruned), as_array(logit_weights)
    return _scaled_magnitudes(pruned, scale * (node_influence(pruned, scale, weights) + weights))


def compute_graph_scores(graph: Graph) -> tuple[float, float]:
    """Replacement and completeness score, both in 0..1.

    Replacement is the share of influence that starts at tokens rather than errors. Completeness is the influence-weighted share
    of each node's incoming weight that doesn't come from errors. For a pruned graph both are those of the unpruned graph.
    """
    if graph.pruning is not None:
        return graph.pruning.replacement_score, graph.pruning.completeness_score
    edges, layout, weights = graph.edges, graph.layout, as_array(graph.logit_weights)
    scale = row_scale(edges)
    influence = node_influence(edges, scale, weights)
    from_errors = float(influence[layout.error_offset : layout.token_offset].sum())
    from_tokens = float(influence[layout.token_offset : layout.logit_offset].sum())
    errors_in = np.zeros(edges.n)
    for block in edges.blocks():
        is_error = (block.columns >= layout.error_offset) & (block.columns < layout.token_offset)
        rows, weight = block.reduce_rows(np.add, masked_magnitudes(block) * is_error)
        errors_in[rows] += weight
    reach = influence + weights
    explained = float(((1 - errors_in * scale) * reach).sum())
    return _share(from_tokens, from_tokens + from_errors), _share(explained, float(reach.sum()))


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def as_array(weights: torch.Tensor) -> Array:
    """A vector over the nodes as float64."""
    return weights.detach().cpu().to(torch.float64).numpy()


def masked_magnitudes(block: EdgeBlock, node_mask: Array | None = None) -> Array:
    """Absolute weights float64 of a block, zero if either end is masked out."""
    magnitudes = np.abs(block.values, dtype=np.float64)
    if node_mask is not None:
        magnitudes *= node_mask.take(block.columns)
        magnitudes *= block.of_rows(node_mask)
    return magnitudes


def row_scale(edges: Edges, node_mask: Array | None = None) -> Array:
    """float64 `(T)`: the factor that makes the absolute weights of each row sum to one."""
    sums = np.zeros(edges.n)
    for block in edges.blocks():
        rows, partial = block.reduce_rows(np.add, masked_magnitudes(block, node_mask))
        sums[rows] += partial
    return 1 / np.maximum(sums, ROW_SUM_FLOOR)


def node_influence(edges: Edges, scale: Array, weights: Array, node_mask: Array | None = None) -> Array:
    """float64 `(T)`: influence over the rows scaled by `scale`, without masked nodes.

    Raises RuntimeError on a cycle.
    """
    return _propagate(edges, scale, weights, node_mask=node_mask)


def signed_effects(edges: Edges, scale: Array, weights: Array) -> Array:
    """Return float64 `(T)`: what all paths from each node to the weighted ones add up to, signs kept.

    Args:
        edges: Direct effects.
        scale: `(T)`, what the effects on each node are multiplied by on the way on.
        weights: `(T)`, of the nodes that are asked about.

    Raises:
        RuntimeError: The graph has a cycle.
    """
    return _propagate(edges, scale, weights, signed=True)


def _scaled_magnitudes(edges: Edges, scale: Array) -> torch.Tensor:
    """float32 `(nnz)`: absolute weights times the scale of their rows."""
    result = torch.empty(edges.nnz)
    for block in edges.blocks():
        result.numpy()[block.place] = masked_magnitudes(block) * block.of_rows(scale)
    return result.to(edges.device)


def _propagate(
    edges: Edges,
    scale: Array,
    weights: Array,
    *,
    node_mask: Array | None = None,
    signed: bool = False,
    max_iter: int = 1000,
) -> Array:
    def push(mass: Array, into: Array, first: int = 0, last: int | None = None) -> None:
        for block in edges.blocks(first, last):
            flow = block.values.astype(np.float64) if signed else masked_magnitudes(block, node_mask)
            np.add.at(into, block.columns, flow * block.of_rows(mass))

    influence = np.zeros(edges.n)
    waves = topological_waves(edges)
    if waves is not None:
        for first, last in waves:
            push((influence + weights) * scale, influence, first, last)
        return influence
    current = weights
    for _ in range(max_iter + 1):
        following = np.zeros(edges.n)
        push(current * scale, following)
        if not following.any():
            return influence
        influence += following
        current = following
    raise _no_convergence(max_iter)


def topological_waves(edges: Edges) -> list[tuple[int, int]] | None:
    """Runs of rows `(first, last)`, highest first, such that no row feeds another of its own run or of a later one.

    None if some node reads a node of the same or a higher number that has edges of its own.
    """
    has_row = edges.indptr.diff().cpu().numpy() > 0
    highest = np.full(edges.n, -1)
    for block in edges.blocks():
        inner = np.where(has_row.take(block.columns), block.columns, -1)
        rows, most = block.reduce_rows(np.maximum, inner)
        highest[rows] = np.maximum(highest[rows], most)
    if (highest >= np.arange(edges.n)).any():
        return None
    waves: list[tuple[int, int]] = []
    stop, bound = edges.n, -1
    for row, source in zip(range(edges.n - 1, -1, -1), reversed(highest.tolist()), strict=True):
        if bound >= row:
            waves.append((row + 1, stop))
            stop, bound = row + 1, -1
        bound = max(bound, source)
    waves.append((0, stop))
    return waves


def _no_convergence(iterations: int) -> RuntimeError:
    return RuntimeError(f"influence did not converge after {iterations} iterations: the graph has a cycle")
