"""The safetensors container: read through a memory map, written from the tensors' own memory, to files and pipes alike.

Nothing in a file is believed before it's checked, and nothing is allocated by a number that a file states.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from mmap import mmap
from typing import Any, BinaryIO

import torch

from circuit_tracer_cli.errors import BadGraphFile

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_SLICE = 1 << 24  # bytes written at once
_MAX_HEADER = 100_000_000  # the format's own limit


def write_tensors(
    stream: BinaryIO,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    release: Callable[[], None] = lambda: None,
) -> None:
    """Writes named tensors and string metadata, calling `release` after every slice. Raises OSError as the stream does."""
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())  # keeps every tensor aligned
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in ordered:
        size = tensor.numel() * tensor.element_size()
        entry = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        header[name] = entry
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


def looks_like_tensors(start: bytes) -> bool:
    """Whether the first nine bytes of a file can be those of a safetensors file."""
    return len(start) >= 9 and int.from_bytes(start[:8], "little") <= _MAX_HEADER and start[8:9] == b"{"


def read_tensors(buffer: bytearray | mmap, source: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors that share the buffer's memory, and the metadata. Raises BadGraphFile."""
    header, data_start = _header(buffer, source)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadGraphFile(f"{source} has a header that isn't safetensors metadata")
    tensors: dict[str, torch.Tensor] = {}
    extents = []
    for name, entry in header.items():
        dtype, shape, start, stop = _entry(name, entry, source)
        if stop > len(buffer) - data_start:
            raise _truncated(source)
        extents.append((start, stop))
        tensors[name] = _tensor(buffer, dtype, shape, data_start + start)
    extents.sort()
    if any(before[1] > after[0] for before, after in pairwise(extents)):
        raise BadGraphFile(f"{source} has tensors that overlap")
    return tensors, metadata


def _header(buffer: bytearray | mmap, source: str) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(buffer[:8], "little")
    if len(buffer) < 9 or length > _MAX_HEADER or 8 + length > len(buffer):
        raise _truncated(source)
    try:
        header = json.loads(bytes(buffer[8 : 8 + length]).decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise BadGraphFile(
            f"{source} has a header that isn't JSON", "it may be truncated or of another kind"
        ) from error
    if not isinstance(header, dict):
        raise BadGraphFile(f"{source} has a header that isn't a safetensors header")
    return header, 8 + length


def _entry(name: str, entry: Any, source: str) -> tuple[torch.dtype, list[int], int, int]:
    wrong = BadGraphFile(f"{source} describes its tensor {name[:60]!r} wrongly")
    if not isinstance(entry, dict) or entry.get("dtype") not in _DTYPES:
        raise wrong
    shape, offsets = _counts(entry.get("shape")), _counts(entry.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2:
        raise wrong
    dtype = _DTYPES[entry["dtype"]]
    if len(shape) > 8 or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise wrong
    return dtype, shape, offsets[0], offsets[1]


def _counts(value: Any) -> list[int] | None:
    """The value if it's a list of sizes that a file can have."""
    if isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 62 for item in value):
        return value
    return None


def _tensor(buffer: bytearray | mmap, dtype: torch.dtype, shape: list[int], start: int) -> torch.Tensor:
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    if start % dtype.itemsize == 0 and sys.byteorder == "little":
        flat = torch.frombuffer(buffer, dtype=dtype, count=count, offset=start)
    else:
        copy = bytearray(buffer[start : start + count * dtype.itemsize])
        flat = torch.frombuffer(copy, dtype=dtype, count=count)
    return flat.reshape(shape)


def _truncated(source: str) -> BadGraphFile:
    return BadGraphFile(
        f"{source} is truncated", "write or copy it again; it ends before its own header says"
    )
