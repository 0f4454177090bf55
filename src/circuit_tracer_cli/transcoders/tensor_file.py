"""A safetensors file, mapped into memory once and read by rows.

Knows the container format and nothing about transcoders. The header is checked before any of it is believed,
so that a truncated or hostile file ends in one sentence. Views of the map are read-only memory: an operator
may read them, nobody may write them, and they aren't handed to users.
"""

from __future__ import annotations

import json
import math
import mmap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.errors import BadTranscoders, MissingFile

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
MAX_HEADER = 16 * 2**20  # bytes; a header of a layer has some hundred, and parsing takes ten times as much
_MAX_AXES = 8


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor's entry in the header; `start` and `stop` are byte offsets in the file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return self.stop - self.start


class TensorFile:
    """An open safetensors file. Raises MissingFile, or BadTranscoders if its header is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map = _map_file(path, mmap.ACCESS_READ)
        self._private: mmap.mmap | None = None
        self.tensors = self._read_header(self._map)

    def _read_header(self, data: mmap.mmap) -> dict[str, StoredTensor]:
        """What the file holds, by name. Raises BadTranscoders for a file that doesn't agree with itself."""
        return _read_header(self.path, data)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start … stop-1` of the first axis: a read-only view, or a copy if misaligned."""
        stored = self.tensors[name]
        row_bytes = _row_bytes(stored)
        raw = _aligned_bytes(self._map, stored, stored.start + start * row_bytes, (stop - start) * row_bytes)
        return raw.view(stored.dtype).view(stop - start, *stored.shape[1:])

    def view(self, name: str) -> Tensor:
        """The whole tensor as a read-only view."""
        stored = self.tensors[name]
        raw = _aligned_bytes(self._map, stored, stored.start, stored.nbytes)
        return raw.view(stored.dtype).view(stored.shape)

    def private(self, name: str) -> Tensor:
        """The whole tensor as a view that may be written: what is written is copied then, and never reaches the file."""
        if self._private is None:
            self._private = _map_file(self.path, mmap.ACCESS_COPY)
        stored = self.tensors[name]
        raw = _aligned_bytes(self._private, stored, stored.start, stored.nbytes)
        return raw.view(stored.dtype).view(stored.shape)

    def gather(self, name: str, index: Tensor) -> Tensor:
        """A copy of the rows `index (n)` int64, on the CPU in the file's dtype."""
        stored = self.tensors[name]
        row_bytes = _row_bytes(stored)
        raw = _bytes(self._map, stored.start, stored.nbytes).view(stored.shape[0], row_bytes)
        return raw.index_select(0, index).view(stored.dtype).view(len(index), *stored.shape[1:])

    def release(self, name: str) -> None:
        """Let the pages of a tensor go, so that what was read once doesn't count as resident."""
        if not hasattr(self._map, "madvise") or not hasattr(mmap, "MADV_DONTNEED"):
            return
        stored = self.tensors[name]
        first = stored.start // mmap.PAGESIZE * mmap.PAGESIZE
        if stored.stop > first:
            self._map.madvise(mmap.MADV_DONTNEED, first, stored.stop - first)


def _row_bytes(stored: StoredTensor) -> int:
    return math.prod(stored.shape[1:]) * stored.dtype.itemsize


def _bytes(data: mmap.mmap, offset: int, count: int) -> Tensor:
    if count == 0:
        return torch.empty(0, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(data, dtype=torch.uint8, count=count, offset=offset)


def _aligned_bytes(data: mmap.mmap, stored: StoredTensor, offset: int, count: int) -> Tensor:
    raw = _bytes(data, offset, count)
    return raw.clone() if offset % stored.dtype.itemsize else raw


def _map_file(path: Path, access: int) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            if path.stat().st_size < 8:
                raise BadTranscoders(f"{path} is truncated: it is too short for a safetensors header")
            return mmap.mmap(file.fileno(), 0, access=access)
    except FileNotFoundError:
        raise MissingFile(f"{path} doesn't exist") from None
    except OSError as error:
        raise MissingFile(f"{path} can't be read: {error.strerror or error}") from None


def _read_header(path: Path, data: mmap.mmap) -> dict[str, StoredTensor]:
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER:
        raise BadTranscoders(f"{path} is no safetensors file: its header claims {length} bytes")
    if 8 + length > len(data):
        raise BadTranscoders(f"{path} is truncated: its header takes {length} bytes, the file {len(data)}")
    entries = _parse(path, data[8 : 8 + length])
    tensors = {name: _entry(path, name, value, 8 + length) for name, value in entries}
    _check_layout(path, list(tensors.values()), 8 + length, len(data))
    return tensors


def _parse(path: Path, text: bytes) -> Iterator[tuple[str, Any]]:
    def refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            repeated = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
            raise BadTranscoders(f"{path} has two entries {repeated!r} in its header")
        return values

    try:
        header = json.loads(text, object_pairs_hook=refuse_repeats)
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadTranscoders):
            raise
        raise BadTranscoders(f"{path} is no safetensors file: its header isn't JSON") from None
    if not isinstance(header, dict):
        raise BadTranscoders(f"{path} is no safetensors file: its header isn't a JSON object")
    return ((name, value) for name, value in header.items() if name != "__metadata__")


def _entry(path: Path, name: str, value: Any, data_start: int) -> StoredTensor:
    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
        raise BadTranscoders(f"{path}: the header entry of tensor {name!r} is incomplete")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise BadTranscoders(f"{path}: tensor {name!r} has the unsupported dtype {dtype!r}")
    if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(offsets) != 2:
        raise BadTranscoders(f"{path}: tensor {name!r} has an impossible shape or offsets in the header")
    size = math.prod(shape) * _DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != size:
        raise BadTranscoders(
            f"{path}: tensor {name!r} should take {size} bytes, its offsets span {offsets[1] - offsets[0]}"
        )
    return StoredTensor(name, _DTYPES[dtype], tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _whole_numbers(values: Any) -> bool:
    if not isinstance(values, list) or len(values) > _MAX_AXES:
        return False
    return all(type(value) is int and 0 <= value < 2**62 for value in values)


def _check_layout(path: Path, tensors: list[StoredTensor], data_start: int, size: int) -> None:
    end = data_start
    for stored in sorted(tensors, key=lambda tensor: (tensor.start, tensor.stop)):
        if stored.stop > size:
            raise BadTranscoders(
                f"{path} is truncated: tensor {stored.name!r} ends at byte {stored.stop} of {size}",
                hint="copy or download the file again",
            )
        if stored.start < end:
            raise BadTranscoders(f"{path}: tensor {stored.name!r} overlaps another one")
        end = stored.stop
