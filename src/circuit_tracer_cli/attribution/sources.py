"""The vectors that rows are contracted with: decoder rows of the active features, error vectors, token vectors.

Every position has its own vectors, so a contraction is one small product per position. A CPU computes them one after the
other. On an accelerator, starting a kernel costs more than such a product: positions with about as many vectors form a
bucket, padded to the largest of them, and a bucket is one batched product.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.columns import Columns
from circuit_tracer_cli.attribution.products import add_product, product
from circuit_tracer_cli.backends.base import FrozenPass
from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.components import (
    ActiveFeatures,
    DecoderBlock,
    Reconstruction,
    decoder_vectors,
)

PADDING = 1.125
"""Largest ratio between the numbers of vectors of two positions in a bucket; the rest is padding."""


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
        """Allocate the vectors of source layers `first … last`: errors and padding are zero, features not set yet.

        Args:
            columns: The order of sources.
            sources: First and last source layer.
            rows_like: `(…, d_model)`, gives dtype and device of the rows.
            bucketed: True to contract positions in batches; None to suit the device.
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
        """Return the rows of errors and padding, `(k)`."""
        zero = torch.ones(len(self.rows), dtype=torch.bool)
        begins, counts = torch.tensor(self.begins), torch.tensor(self.counts)
        offsets = torch.arange(int(counts.sum())) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        zero[torch.repeat_interleave(begins, counts) + offsets] = False
        for layer in range(self.first_source, self.last_source + 1):
            zero[self.error_rows(layer)] = True
        return zero.nonzero().squeeze(1)

    def shift(self) -> Tensor:
        """Return `(pos)`: a source's column minus its row, at each position."""
        starts = [
            self.columns.source_range(pos, self.first_source, self.last_source)[0]
            for pos in range(self.columns.n_pos)
        ]
        return torch.tensor(starts) - torch.tensor(self.begins)

    def error_rows(self, layer: int) -> Tensor:
        """Return Return Return `(pos)`: the row of a layer's error at each position."""
        at = [self.columns.error_column(pos, layer) for pos in range(self.columns.n_pos)]
        return torch.tensor(at) - self.shift()

    def written_by(self, columns: Tensor, layers: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return which of the sources in `columns (n)`, at `layers (n)` and `positions (n)`, write here: their indices `(k)` in
        the list, and their vectors `(k, d_model)`."""
        writing = ((layers >= self.first_source) & (layers <= self.last_source)).nonzero().squeeze(1)
        rows = columns[writing] - self.shift()[positions[writing]]
        return writing, self.rows[rows.to(self.rows.device)]

    def position_of_row(self) -> Tensor:
        """Return Return Return `(n)`: the position of every row; 0 for padding."""
        positions = torch.zeros(len(self.rows), dtype=torch.int64)
        for pos, (begin, count) in enumerate(zip(self.begins, self.counts, strict=True)):
            positions[begin : begin + count] = pos
        return positions

    def at(self, pos: int) -> tuple[int, int, Tensor]:
        """Return the columns `[start, end)` of the sources at a position, and their rows."""
        start, end = self.columns.source_range(pos, self.first_source, self.last_source)
        return start, end, self.rows[self.begins[pos] : self.begins[pos] + end - start]

    def contract(self, G: Tensor, out: Tensor) -> None:
        """Add the products of cotangents `G (row, pos, d_model)` with the rows at their positions to `out (column, row)`.

        Columns come first: a product with few columns is a third faster as (column, row), and the rows of a bucket are then
        written as contiguous memory.
        """
        if not self.buckets:
            for pos in range(G.shape[1]):
                start, end, rows = self.at(pos)
                add_product(out[start:end], rows, G[:, pos].T)
            return
        for bucket in self.buckets:
            count = bisect_left(bucket.positions, G.shape[1])
            if not count:
                continue
            rows = self.rows[bucket.begin : bucket.begin + count * bucket.width].view(count, bucket.width, -1)
            found = product(rows, G.index_select(1, bucket.index[:count]).permute(1, 2, 0))
            out.index_add_(0, bucket.columns[: count * bucket.width], found.flatten(0, 1))


def _groups(counts: tuple[int, ...]) -> list[list[int]]:
    """Return groups of positions with similar numbers of vectors, each group ascending."""
    groups: list[list[int]] = []
    smallest = 0
    for pos in sorted(range(len(counts)), key=lambda pos: counts[pos]):
        if not groups or counts[pos] > max(smallest * PADDING, smallest + 1):
            groups.append([])
            smallest = counts[pos]
        groups[-1].append(pos)
    return [sorted(group) for group in groups]


ELEMENTS_AT_ONCE = 2**22
"""Elements gathered at once while rows are placed: few enough to stay in cache and in reused pages."""


@dataclass(frozen=True, slots=True)
class Sources:
    """All source vectors at the write points, in the engine's dtype, the decoders' perhaps in a narrower one; those of a layer
    stand on that layer's device."""

    columns: Columns
    decoders: tuple[LayerDecoders, ...]  # per write layer, including error vectors
    errors: tuple[Tensor, ...]  # per layer (pos, d_model), the same error vectors
    tokens: Tensor  # (pos, d_model)


def source_layers(transcoders: Transcoders, layer: int) -> tuple[int, int]:
    """Return the first and the last layer whose features or error write to `layer`."""
    writing = [
        source
        for source in range(transcoders.n_layers)
        if source == layer or layer in transcoders.written_layers(source)
    ]
    return writing[0], writing[-1]


def _place(
    block: DecoderBlock,
    active: ActiveFeatures,
    decoders: Sequence[LayerDecoders],
    shifts: Sequence[Tensor],
    dtype: torch.dtype,
) -> None:
    """Store the rows of a block, times their activations, in the order of their write layers."""
    entries = block.entries.cpu()
    positions = active.indices[block.entries, 1].cpu()
    for slot in range(block.rows.shape[1]):
        layer = decoders[block.layer + slot]
        target = layer.rows
        place = (layer.columns.feature_column[entries] - shifts[block.layer + slot][positions]).to(
            target.device
        )
        values = active.values[block.entries].to(target.device, dtype)
        step = max(1, ELEMENTS_AT_ONCE // target.shape[1])
        for start in range(0, len(place), step):
            part = slice(start, start + step)
            rows = block.rows[block.row_of_entry[part], slot].to(values).mul_(values[part, None])
            target.index_copy_(0, place[part], rows.to(target.dtype))


def build_sources(
    frozen: FrozenPass,
    transcoders: Transcoders,
    active: ActiveFeatures,
    zero_positions: Sequence[int],
    dtype: torch.dtype,
    stored: torch.dtype | None = None,
) -> Sources:
    """Gather every source vector. Errors are `y − ŷ`, zero at `zero_positions` (Ameisen et al. 2025, "error nodes").

    What is computed is of `dtype`, what is kept to be contracted with of `stored`, or the same.
    Of the model's own neurons they aren't zero anywhere: an error is what the neurons that can't be nodes write.
    """
    n_layers, n_pos = len(frozen.layers), len(frozen.tokens)
    devices = [layer.pattern.device for layer in frozen.layers]
    columns = Columns.build(active.indices, n_layers, n_pos)
    decoders = tuple(
        LayerDecoders.empty(
            columns,
            source_layers(transcoders, layer),
            torch.empty(0, transcoders.d_model, dtype=stored or dtype, device=devices[layer]),
        )
        for layer in range(n_layers)
    )
    shifts = [layer.shift() for layer in decoders]
    reconstruction = Reconstruction(transcoders, active, [layer.feature_input for layer in frozen.layers])
    for block in decoder_vectors(transcoders, active):
        reconstruction.add(block)
        _place(block, active, decoders, shifts, dtype)
    errors = tuple(
        layer.feature_output.to(device, dtype) - output.to(device, dtype)
        for layer, output, device in zip(frozen.layers, reconstruction.outputs, devices, strict=True)
    )
    for layer, (written, vectors) in enumerate(zip(decoders, errors, strict=True)):
        if not transcoders.of_model:
            vectors[list(zero_positions)] = 0
        written.rows[written.error_rows(layer).to(vectors.device)] = vectors.to(written.rows.dtype)
    return Sources(columns, decoders, errors, frozen.embed.to(devices[0], dtype))
