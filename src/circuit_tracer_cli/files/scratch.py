"""Arrays too large for memory: kept in unnamed temporary files, mapped, and let go again page by page.

The files have no name, so nothing is left of them however the process ends. Their space is reserved when they are made:
a disk that is full is found then (and the array kept in memory instead), never in the middle of a computation.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

LARGEST_IN_MEMORY = 1 << 26
"""Bytes: a single array over all edges that is larger goes to a file."""

Release = Callable[[], None]


def nothing() -> None:
    """Releases nothing: what lies in memory stays there."""


def released(mapped: mmap.mmap) -> Release:
    """Lets go of the pages of a mapping; they are read again from the file (or the system's cache) when next needed.

    Only for mappings that nobody has written to privately: such changes would be lost.
    """

    def release() -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)

    return release


def scratch_array(
    count: int, dtype: npt.DTypeLike, largest_in_memory: int | None = None
) -> tuple[npt.NDArray[Any], Release]:
    """A new array of `count` zeros, in memory or (beyond the limit) in a file, and what lets go of its pages."""
    kind = np.dtype(dtype)
    size = count * kind.itemsize
    if size > (LARGEST_IN_MEMORY if largest_in_memory is None else largest_in_memory):
        mapped = _mapped_scratch(size)
        if mapped is not None:
            return np.frombuffer(mapped, dtype=kind, count=count), released(mapped)
    return np.zeros(count, dtype=kind), nothing


def scratch_tensor(
    count: int, dtype: torch.dtype, largest_in_memory: int | None = None
) -> tuple[torch.Tensor, Release]:
    """The same as a tensor on the CPU."""
    kind = {torch.int32: np.int32, torch.float32: np.float32, torch.bool: np.bool_}[dtype]
    array, release = scratch_array(count, kind, largest_in_memory)
    return torch.from_numpy(array), release


def _mapped_scratch(size: int) -> mmap.mmap | None:
    """A shared mapping of a new unnamed file with its space reserved, or None where there is no room for it."""
    try:
        with tempfile.TemporaryFile(prefix="circuit-tracer-") as stream:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, size)
            else:
                stream.truncate(size)
            return mmap.mmap(stream.fileno(), size)
    except OSError:
        return None
