"""The safetensors container: one parser of its header, a writer, and a file that is mapped into memory and read by rows.

Independent of graphs and transcoders. Nothing in a header is trusted before it is checked, and no number from a file sizes an
allocation, so that a truncated or hostile file ends in a one-line error.
"""

from __future__ import annotations

import json
import math
import mmap
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from circuit_tracer_cli.errors import BadTranscoders, CircuitTracerError
from circuit_tracer_cli.files.atomic import atomic_writer, output_error
from circuit_tracer_cli.files.inputs import open_regular, unreadable

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
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
LARGEST_HEADER = 100_000_000
"""The format's own limit in bytes."""
MAX_HEADER = 16 * 2**20
"""Largest header of a file of weights in bytes: usual ones have some hundred bytes, and parsing takes ten times the memory."""
_MAX_AXES = 8
_SLICE = 1 << 24  # bytes per write
_AGAIN = "copy, download or write the file again"

Buffer = bytes | bytearray | mmap.mmap


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
        """Size in the file, in bytes."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """A checked header: its tensors by name, its metadata, and `stop`, the size in bytes that the file must have."""

    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]
    stop: int


def looks_like_tensors(start: bytes) -> bool:
    """True if the first nine bytes of a file can be those of a safetensors file."""
    return len(start) >= 9 and int.from_bytes(start[:8], "little") <= LARGEST_HEADER and start[8:9] == b"{"


def read_header(
    data: Buffer, source: str, wrong: type[CircuitTracerError], largest: int = LARGEST_HEADER
) -> TensorHeader:
    """Return the header of a complete file. Raises `wrong` if it isn't safetensors or is inconsistent."""
    length = int.from_bytes(data[:8], "little")
    if length > largest:
        raise wrong(f"{source} is not a safetensors file: its header claims {length} bytes")
    if len(data) < 9 or 8 + length > len(data):
        raise wrong(
            f"{source} is truncated: its header takes {length} bytes, but the file has {len(data)}", _AGAIN
        )
    header = parse_header(bytes(data[8 : 8 + length]), source, wrong)
    for stored in header.tensors.values():
        if stored.stop > len(data):
            raise wrong(
                f"{source} is truncated: tensor {stored.name!r} ends at byte {stored.stop} of {len(data)}",
                _AGAIN,
            )
    return header


def parse_header(text: bytes, source: str, wrong: type[CircuitTracerError]) -> TensorHeader:
    """Return the header from its JSON, the bytes after the first eight. Raises `wrong` as `read_header` does."""

    def refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            repeated = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
            raise wrong(f"{source} has two entries {repeated[:60]!r} in its header")
        return values

    try:
        header = json.loads(text.decode("utf-8", "surrogatepass"), object_pairs_hook=refuse_repeats)
    except (ValueError, RecursionError) as error:
        if isinstance(error, CircuitTracerError):
            raise
        raise wrong(f"{source} is not a safetensors file: its header isn't JSON", _AGAIN) from None
    if not isinstance(header, dict):
        raise wrong(f"{source} is not a safetensors file: its header isn't a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise wrong(f"{source} has a damaged header: its metadata must be strings")
    start = 8 + len(text)
    tensors = {name: _entry(source, name, value, start, wrong) for name, value in header.items()}
    end = start
    for stored in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.stop)):
        if stored.start < end:
            raise wrong(f"{source}: tensor {stored.name[:60]!r} overlaps another one")
        end = stored.stop
    return TensorHeader(tensors, metadata, end)


def _entry(
    source: str, name: str, value: Any, data_start: int, wrong: type[CircuitTracerError]
) -> StoredTensor:
    what = f"{source}: tensor {name[:60]!r}"
    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
        raise wrong(f"{source}: the header entry of tensor {name[:60]!r} is incomplete")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise wrong(f"{what} has the unsupported dtype {str(dtype)[:60]!r}")
    if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(offsets) != 2:
        raise wrong(f"{what} has an impossible shape or offsets in the header")
    size = math.prod(shape) * _DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != size:
        raise wrong(f"{what} should take {size} bytes, but its offsets span {offsets[1] - offsets[0]}")
    return StoredTensor(name, _DTYPES[dtype], tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _whole_numbers(values: Any) -> bool:
    """True for a list of sizes that a file can have."""
    if not isinstance(values, list) or len(values) > _MAX_AXES:
        return False
    return all(type(value) is int and 0 <= value < 2**62 for value in values)


def shared_tensors(data: bytearray | mmap.mmap, header: TensorHeader) -> dict[str, Tensor]:
    """The tensors of a complete file as views of its writable memory, by name; copies if data isn't aligned."""
    tensors: dict[str, Tensor] = {}
    for name, stored in header.tensors.items():
        count = math.prod(stored.shape)
        if count == 0:
            tensors[name] = torch.empty(stored.shape, dtype=stored.dtype)
            continue
        if stored.start % stored.dtype.itemsize == 0 and sys.byteorder == "little":
            flat = torch.frombuffer(data, dtype=stored.dtype, count=count, offset=stored.start)
        else:
            flat = torch.frombuffer(
                bytearray(data[stored.start : stored.stop]), dtype=stored.dtype, count=count
            )
        tensors[name] = flat.reshape(stored.shape)
    return tensors


def write_tensors(
    stream: BinaryIO,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    release: Callable[[], None] = lambda: None,
) -> None:
    """Write named tensors and string metadata to a file or a pipe, calling `release` after every slice. Raises OSError."""
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())  # keeps every tensor aligned
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, tensor in ordered:
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little"))
    stream.write(text)
    for _, tensor in ordered:
        flat = tensor.detach().to("cpu").contiguous().flatten()
        if not flat.numel():
            continue
        content = flat.view(torch.uint8).numpy()
        for start in range(0, len(content), _SLICE):
            stream.write(content[start : start + _SLICE].data)
            release()


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file atomically, creating its folder. Raises OutputError and then leaves no file behind."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from None
    with atomic_writer(path) as stream:
        write_tensors(stream, tensors, {})


_MOST_HEADERS = 1024
_HEADERS: dict[tuple[str, int, int, int], dict[str, StoredTensor]] = {}
"""Headers of weight files by path, inode, size and time of change; the oldest are dropped."""


class TensorFile:
    """An open safetensors file of weights. Raises MissingFile, or BadTranscoders if its header is wrong.

    Views of the map are read-only memory: they must never be written, and aren't handed to users.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map = _map_file(path, mmap.ACCESS_READ)
        self.tensors = self._read_header(self._map)

    def _read_header(self, data: mmap.mmap) -> dict[str, StoredTensor]:
        """The file's tensors by name. Raises BadTranscoders for an inconsistent file.

        An unchanged file is parsed once: a set is inspected several times before its weights are read.
        """
        try:
            found = self.path.stat()
        except OSError as error:
            raise unreadable(self.path, error) from None
        key = (str(self.path.absolute()), found.st_ino, found.st_size, found.st_mtime_ns)
        if key not in _HEADERS:
            while len(_HEADERS) >= _MOST_HEADERS:
                _HEADERS.pop(next(iter(_HEADERS)), None)
            _HEADERS[key] = read_header(data, str(self.path), BadTranscoders, MAX_HEADER).tensors
        return _HEADERS[key]

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start … stop-1` of the first axis: a read-only view, or a copy if misaligned."""
        stored = self.tensors[name]
        row_bytes = _row_bytes(stored)
        raw = _aligned_bytes(self._map, stored, stored.start + start * row_bytes, (stop - start) * row_bytes)
        return raw.view(stored.dtype).view(stop - start, *stored.shape[1:])

    def view(self, name: str) -> Tensor:
        """The full tensor as a read-only view."""
        stored = self.tensors[name]
        raw = _aligned_bytes(self._map, stored, stored.start, stored.nbytes)
        return raw.view(stored.dtype).view(stored.shape)

    def private(self, name: str) -> Tensor:
        """The full tensor as a writable view: written pages are copied and never reach the file.

        It has its own map, so that its memory is released with it.
        """
        stored = self.tensors[name]
        before = stored.start % mmap.ALLOCATIONGRANULARITY
        length = before + stored.nbytes if stored.nbytes else 0
        own = _map_file(self.path, mmap.ACCESS_COPY, stored.start - before, length)
        raw = _aligned_bytes(own, stored, before, stored.nbytes)
        return raw.view(stored.dtype).view(stored.shape)

    def gather(self, name: str, index: Tensor) -> Tensor:
        """A copy of the rows `index (n)` int64, on the CPU in the file's dtype."""
        stored = self.tensors[name]
        row_bytes = _row_bytes(stored)
        raw = _bytes(self._map, stored.start, stored.nbytes).view(stored.shape[0], row_bytes)
        return raw.index_select(0, index).view(stored.dtype).view(len(index), *stored.shape[1:])

    def release(self, name: str) -> None:
        """Release the pages of a tensor, so that they don't count as resident."""
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


def _map_file(path: Path, access: int, offset: int = 0, length: int = 0) -> mmap.mmap:
    """A map of `length` bytes of a file, to its end for 0. Raises MissingFile, BadTranscoders."""
    with open_regular(path) as file:
        try:
            return mmap.mmap(file.fileno(), length, access=access, offset=offset)
        except (OSError, ValueError):  # empty, or a system file that can't be mapped
            raise BadTranscoders(f"{path} is empty or can't be mapped into memory", _AGAIN) from None
