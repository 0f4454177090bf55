"""Reads `.pt` graph files, ours and every generation of the reference's, without running code from them.

A `.pt` file is a zip archive with a pickle in it. The pickle's names are checked against a list before unpickling,
and the reference's classes are replaced by the stand-ins below.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from circuit_tracer_cli.errors import BadGraphFile
from circuit_tracer_cli.types import LogitTarget


class _ConfigStandIn:
    """Takes the attributes of a pickled configuration."""


class _TargetStandIn(NamedTuple):
    token_str: str
    vocab_idx: int


def _stand_in(base: type, module: str, name: str) -> type:
    return type(name, (base,), {"__module__": module, "__qualname__": name})


_STAND_INS = [
    _stand_in(_TargetStandIn, "circuit_tracer.attribution.targets", "LogitTarget"),
    _stand_in(_ConfigStandIn, "circuit_tracer.utils.tl_nnsight_mapping", "UnifiedConfig"),
    _stand_in(_ConfigStandIn, "transformer_lens.HookedTransformerConfig", "HookedTransformerConfig"),
    _stand_in(_ConfigStandIn, "transformer_lens.config.HookedTransformerConfig", "HookedTransformerConfig"),
    _stand_in(_ConfigStandIn, "transformer_lens.config.hooked_transformer_config", "HookedTransformerConfig"),
]

_DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
_STORAGES = ("Half", "BFloat16", "Float", "Double", "Char", "Byte", "Short", "Int", "Long", "Bool")
_ALLOWED = {
    "torch._utils _rebuild_tensor_v2",
    "collections OrderedDict",
    "torch device",
    *(f"torch {name}" for name in _DTYPES),
    *(f"torch {name}Storage" for name in _STORAGES),
    *(f"{cls.__module__} {cls.__name__}" for cls in _STAND_INS),
}

ZIP_START = b"PK\x03\x04"
_MAX_PICKLE = 1 << 30
_LOCAL_HEADER = 30  # bytes before the name of a zip record
_PER_RECORD, _PER_ARCHIVE = 4096, 1 << 16  # bytes of headers, padding and torch's own small records
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def read_pt(path: Path, source: str) -> dict[str, Any]:
    """The values of a `.pt` graph file under the names of the current format, tensors memory-mapped.

    Args:
        path: The file.
        source: The file's name in messages.

    Raises:
        BadGraphFile: The file is truncated, of another kind, or contains anything but plain values and tensors.
    """
    try:
        _check_archive(path, source)
        with torch.serialization.safe_globals([*_STAND_INS, torch.device]):
            values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except _UNREADABLE as error:
        if isinstance(error, BadGraphFile):
            raise
        raise BadGraphFile(f"{source} is truncated or not a graph file", "write or copy it again") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise BadGraphFile(f"{source} isn't a graph file: it doesn't contain a dictionary of named values")
    for value in values.values():
        _check_tensor(value, path.stat().st_size, source)
    return _current_names(values)


class _Pickle(Protocol):
    """The stream of a pickle, read byte by byte."""

    size: int

    def read(self, count: int, /) -> bytes: ...

    def readline(self) -> bytes: ...


def largest_archive(stream: _Pickle, start: bytes, source: str) -> int:
    """Read an archive up to the end of its pickle, and return the largest size in bytes that the archive can have.

    Args:
        stream: Positioned after `start`; `size` counts all bytes read from it.
        start: The archive's first bytes, fewer than a record's header.
        source: The file's name in messages.

    Raises:
        BadGraphFile: torch.save doesn't write such archives, or the pickle could run code.
    """
    wrong = BadGraphFile(f"{source} isn't a file written by torch.save", "write or copy it again")
    head = start + stream.read(_LOCAL_HEADER - len(start))
    if len(head) < _LOCAL_HEADER:
        raise wrong
    name_length, extra_length = struct.unpack("<HH", head[26:30])
    name = stream.read(name_length)
    stream.read(extra_length)
    if not name.endswith(b"data.pkl") or head[8:10] != b"\0\0":
        raise wrong
    records, number = 0, 0
    content = _Bounded(stream, stream.size + _MAX_PICKLE)
    try:
        for opcode, argument, _ in pickletools.genops(content):  # type: ignore[arg-type]
            _check_opcode(opcode.name, argument, source)
            if isinstance(argument, int) and opcode.name.startswith(("BININT", "LONG")):
                number = argument  # the last number before a storage is its length
            elif opcode.name == "BINPERSID":
                records += 8 * max(0, number) + _PER_RECORD
    except (ValueError, OverflowError) as error:
        if isinstance(error, BadGraphFile):
            raise
        raise wrong from error
    return stream.size + records + _PER_ARCHIVE


class _Bounded:
    """A stream that ends at a number of bytes."""

    def __init__(self, stream: _Pickle, last: int) -> None:
        self._stream, self._last = stream, last

    def read(self, count: int) -> bytes:
        return self._stream.read(max(0, min(count, self._last - self._stream.size)))

    def readline(self) -> bytes:
        return self._stream.readline()


def _check_opcode(name: str, argument: object, source: str) -> None:
    if name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
        raise BadGraphFile(f"{source} was refused: it could run code when loaded")
    if name == "GLOBAL" and argument not in _ALLOWED:
        named = str(argument).replace(" ", ".")
        raise BadGraphFile(f"{source} was refused: it names {named[:80]!r}, which graph files don't use")


def _check_archive(path: Path, source: str) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise BadGraphFile(f"{source} contains compressed data, which torch never writes")
        pickles = [member for member in members if member.filename.endswith("data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > min(_MAX_PICKLE, path.stat().st_size):
            raise BadGraphFile(f"{source} isn't a file written by torch.save")
        content = archive.read(pickles[0])
    for opcode, argument, _ in pickletools.genops(content):
        _check_opcode(opcode.name, argument, source)


def _check_tensor(value: Any, file_size: int, source: str) -> None:
    """Refuse a tensor that repeats its storage: it can claim any size, and saved graphs never have one."""
    if isinstance(value, torch.Tensor) and value.numel() * value.element_size() > file_size:
        raise BadGraphFile(f"{source} contains a tensor larger than the file")


def _current_names(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of an older generation under the current names."""
    values = dict(values)
    if "scan" not in values and "scan_name" in values:
        values["scan"] = values.pop("scan_name")
    if "logit_targets" not in values and "logit_tokens" in values:
        values["logit_targets"] = values.pop("logit_tokens")
    targets = values.get("logit_targets")
    if isinstance(targets, list):
        values["logit_targets"] = [LogitTarget(*t) if isinstance(t, tuple) else t for t in targets]
    if isinstance(values.get("cfg"), _ConfigStandIn):
        values["cfg"] = _config_values(vars(values["cfg"]))
    return values


def _config_values(facts: dict[str, Any]) -> dict[str, Any]:
    """Return a pickled configuration as the dict that `UnifiedConfig.from_dict` takes; old ones lack some names."""
    values = {name: facts[name] for name in facts if not name.startswith("_")}
    values["tokenizer_name"] = values.get("tokenizer_name") or values.get("model_name") or ""
    values["model_name"] = values.get("model_name") or ""
    values["original_architecture"] = values.get("original_architecture") or "unknown"
    n_heads = values.get("n_heads")
    values["n_heads"] = n_heads if isinstance(n_heads, int) else 0
    values["d_mlp"] = values.get("d_mlp") or 0
    dtype = values.get("dtype")
    values["dtype"] = None if dtype is None else str(dtype).removeprefix("torch.")
    return values
