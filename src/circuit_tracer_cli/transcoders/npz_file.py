"""An uncompressed npz file, mapped into memory and read by rows like a safetensors file. Never unpickles."""

from __future__ import annotations

import io
import math
import mmap
import struct
import tokenize
import warnings
import zipfile

import numpy as np
import torch
from numpy.lib import format as npy

from circuit_tracer_cli.errors import BadTranscoders
from circuit_tracer_cli.files.tensors import StoredTensor, TensorFile

_DTYPES = {
    "<f8": torch.float64,
    "<f4": torch.float32,
    "<f2": torch.float16,
    "<i8": torch.int64,
    "<i4": torch.int32,
}
_LOCAL_HEADER = 30  # bytes before the name of a zip member
_MAX_NPY_HEADER = 1024
_MAX_MEMBERS = 64
# numpy parses a header as a Python literal, with a tokenizer pass for old files: each stage has its own errors.
_UNREADABLE_HEADER = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    UserWarning,
    ValueError,
    struct.error,
    tokenize.TokenError,
)


class NpzFile(TensorFile):
    """An open npz file. Raises MissingFile, or BadTranscoders if it can't be read in place."""

    def _read_header(self, data: mmap.mmap) -> dict[str, StoredTensor]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, EOFError) as error:
            raise BadTranscoders(f"{self.path} is truncated or not an npz file: {error}") from None
        if len(members) > _MAX_MEMBERS:
            raise BadTranscoders(f"{self.path} is not a transcoder: it has {len(members)} arrays")
        tensors = [self._tensor(data, member) for member in members]
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise BadTranscoders(f"{self.path} has two arrays of the same name")
        return {tensor.name: tensor for tensor in tensors}

    def _tensor(self, data: mmap.mmap, member: zipfile.ZipInfo) -> StoredTensor:
        name = member.filename.removesuffix(".npy")
        if member.compress_type != zipfile.ZIP_STORED:
            raise BadTranscoders(
                f"{self.path} is compressed, so its rows can't be read in place",
                hint="write it again with numpy.savez instead of savez_compressed",
            )
        start = member.header_offset
        local = data[start : start + _LOCAL_HEADER]
        if len(local) < _LOCAL_HEADER or local[:4] != b"PK\x03\x04":
            raise BadTranscoders(f"{self.path}: array {name!r} isn't where the archive says")
        start += _LOCAL_HEADER + sum(struct.unpack("<HH", local[26:30]))
        dtype, shape, skipped = self._npy_header(data[start : start + _MAX_NPY_HEADER], name)
        stop = start + skipped + math.prod(shape) * dtype.itemsize
        if stop > len(data) or stop - start != member.file_size:
            raise BadTranscoders(
                f"{self.path} is truncated: array {name!r} doesn't have the size that its header says",
                hint="copy or download the file again",
            )
        return StoredTensor(name, dtype, shape, start + skipped, stop)

    def _npy_header(self, head: bytes, name: str) -> tuple[torch.dtype, tuple[int, ...], int]:
        """Dtype, shape and length of an array's own header."""
        stream = io.BytesIO(head)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "error", UserWarning
                )  # a header that would need repair counts as damaged
                version = npy.read_magic(stream)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, by_columns, dtype = read(stream)
        except _UNREADABLE_HEADER:
            raise BadTranscoders(f"{self.path}: array {name!r} has no readable header") from None
        if np.dtype(dtype).str not in _DTYPES or (by_columns and len(shape) > 1):
            raise BadTranscoders(
                f"{self.path}: array {name!r} has a dtype that can't be read in place: {np.dtype(dtype)}"
            )
        return _DTYPES[np.dtype(dtype).str], tuple(int(size) for size in shape), stream.tell()
