"""How much each node and edge contributes to the targets, over all paths (Ameisen et al. 2025, section "Graph pruning").

A graph's influence is `w·Â + w·Â² + …`, with `Â` the absolute weights divided by their row sums and `w` the targets' weights.
Over compressed rows one pass suffices when nodes are numbered so that no node reads a later one that has edges itself;
other matrices are iterated until nothing moves any more.
"""

from __future__ import annotations

from typing import overload

import torch

from circuit_tracer_cli.graph.edges import EdgeBlock, Edges

ROW_SUM_FLOOR = 1e-10
"""Least value that a row is divided by."""


@overload
def normalize_matrix(matrix: torch.Tensor) -> torch.Tensor: ...
@overload
def normalize_matrix(matrix: Edges) -> Edges: ...
def normalize_matrix(matrix: torch.Tensor | Edges) -> torch.Tensor | Edges:
    """Absolute values with each row divided by its sum; rows of zeros stay zero. Shape `(T, T)` in and out."""
    if isinstance(matrix, torch.Tensor):
        absolute = matrix.abs()
        return absolute / absolute.sum(dim=1, keepdim=True).clamp(min=ROW_SUM_FLOOR)
    scale = row_scale(matrix)
    values = torch.empty_like(matrix.values)
    for block in matrix.blocks():
        values[block.start : block.stop] = (block.values.abs() * scale[block.rows]).to(torch.float32)
    return Edges(matrix.indptr, matrix.indices, values)


def compute_influence(
    A: torch.Tensor | Edges, logit_weights: torch.Tensor, max_iter: int = 1000
) -> torch.Tensor:
    """Influence `(T)` of every node through the matrix as it is (`A` is normalised already).

    Args:
        A: `(T, T)`, row = target.
        logit_weights: `(T)`, zero but for the targets; not part of the result.
        max_iter: Products after the first before giving up.

    Raises:
        RuntimeError: The matrix has a cycle.
    """
    if isinstance(A, Edges):
        ones = torch.ones(A.n, dtype=torch.float64, device=A.device)
        return _propagate(A, ones, logit_weights, signed=True, max_iter=max_iter).to(logit_weights.dtype)
    current = logit_weights @ A
    influence = current
    iterations = 0
    while bool(current.any()):
        if iterations >= max_iter:
            raise _no_convergence(iterations)
        current = current @ A
        influence = influence + current
        iterations += 1
    return influence


def compute_node_influence(adjacency: torch.Tensor | Edges, logit_weights: torch.Tensor) -> torch.Tensor:
    """Influence `(T)` of every node on the targets, over the normalised matrix. Raises RuntimeError on a cycle."""
    if isinstance(adjacency, Edges):
        return node_influence(adjacency, row_scale(adjacency), logit_weights).to(logit_weights.dtype)
    return compute_influence(normalize_matrix(adjacency), logit_weights)


@overload
def compute_edge_influence(pruned: torch.Tensor, logit_weights: torch.Tensor) -> torch.Tensor: ...
@overload
def compute_edge_influence(pruned: Edges, logit_weights: torch.Tensor) -> torch.Tensor: ...
def compute_edge_influence(pruned: torch.Tensor | Edges, logit_weights: torch.Tensor) -> torch.Tensor:
    """Share of each edge: its normalised weight times its target's influence, the target's own weight included.

    Returns:
        `(T, T)` for a dense matrix, float32 `(nnz)` in stored order for `Edges`. Raises RuntimeError on a cycle.
    """
    if isinstance(pruned, torch.Tensor):
        normalized = normalize_matrix(pruned)
        influence = compute_influence(normalized, logit_weights) + logit_weights
        return normalized * influence[:, None]
    scale = row_scale(pruned)
    factor = scale * (node_influence(pruned, scale, logit_weights) + logit_weights)
    scores = torch.empty_like(pruned.values)
    for block in pruned.blocks():
        scores[block.start : block.stop] = (block.values.abs() * factor[block.rows]).to(torch.float32)
    return scores


def masked_magnitudes(block: EdgeBlock, node_mask: torch.Tensor | None) -> torch.Tensor:
    """Absolute weights float64 of a block, zero where either end is masked out."""
    magnitudes = block.values.to(torch.float64).abs_()
    if node_mask is not None:
        magnitudes *= node_mask[block.rows] & node_mask[block.columns]
    return magnitudes


def row_scale(edges: Edges, node_mask: torch.Tensor | None = None) -> torch.Tensor:
    """float64 `(T)`: what the weights of each row are multiplied by so that their absolute values sum to one."""
    sums = torch.zeros(edges.n, dtype=torch.float64, device=edges.device)
    for block in edges.blocks():
        sums.index_add_(0, block.rows, masked_magnitudes(block, node_mask))
    return sums.clamp_(min=ROW_SUM_FLOOR).reciprocal_()


def node_influence(
    edges: Edges, scale: torch.Tensor, logit_weights: torch.Tensor, node_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """float64 `(T)`: influence over the rows scaled by `scale`, without the nodes that are masked out."""
    return _propagate(edges, scale, logit_weights, node_mask=node_mask)


def _propagate(
    edges: Edges,
    scale: torch.Tensor,
    logit_weights: torch.Tensor,
    *,
    node_mask: torch.Tensor | None = None,
    signed: bool = False,
    max_iter: int = 1000,
) -> torch.Tensor:
    weights = logit_weights.to(edges.device, torch.float64)

    def push(mass: torch.Tensor, into: torch.Tensor, first: int = 0, last: int | None = None) -> None:
        for block in edges.blocks(first, last):
            flow = block.values.to(torch.float64) if signed else masked_magnitudes(block, node_mask)
            into.index_add_(0, block.columns, flow * mass[block.rows])

    influence = torch.zeros_like(weights)
    waves = topological_waves(edges)
    if waves is not None:
        for first, last in waves:
            mass = torch.zeros_like(weights)
            mass[first:last] = (influence[first:last] + weights[first:last]) * scale[first:last]
            push(mass, influence, first, last)
        return influence
    current = weights
    for _ in range(max_iter + 1):
        following = torch.zeros_like(weights)
        push(current * scale, following)
        if not bool(following.any()):
            return influence
        influence += following
        current = following
    raise _no_convergence(max_iter)


def topological_waves(edges: Edges) -> list[tuple[int, int]] | None:
    """Runs of rows `(first, last)`, highest first, such that no row feeds another of its own run or of a later one.

    None if some node reads a node of the same or a higher number that has edges of its own.
    """
    has_row = edges.indptr.diff() > 0
    highest = torch.full((edges.n,), -1, dtype=torch.int64, device=edges.device)
    for block in edges.blocks():
        inner = torch.where(has_row[block.columns], block.columns, -1)
        highest.scatter_reduce_(0, block.rows, inner, "amax")
    if bool((highest >= torch.arange(edges.n, device=edges.device)).any()):
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
