"""Which features to trace next: the influence of every source on the targets through the rows known so far.

Each update propagates only what the new rows change, so rows are never copied, renormalized or multiplied twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from circuit_tracer_cli.files.capacity import free_memory
from circuit_tracer_cli.files.scratch import Release, nothing, scratch_tensor

SMALLEST_SUM = 1e-8
"""Row sums are clamped here before dividing (spec/attribution.md 2.7)."""


ELEMENTS_AT_ONCE = 2**20
"""Number of values whose absolute values are computed at once, so that they stay in cache."""


def columns_at_once(rows: Tensor) -> int:
    """Return how many columns of `rows` to take at once."""
    return max(1, ELEMENTS_AT_ONCE // max(1, len(rows)))


def absolute_sums(rows: Tensor) -> Tensor:
    """Return the sum of each row's absolute values; `vector_norm` would lose three digits over millions of columns."""
    parts = [part.abs().sum(1) for part in rows.split(columns_at_once(rows), 1)]
    return torch.stack(parts).sum(0)


@dataclass(slots=True)
class RowBlock:
    """Rows of a block of targets, sorted by layer from high to low.

    Args:
        nodes: `(r)` index of each target among the active features, or `n_features + k` for logit target `k`.
        layers: `(r)` layer of each target.
        rows: `(r, width)` direct effects on a prefix of the columns, float32, on the host.
        release: Releases the pages of rows that are in a file.
    """

    nodes: Tensor
    layers: Tensor
    rows: Tensor
    release: Release = nothing
    scale: Tensor = field(init=False)
    layer_slices: list[tuple[int, int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.scale = 1.0 / absolute_sums(self.rows).clamp_min(SMALLEST_SUM)
        values, counts = torch.unique_consecutive(self.layers, return_counts=True)
        ends = counts.cumsum(0).tolist()
        self.layer_slices = list(zip(values.tolist(), [0, *ends[:-1]], ends, strict=True))


class RowShelf:
    """Keeps the rows of a capped run, which the next ranking needs in full: in memory, and beyond a share of it in files.

    Args:
        in_memory: Largest number of bytes in memory; None for a third of what is free.
    """

    def __init__(self, in_memory: int | None = None) -> None:
        if in_memory is None:
            in_memory = free_memory() // 3
        self.left = in_memory

    def keep(self, block: RowBlock) -> RowBlock:
        """Return the block itself, or the same block in a file."""
        self.left -= block.rows.nbytes
        if self.left >= 0:
            return block
        flat, release = scratch_tensor(block.rows.numel(), torch.float32, largest_in_memory=0)
        rows = flat.view(block.rows.shape)
        rows.copy_(block.rows)
        release()
        return RowBlock(block.nodes, block.layers, rows, release)


class PartialInfluence:
    """Multi-hop influence on the targets over the known rows: `w N + w N² + …` with `N` the normalized `|rows|`.

    Args:
        feature_column: `(n_features)` column of each active feature.
        width: Number of source columns.
        weights: `(K)` weight of each logit target.
        n_layers: Layers of the model; logit rows have this layer.
    """

    def __init__(self, feature_column: Tensor, width: int, weights: Tensor, n_layers: int) -> None:
        self.feature_column, self.n_layers = feature_column, n_layers
        self.weights = weights.to(torch.float32).cpu()
        self.influence = torch.zeros(width)
        self._known: list[RowBlock] = []

    def of_features(self) -> Tensor:
        """Return the influence of every active feature, `(n_features)`."""
        return self.influence[self.feature_column]

    def add(self, new: list[RowBlock]) -> None:
        """Add new rows. Sources of a row are in earlier layers, so one pass from the top is enough."""
        by_layer: list[list[tuple[RowBlock, int, int, bool]]] = [[] for _ in range(self.n_layers + 1)]
        for blocks, fresh in ((self._known, False), (new, True)):
            for block in blocks:
                for layer, start, end in block.layer_slices:
                    by_layer[layer].append((block, start, end, fresh))
        delta = torch.zeros_like(self.influence)
        for layer in range(self.n_layers, -1, -1):
            for block, start, end, fresh in by_layer[layer]:
                mass = self._mass(block.nodes[start:end], delta, fresh)
                if mass.any():
                    rows = block.rows[start:end]
                    weights, part = mass * block.scale[start:end], columns_at_once(rows)
                    for first in range(0, rows.shape[1], part):
                        absolute = rows[:, first : first + part].abs()
                        delta[first : first + absolute.shape[1]] += weights @ absolute
                    block.release()
        self.influence += delta
        self._known += new

    def _mass(self, nodes: Tensor, delta: Tensor, fresh: bool) -> Tensor:
        """Return what the targets of some rows propagate now: everything if their rows are new, else only the latest change."""
        n_features = len(self.feature_column)
        if nodes[0] >= n_features:
            return self.weights[nodes - n_features] if fresh else torch.zeros(len(nodes))
        columns = self.feature_column[nodes]
        return delta[columns] + self.influence[columns] if fresh else delta[columns]


def next_features(influence: Tensor, visited: Tensor, count: int) -> Tensor:
    """Return the `count` most influential features not visited yet; ties in index order."""
    ranked = torch.argsort(influence, descending=True, stable=True)
    return ranked[~visited[ranked]][:count]
