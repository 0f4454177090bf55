"""Direct effects between nodes in compressed rows (row = target, column = source), and their builder; no node kinds."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from circuit_tracer_cli.errors import InvalidValue, OutOfMemory
from circuit_tracer_cli.files.capacity import free_memory, size_in_words
from circuit_tracer_cli.files.scratch import Release, nothing, scratch_tensor

Array = npt.NDArray[Any]

EDGE_BLOCK = 1 << 16
"""Number of edges per block: small, so that passes over the edges need little memory."""

BLOCKS_HELD = 64
"""Number of blocks after which a pass releases the pages that it has read, if the edges are in a file."""

_DENSE_BLOCK = 1 << 20

CHUNKS_IN_MEMORY = 1 << 30
"""Bytes of compressed rows kept in memory; later rows go to a temporary file as they are computed."""


@dataclass(frozen=True, slots=True)
class EdgeBlock:
    """A run of stored edges as arrays, for passes over all edges (on a CPU, numpy gathers several times faster than torch).

    Attributes:
        start: Index of the run's first edge.
        first_row: Target node of the first edge.
        counts: int64, number of edges of each row from `first_row` on.
        columns: int64, source node of each edge.
        values: float32, weight of each edge.
    """

    start: int
    first_row: int
    counts: Array
    columns: Array
    values: Array

    @property
    def place(self) -> slice:
        """The run's place in the storage."""
        return slice(self.start, self.start + len(self.values))

    @property
    def rows(self) -> Array:
        """int64, target node of each edge."""
        return np.repeat(np.arange(self.first_row, self.first_row + len(self.counts)), self.counts)

    def of_rows(self, per_node: Array) -> Array:
        """Return for each edge the entry of its target node in an array over all nodes."""
        return np.repeat(per_node[self.first_row : self.first_row + len(self.counts)], self.counts)

    def reduce_rows(self, operation: np.ufunc, per_edge: Array) -> tuple[Array, Array]:
        """Return the target nodes that have edges here, and the entries of their edges reduced by `operation`."""
        filled = self.counts.nonzero()[0]
        starts = (np.cumsum(self.counts) - self.counts)[filled]
        return filled + self.first_row, operation.reduceat(per_edge, starts)

    def triples(self) -> Iterator[tuple[int, int, float]]:
        """Source, target and weight of each edge."""
        return zip(self.columns.tolist(), self.rows.tolist(), self.values.tolist(), strict=True)


@dataclass(frozen=True, slots=True)
class Edges:
    """A `T × T` matrix of direct effects in compressed rows: columns ascend within a row, no zero is stored.

    Attributes:
        indptr: int64 `(T + 1)`; row `t` is the slice `indptr[t]:indptr[t + 1]` of the other two.
        indices: int32 `(nnz)`, source nodes.
        values: float32 `(nnz)`.
        release: Releases the pages of edges that are in a file; called during and after every pass.
    """

    indptr: torch.Tensor
    indices: torch.Tensor
    values: torch.Tensor
    release: Release = field(default=nothing, compare=False, repr=False)

    @property
    def n(self) -> int:
        """`T`, the number of nodes."""
        return self.indptr.numel() - 1

    @property
    def nnz(self) -> int:
        """How many edges are stored."""
        return self.values.numel()

    @property
    def nbytes(self) -> int:
        """Bytes of the three tensors."""
        return sum(t.numel() * t.element_size() for t in (self.indptr, self.indices, self.values))

    @property
    def device(self) -> torch.device:
        """The tensors' device."""
        return self.values.device

    def to(self, device: torch.device | str) -> Edges:
        """The same edges on another device."""
        if self.device == torch.device(device):
            return self
        return Edges(self.indptr.to(device), self.indices.to(device), self.values.to(device))

    def row(self, target: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Sources int32 and weights float32 of the edges into one node."""
        start, stop = self.indptr[target : target + 2].tolist()
        return self.indices[start:stop], self.values[start:stop]

    def rows(self) -> Iterator[tuple[int, Array, Array]]:
        """Every node that has incoming edges, in order, with the sources int32 and weights float32 of those edges."""
        indptr = self.indptr.cpu().numpy()
        indices, values, seen = self.indices.cpu().numpy(), self.values.cpu().numpy(), 0
        for target in np.diff(indptr).nonzero()[0].tolist():
            start, stop = int(indptr[target]), int(indptr[target + 1])
            yield target, indices[start:stop], values[start:stop]
            seen += stop - start
            if seen > BLOCKS_HELD * EDGE_BLOCK:
                self.release()
                seen = 0
        self.release()

    def blocks(
        self, first_row: int = 0, last_row: int | None = None, size: int = EDGE_BLOCK
    ) -> Iterator[EdgeBlock]:
        """The edges into the rows `first_row:last_row`, a block of at most `size` at a time, in stored order."""
        indptr = self.indptr.cpu().numpy()
        end_row = self.n if last_row is None else last_row
        begin, end = int(indptr[first_row]), int(indptr[end_row])
        for count, start in enumerate(range(begin, end, size), 1):
            stop = min(start + size, end)
            first = int(np.searchsorted(indptr, start, side="right")) - 1
            last = int(np.searchsorted(indptr, stop, side="left"))
            yield EdgeBlock(
                start,
                first,
                np.diff(indptr[first : last + 1].clip(start, stop)),
                self.indices[start:stop].cpu().numpy().astype(np.int64),
                self.values[start:stop].cpu().numpy(),
            )
            if count % BLOCKS_HELD == 0:
                self.release()
        if end - begin > size:
            self.release()

    def dense_rows(self, first_row: int, last_row: int) -> torch.Tensor:
        """The rows `first_row:last_row` as a dense float32 matrix `(rows, T)`."""
        dense = np.zeros((last_row - first_row, self.n), dtype=np.float32)
        for block in self.blocks(first_row, last_row):
            dense[block.rows - first_row, block.columns] = block.values
        return torch.from_numpy(dense).to(self.device)

    def to_dense(self) -> torch.Tensor:
        """The full matrix, float32 `(T, T)`. Raises OutOfMemory if it can't fit."""
        require_memory(4 * self.n**2, self.device, f"the dense {self.n} x {self.n} adjacency matrix")
        return self.dense_rows(0, self.n)

    def select(self, keep: torch.Tensor) -> Edges:
        """The edges where `keep` (bool `(nnz)`) is True. If all are kept, tensors are shared, not copied."""
        chosen = keep.cpu().numpy()
        total = int(np.count_nonzero(chosen))
        if total == self.nnz:
            return self
        counts = np.zeros(self.n, dtype=np.int64)
        indices, values, release = room_for(total)
        done = 0
        for number, block in enumerate(self.blocks(), 1):
            kept = chosen[block.place]
            rows, found = block.reduce_rows(np.add, kept.astype(np.int64))
            counts[rows] += found
            stop = done + int(found.sum())
            indices.numpy()[done:stop] = block.columns[kept]
            values.numpy()[done:stop] = block.values[kept]
            done = stop
            if number % BLOCKS_HELD == 0:
                release()
        release()
        return Edges(offsets(torch.from_numpy(counts)), indices, values, release).to(self.device)

    def finite(self) -> tuple[Edges, int]:
        """The edges whose weight is finite, and how many others were left out."""
        left_out = sum(int(np.count_nonzero(~np.isfinite(block.values))) for block in self.blocks())
        return (self.select(self.values.isfinite()) if left_out else self), left_out

    @classmethod
    def from_dense(cls, matrix: torch.Tensor) -> Edges:
        """The non-zero entries of a square matrix, as float32. Raises InvalidValue for another shape."""
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InvalidValue(f"an adjacency matrix must be square, not {tuple(matrix.shape)}")
        builder = EdgesBuilder(matrix.shape[0], device=matrix.device)
        step = max(1, _DENSE_BLOCK // max(1, matrix.shape[1]))
        for start in range(0, matrix.shape[0], step):
            rows = matrix[start : start + step]
            builder.add_rows(torch.arange(start, start + len(rows), device=matrix.device), rows)
        return builder.build()


@dataclass(frozen=True, slots=True)
class _Chunk:
    """The edges of some rows, one row after the other; in memory, or in the file from `place` on."""

    rows: torch.Tensor
    columns: torch.Tensor | None
    weights: torch.Tensor | None
    count: int
    place: int = -1


class _Spill:
    """An unnamed file that is appended to and read anywhere; removed with its last user."""

    def __init__(self) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(prefix="circuit-tracer-", buffering=0)  # noqa: SIM115
        self._end = 0

    def append(self, *arrays: npt.NDArray[Any]) -> int:
        """Append the arrays and return where they begin. Raises OSError, and then nothing was appended."""
        start = place = self._end
        for array in arrays:
            content = array.data.cast("B")
            while len(content):
                written = os.pwrite(self._file.fileno(), content, place)
                place, content = place + written, content[written:]
        self._end = place
        return start

    def read(self, place: int, size: int) -> bytearray:
        """Read a number of bytes."""
        content, done = bytearray(size), 0
        while done < size:
            piece = os.pread(self._file.fileno(), size - done, place + done)
            content[done : done + len(piece)] = piece
            done += len(piece)
        return content

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            self._file.close()


class EdgesBuilder:
    """Collects blocks of dense rows, compresses each one, and puts them in order at the end.

    Args:
        n: Number of nodes.
        device: Device of the edges; blocks from elsewhere are copied there.
        chunks_in_memory: Bytes of compressed rows to keep in memory before writing to a file.
    """

    def __init__(
        self, n: int, device: torch.device | str = "cpu", chunks_in_memory: int = CHUNKS_IN_MEMORY
    ) -> None:
        self._n = n
        self._device = torch.device(device)
        self._limit = chunks_in_memory
        self._reset()

    def _reset(self) -> None:
        self._counts = torch.zeros(self._n, dtype=torch.int64)
        self._seen = torch.zeros(self._n, dtype=torch.bool)
        self._chunks: list[_Chunk] = []
        self._held = 0
        self._spill: _Spill | None = None

    @property
    def nnz(self) -> int:
        """Edges collected so far."""
        return int(self._counts.sum())

    def copy(self) -> EdgesBuilder:
        """Return another builder with the same rows, so that a matrix can be built from them while more rows are added."""
        other = EdgesBuilder(self._n, self._device, self._limit)
        other._counts, other._seen = self._counts.clone(), self._seen.clone()
        other._chunks, other._spill, other._held = list(self._chunks), self._spill, self._held
        return other

    def add_rows(self, row_ids: torch.Tensor, values: torch.Tensor) -> None:
        """Add the rows `row_ids` (int64 `(r)`, in any order, each row once) with all their columns (`(r, n)`).

        Raises:
            InvalidValue: Wrong shape, a row outside the matrix, or a row that was added before.
        """
        ids = row_ids.to("cpu", torch.int64)
        if values.ndim != 2 or values.shape != (len(ids), self._n):
            raise InvalidValue(
                f"rows of shape {tuple(values.shape)} don't fit {len(ids)} row ids and {self._n} nodes"
            )
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self._n:
            raise InvalidValue(f"row ids must be in 0..{self._n - 1}")
        if bool(self._seen[ids].any()) or len(torch.unique(ids)) != len(ids):
            raise InvalidValue("a row of the adjacency matrix was given twice")
        self._seen[ids] = True
        step = max(1, _DENSE_BLOCK // max(1, self._n))
        for start in range(0, len(ids), step):
            self._compress(ids[start : start + step], values[start : start + step])

    def _compress(self, ids: torch.Tensor, values: torch.Tensor) -> None:
        block = values.to(torch.float32)  # packed where it is, so that only edges travel
        mask = block != 0
        columns, weights = mask.nonzero()[:, 1].to(torch.int32).to(self._device), block[mask].to(self._device)
        self._counts[ids] = mask.sum(1).to("cpu")
        if columns.numel():
            self._keep(ids, columns, weights)

    def _keep(self, ids: torch.Tensor, columns: torch.Tensor, weights: torch.Tensor) -> None:
        """Keep a chunk in memory, or write it to the file beyond the limit; on a full disk it stays in memory after all."""
        size = 8 * len(columns)
        if self._held + size > self._limit:
            try:
                self._spill = self._spill or _Spill()
                place = self._spill.append(columns.cpu().numpy(), weights.cpu().numpy())
            except OSError:
                pass
            else:
                self._chunks.append(_Chunk(ids, None, None, len(columns), place))
                return
        self._held += size
        self._chunks.append(_Chunk(ids, columns, weights, len(columns)))

    def _read(self, chunk: _Chunk) -> tuple[torch.Tensor, torch.Tensor]:
        """Columns and weights of a chunk, on the CPU."""
        if chunk.columns is not None and chunk.weights is not None:
            return chunk.columns.cpu(), chunk.weights.cpu()
        assert self._spill is not None
        content = self._spill.read(chunk.place, 8 * chunk.count)
        columns = np.frombuffer(content, dtype=np.int32, count=chunk.count)
        weights = np.frombuffer(content, dtype=np.float32, offset=4 * chunk.count)
        return torch.from_numpy(columns), torch.from_numpy(weights)

    def _taken(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield the chunks, freeing each as it's copied, so that edges are never all in memory twice."""
        self._chunks.reverse()
        while self._chunks:
            chunk = self._chunks.pop()
            yield chunk.rows, *self._read(chunk)

    def build(self) -> Edges:
        """Return the matrix of all added rows; other rows are empty. The builder is empty afterwards."""
        indptr = offsets(self._counts)
        indices, values, release = room_for(int(indptr[-1]), self._limit)
        places, counts = indptr.tolist(), self._counts.tolist()
        for number, (ids, columns, weights) in enumerate(self._taken(), 1):
            done = 0
            for row in ids.tolist():
                place, count = places[row], counts[row]
                indices[place : place + count] = columns[done : done + count]
                values[place : place + count] = weights[done : done + count]
                done += count
            if number % 16 == 0:
                release()
        release()
        self._reset()
        return Edges(indptr, indices, values, release).to(self._device)


def room_for(total: int, largest_in_memory: int | None = None) -> tuple[torch.Tensor, torch.Tensor, Release]:
    """Return arrays for the sources and weights of edges, in memory or in a file."""
    indices, release_indices = scratch_tensor(total, torch.int32, largest_in_memory)
    values, release_values = scratch_tensor(total, torch.float32, largest_in_memory)

    def release() -> None:
        release_indices()
        release_values()

    return indices, values, release


class NotFinite(InvalidValue):
    """Raised for an edge weight that is NaN or infinite."""


def check_edges(edges: Edges, *, finite: bool = True) -> None:
    """Raise InvalidValue unless the tensors are a well-formed matrix of non-zero entries; NotFinite if one isn't finite."""
    indptr, indices, values = edges.indptr, edges.indices, edges.values
    if indptr.dtype != torch.int64 or indices.dtype != torch.int32 or values.dtype != torch.float32:
        raise InvalidValue("edges must be int64 row starts, int32 sources and float32 weights")
    if indptr.ndim != 1 or indices.ndim != 1 or values.ndim != 1 or indptr.numel() < 1:
        raise InvalidValue("the tensors of the edges must have one axis each")
    if len(indices) != len(values) or int(indptr[0]) != 0 or int(indptr[-1]) != len(values):
        raise InvalidValue("the row starts don't match the number of edges")
    if bool((indptr.diff() < 0).any()):
        raise InvalidValue("the row starts of the edges must not descend")
    last_row, last_column = -1, -1
    for block in edges.blocks():
        if int(block.columns.min()) < 0 or int(block.columns.max()) >= edges.n:
            raise InvalidValue(f"an edge comes from outside the graph's {edges.n} nodes")
        rows = block.rows
        ascends = (np.diff(block.columns) > 0) | (np.diff(rows) > 0)
        if not ascends.all() or (int(rows[0]) == last_row and int(block.columns[0]) <= last_column):
            raise InvalidValue("the sources of a node's edges must ascend")
        if finite and not np.isfinite(block.values).all():
            raise NotFinite("an edge weight is NaN or infinite")
        if not block.values.all():
            raise InvalidValue("an edge of weight zero is stored")
        last_row, last_column = int(rows[-1]), int(block.columns[-1])


def require_memory(n_bytes: int, device: torch.device, what: str) -> None:
    """Raise OutOfMemory if `n_bytes` are more than the device has free."""
    free = free_memory(device)
    if n_bytes > free:
        raise OutOfMemory(
            f"{what} needs {size_in_words(n_bytes)}, but only {size_in_words(free)} is free",
            "use the edges (`graph.edges`, or export to csv), which are stored sparse",
        )


def offsets(counts: torch.Tensor) -> torch.Tensor:
    """int64 `(n + 1)`: the start of each of `n` runs of the given lengths, and the end of the last."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
