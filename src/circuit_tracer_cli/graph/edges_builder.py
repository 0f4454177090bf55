"""Collects dense rows of direct effects into compressed ones, in any order, within a bound on memory."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.graph.edges import Edges, offsets, room_for

_DENSE_BLOCK = 1 << 20

CHUNKS_IN_MEMORY = 1 << 30
"""Bytes of compressed rows that are held; what comes after goes to a temporary file as it is computed."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """The edges of some rows, one row after the other; held, or `place` says where in the file they begin."""

    rows: torch.Tensor
    columns: torch.Tensor | None
    weights: torch.Tensor | None
    count: int
    place: int = -1


class _Spill:
    """An unnamed file that is written at its end and read anywhere; gone with its last user."""

    def __init__(self) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(prefix="circuit-tracer-", buffering=0)  # noqa: SIM115
        self._end = 0

    def append(self, *arrays: npt.NDArray[Any]) -> int:
        """Where the arrays, one after the other, now begin. Raises OSError, and then nothing was appended."""
        start = place = self._end
        for array in arrays:
            content = array.data.cast("B")
            while len(content):
                written = os.pwrite(self._file.fileno(), content, place)
                place, content = place + written, content[written:]
        self._end = place
        return start

    def read(self, place: int, size: int) -> bytearray:
        """So many bytes."""
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
    """Collects blocks of dense rows, compressed as they come, and puts them in order at the end.

    Args:
        n: Number of nodes.
        device: Where the edges end; blocks from elsewhere are copied there.
        chunks_in_memory: Bytes of compressed rows to hold before writing them to a file.
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
        """Another builder with the same rows, so that a matrix can be built from what is there while more rows come."""
        other = EdgesBuilder(self._n, self._device, self._limit)
        other._counts, other._seen = self._counts.clone(), self._seen.clone()
        other._chunks, other._spill, other._held = list(self._chunks), self._spill, self._held
        return other

    def add_rows(self, row_ids: torch.Tensor, values: torch.Tensor) -> None:
        """Takes the rows `row_ids` (int64 `(r)`, in any order, each row once) with all their columns (`(r, n)`).

        Raises:
            InvalidValue: Wrong shape, row outside the matrix, or a row that was given before.
        """
        ids = row_ids.to("cpu", torch.int64)
        if values.ndim != 2 or values.shape != (len(ids), self._n):
            raise InvalidValue(
                f"rows of shape {tuple(values.shape)} don't fit {len(ids)} row ids and {self._n} nodes"
            )
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self._n:
            raise InvalidValue(f"row ids must lie in 0..{self._n - 1}")
        if bool(self._seen[ids].any()) or len(torch.unique(ids)) != len(ids):
            raise InvalidValue("a row of the adjacency matrix was given twice")
        self._seen[ids] = True
        step = max(1, _DENSE_BLOCK // max(1, self._n))
        for start in range(0, len(ids), step):
            self._compress(ids[start : start + step], values[start : start + step])

    def _compress(self, ids: torch.Tensor, values: torch.Tensor) -> None:
        block = values.to(self._device, torch.float32)
        mask = block != 0
        columns, weights = mask.nonzero()[:, 1].to(torch.int32), block[mask]
        self._counts[ids] = mask.sum(1).to("cpu")
        if columns.numel():
            self._keep(ids, columns, weights)

    def _keep(self, ids: torch.Tensor, columns: torch.Tensor, weights: torch.Tensor) -> None:
        """Hold a chunk, or beyond the limit write it to the file; on a full disk it's held after all."""
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
        """The chunks, each freed as it's copied, so that edges are never all held twice."""
        self._chunks.reverse()
        while self._chunks:
            chunk = self._chunks.pop()
            yield chunk.rows, *self._read(chunk)

    def build(self) -> Edges:
        """The matrix of all rows added; rows never added are empty. The builder is empty afterwards."""
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
