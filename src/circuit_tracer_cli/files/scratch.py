"""Arrays too large for memory: in unnamed temporary files, mapped, and released page by page.

The files have no name, so nothing is left of them however the process ends. Their space is reserved when they are made:
a full disk is detected then (and the array kept in memory instead), never in the middle of a computation.
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
"""Size in bytes above which a single array over all edges goes to a file."""

Release = Callable[[], None]


def nothing() -> None:
    """Releases nothing, for arrays in memory."""


def released(mapped: mmap.mmap) -> Release:
    """Releases the pages of a mapping; they are read again from the file (or the system's cache) when next needed.

    Only for mappings that nobody has written to privately: such changes would be lost.
    """

    def release() -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)

    return release


def scratch_array(
    count: int, dtype: npt.DTypeLike, largest_in_memory: int | None = None
) -> tuple[npt.NDArray[Any], Release]:
    """A new array of `count` zeros, in memory or (above the limit) in a file, and the function that releases its pages."""
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
    """A shared mapping of a new unnamed file with its space reserved, or None if there is no room for it."""
    try:
        with tempfile.TemporaryFile(prefix="circuit-tracer-") as stream:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, size)
            else:
                stream.truncate(size)
            return mmap.mmap(stream.fileno(), size)
    except OSError:
        return None
