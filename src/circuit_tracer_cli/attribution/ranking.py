"""Which features to trace next: the influence of every source on the targets through the rows known so far.

Each update propagates only what the new rows change, so rows are never copied, renormalized or multiplied twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.transfer import beside, sent_to_device, sent_to_host
from circuit_tracer_cli.files.capacity import free_memory
from circuit_tracer_cli.files.scratch import Release, nothing, scratch_tensor

SMALLEST_SUM = 1e-8
"""Row sums are clamped here before dividing (spec/attribution.md 2.7)."""


ELEMENTS_AT_ONCE = 2**20
"""Number of values whose absolute values are computed at once, so that they stay in cache."""

ELEMENTS_ON_DEVICE = 2**26
"""The same on an accelerator, where starting a kernel costs more than memory that isn't the fastest."""


def columns_at_once(rows: Tensor) -> int:
    """Return how many columns of `rows` to take at once."""
    elements = ELEMENTS_AT_ONCE if on_host(rows) else ELEMENTS_ON_DEVICE
    return max(1, elements // max(1, len(rows)))


def on_host(rows: Tensor) -> bool:
    """Return whether rows are in host memory, or in a file."""
    return rows.device == torch.device("cpu")


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
        rows: `(r, width)` direct effects on a prefix of the columns, float32, on the device that computed them or on the host.
        release: Releases the pages of rows that are in a file.
    """

    nodes: Tensor
    layers: Tensor
    rows: Tensor
    release: Release = nothing
    layer_slices: list[tuple[int, int, int]] = field(init=False)
    _scale: Tensor | None = None

    def __post_init__(self) -> None:
        values, counts = torch.unique_consecutive(self.layers, return_counts=True)
        ends = counts.cumsum(0).tolist()
        self.layer_slices = list(zip(values.tolist(), [0, *ends[:-1]], ends, strict=True))

    @property
    def scale(self) -> Tensor:
        """`(r)`: one over the sum of each row's absolute values, where the rows are."""
        if self._scale is None or self._scale.device != self.rows.device:
            self._scale = 1.0 / absolute_sums(self.rows).clamp_min(SMALLEST_SUM)
        return self._scale

    def to_host(self) -> None:
        """Move the rows to the host."""
        with beside(self.rows.device):
            self.rows = sent_to_host(self.rows).wait()


class RowShelf:
    """Keeps the rows of a capped run, which the next ranking needs in full: on their device, beyond a share of it in the host's
    memory, and beyond a share of that in files.

    Args:
        in_memory: Largest number of bytes on the host; None for a third of what is free.
        on_device: Largest number of bytes on a device; None for a third of what is free there when the first rows come.
    """

    def __init__(self, in_memory: int | None = None, on_device: int | None = None) -> None:
        if in_memory is None:
            in_memory = free_memory() // 3
        self.left, self.left_there = in_memory, on_device
        self._there: list[RowBlock] = []

    def keep(self, block: RowBlock) -> RowBlock:
        """Return the block, its rows moved to where there is room for them."""
        if not on_host(block.rows):
            if self.left_there is None:
                self.left_there = free_memory(block.rows.device) // 3
            if block.rows.nbytes <= self.left_there:
                self.left_there -= block.rows.nbytes
                self._there.append(block)
                return block
            self.left_there = 0  # later blocks, smaller ones too, go the same way
            block.to_host()
        self._keep_on_host(block)
        return block

    def spill(self) -> bool:
        """Move rows from their device to the host, which frees memory there; return whether there were any."""
        self.left_there = 0
        there, self._there = self._there, []
        for block in there:
            block.to_host()
            self._keep_on_host(block)
        return bool(there)

    def _keep_on_host(self, block: RowBlock) -> None:
        """Leave the rows where they are in memory, or move them to a file."""
        self.left -= block.rows.nbytes
        if self.left >= 0:
            return
        _ = block.scale  # while the rows are at hand
        flat, release = scratch_tensor(block.rows.numel(), torch.float32, largest_in_memory=0)
        rows = flat.view(block.rows.shape)
        rows.copy_(block.rows)
        release()
        block.rows, block.release = rows, release


class PartialInfluence:
    """Multi-hop influence on the targets over the known rows: `w N + w N² + …` with `N` the normalized `|rows|`.

    Args:
        feature_column: `(n_features)` column of each active feature.
        width: Number of source columns.
        weights: `(K)` weight of each logit target.
        n_layers: Layers of the model; logit rows have this layer.
        device: Where influence is summed and ranked: that of the rows.
    """

    def __init__(
        self,
        feature_column: Tensor,
        width: int,
        weights: Tensor,
        n_layers: int,
        device: torch.device | None = None,
    ) -> None:
        self.n_features, self.n_layers = len(feature_column), n_layers
        self.device = device or torch.device("cpu")
        self.feature_column = feature_column.to(self.device)
        self.weights = weights.to(self.device, torch.float32)
        self.influence = torch.zeros(width, device=self.device)
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
            elsewhere: Tensor | None = None  # what rows on the host pass on, where the others aren't
            for block, start, end, fresh in by_layer[layer]:
                mass = self._mass(block.nodes[start:end], delta, fresh)
                if block.rows.device == self.device:
                    _pass_on(block, start, end, mass, delta)
                    continue
                if elsewhere is None:
                    elsewhere = torch.zeros(len(delta), device=block.rows.device)
                _pass_on(block, start, end, mass.to(block.rows.device), elsewhere)
            if elsewhere is not None:
                delta += elsewhere.to(self.device)
        self.influence += delta
        self._known += new

    def _mass(self, nodes: Tensor, delta: Tensor, fresh: bool) -> Tensor:
        """Return what the targets of some rows propagate now: everything if their rows are new, else only the latest change."""
        there = sent_to_device(nodes, self.device)
        if nodes[0] >= self.n_features:
            mass = self.weights[there - self.n_features]
            return mass if fresh else torch.zeros_like(mass)
        columns = self.feature_column[there]
        return delta[columns] + self.influence[columns] if fresh else delta[columns]


def _pass_on(block: RowBlock, start: int, end: int, mass: Tensor, to: Tensor) -> None:
    """Add to `to (width)` what targets of influence `mass` pass on through rows `start … end` of a block."""
    if on_host(block.rows) and not mass.any():  # a device would have to be waited for
        return
    rows = block.rows[start:end]
    weights, part = mass * block.scale[start:end], columns_at_once(rows)
    for first in range(0, rows.shape[1], part):
        absolute = rows[:, first : first + part].abs()
        to[first : first + absolute.shape[1]] += weights @ absolute
    block.release()


def next_features(influence: Tensor, visited: Tensor, count: int) -> Tensor:
    """Return the `count` most influential features not visited yet; ties in index order."""
    ranked = torch.argsort(influence, descending=True, stable=True)
    return ranked[~visited.to(ranked.device)[ranked]][:count].cpu()
