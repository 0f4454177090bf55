"""The vectors that write to one layer, and the products of cotangents with them.

Every position has its own vectors, so a contraction is one small product per position. On a CPU that is done position after
position. On an accelerator starting a kernel costs more than such a product: positions with about as many vectors form a bucket,
padded to the largest of them, and a bucket is one batched product.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.columns import Columns

PADDING = 1.125
"""How many times more vectors the fullest position of a bucket may have than its emptiest; the rest is padding."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Positions that are contracted in one batched product."""

    positions: tuple[int, ...]  # ascending
    width: int  # rows of each position, padding included
    begin: int  # first row of the first position
    index: Tensor  # (position) int64, the same positions on the device
    columns: Tensor  # (position * width) int64 on the device; padding, whose rows are zero, has the position's first


@dataclass(frozen=True, slots=True)
class LayerDecoders:
    """The vectors that write to one layer: decoder rows times their activations, and the layer's error vectors.

    `rows (n, d_model)`: those at position `p` are `rows[begins[p] : begins[p] + counts[p]]` and belong to the columns of source
    layers `first_source … last_source`, in their order. Errors of other layers among them have rows of zeros.
    """

    columns: Columns
    rows: Tensor
    begins: tuple[int, ...]
    counts: tuple[int, ...]
    first_source: int
    last_source: int
    buckets: tuple[Bucket, ...] = ()

    @classmethod
    def empty(
        cls, columns: Columns, sources: tuple[int, int], rows_like: Tensor, bucketed: bool | None = None
    ) -> LayerDecoders:
        """Room for the vectors of source layers `first … last`, errors and padding zero, features not yet set.

        Args:
            columns: The order of sources.
            sources: First and last source layer.
            rows_like: `(…, d_model)`, of whose dtype and device the rows are.
            bucketed: Whether positions are contracted in batches; None for what suits the device.
        """
        ranges = [columns.source_range(pos, *sources) for pos in range(columns.n_pos)]
        counts = tuple(end - start for start, end in ranges)
        if bucketed is None:
            bucketed = rows_like.device.type != "cpu"
        groups = _groups(counts) if bucketed else [[pos] for pos in range(columns.n_pos)]
        begins, buckets, total = [0] * columns.n_pos, [], 0
        for positions in groups:
            width = max(counts[pos] for pos in positions)
            for number, pos in enumerate(positions):
                begins[pos] = total + number * width
            if bucketed:
                slots = torch.arange(width).expand(len(positions), -1)
                used = slots < torch.tensor([counts[pos] for pos in positions])[:, None]
                starts = torch.tensor([ranges[pos][0] for pos in positions])
                places = (starts[:, None] + slots * used).flatten()
                index = torch.tensor(positions, device=rows_like.device)
                at = places.to(rows_like.device)
                buckets.append(Bucket(tuple(positions), width, total, index, at))
            total += width * len(positions)
        rows = rows_like.new_empty(total, rows_like.shape[-1])
        made = cls(columns, rows, tuple(begins), counts, *sources, tuple(buckets))
        rows[made._not_features().to(rows.device)] = 0
        return made

    def _not_features(self) -> Tensor:
        """Rows of errors and padding, `(k)`."""
        zero = torch.ones(len(self.rows), dtype=torch.bool)
        begins, counts = torch.tensor(self.begins), torch.tensor(self.counts)
        offsets = torch.arange(int(counts.sum())) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        zero[torch.repeat_interleave(begins, counts) + offsets] = False
        for layer in range(self.first_source, self.last_source + 1):
            zero[self.error_rows(layer)] = True
        return zero.nonzero().squeeze(1)

    def shift(self) -> Tensor:
        """`(pos)`: what the column of a source at a position is greater than its row."""
        starts = [
            self.columns.source_range(pos, self.first_source, self.last_source)[0]
            for pos in range(self.columns.n_pos)
        ]
        return torch.tensor(starts) - torch.tensor(self.begins)

    def error_rows(self, layer: int) -> Tensor:
        """`(pos)`: the row of a layer's error at each position."""
        at = [self.columns.error_column(pos, layer) for pos in range(self.columns.n_pos)]
        return torch.tensor(at) - self.shift()

    def written_by(self, columns: Tensor, layers: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the sources in `columns (n)`, at `layers (n)` and `positions (n)`, write here: their places `(k)` in the list,
        and their vectors `(k, d_model)`."""
        writing = ((layers >= self.first_source) & (layers <= self.last_source)).nonzero().squeeze(1)
        rows = columns[writing] - self.shift()[positions[writing]]
        return writing, self.rows[rows.to(self.rows.device)]

    def position_of_row(self) -> Tensor:
        """`(n)`: the position of every row; 0 for padding."""
        positions = torch.zeros(len(self.rows), dtype=torch.int64)
        for pos, (begin, count) in enumerate(zip(self.begins, self.counts, strict=True)):
            positions[begin : begin + count] = pos
        return positions

    def at(self, pos: int) -> tuple[int, int, Tensor]:
        """The columns `[start, end)` of the sources at a position, and their rows."""
        start, end = self.columns.source_range(pos, self.first_source, self.last_source)
        return start, end, self.rows[self.begins[pos] : self.begins[pos] + end - start]

    def contract(self, G: Tensor, out: Tensor) -> None:
        """Add the products of cotangents `G (row, pos, d_model)` with the rows at their positions to `out (column, row)`.

        Columns come first: a product with few columns is a third faster as (column, row), and where the rows of a bucket go
        whole rows of memory are written.
        """
        if not self.buckets:
            for pos in range(G.shape[1]):
                start, end, rows = self.at(pos)
                out[start:end].addmm_(rows, G[:, pos].T)
            return
        for bucket in self.buckets:
            count = bisect_left(bucket.positions, G.shape[1])
            if not count:
                continue
            rows = self.rows[bucket.begin : bucket.begin + count * bucket.width].view(count, bucket.width, -1)
            product = torch.bmm(rows, G.index_select(1, bucket.index[:count]).permute(1, 2, 0))
            out.index_add_(0, bucket.columns[: count * bucket.width], product.flatten(0, 1))


def _groups(counts: tuple[int, ...]) -> list[list[int]]:
    """Positions with about as many vectors, each group ascending."""
    groups: list[list[int]] = []
    smallest = 0
    for pos in sorted(range(len(counts)), key=lambda pos: counts[pos]):
        if not groups or counts[pos] > max(smallest * PADDING, smallest + 1):
            groups.append([])
            smallest = counts[pos]
        groups[-1].append(pos)
    return [sorted(group) for group in groups]
