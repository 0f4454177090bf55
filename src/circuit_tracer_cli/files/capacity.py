"""Free memory, free disk space, and sizes as text. Imports no torch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def size_in_words(n_bytes: float) -> str:
    """Return a number of bytes as text, in powers of 1024 as PyTorch and GPUs count: `512 bytes`, `1.5 GiB`."""
    size, unit = float(n_bytes), 0
    while abs(size) >= 1023.95 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit and abs(size) < 99.95 else f"{size:.0f} {_UNITS[unit]}"


def free_memory(device: torch.device | None = None) -> int:
    """Bytes that are free on a GPU, else in the host's memory without swapping.

    What torch keeps of a CUDA device for its next tensors is free too. Apple's GPU works in the host's memory, of which a process
    may take what Metal recommends.
    """
    import psutil

    host = int(psutil.virtual_memory().available)
    if device is None or device.type not in ("cuda", "mps"):
        return host
    import torch

    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    held = torch.mps.current_allocated_memory()
    kept = torch.mps.driver_allocated_memory() - held
    return max(0, min(host + kept, torch.mps.recommended_max_memory() - held))


def total_memory() -> int:
    """Bytes of the host's memory."""
    import psutil

    return int(psutil.virtual_memory().total)


def free_disk(folder: str | os.PathLike[str]) -> int:
    """Free bytes on the disk of a folder, or of its nearest existing parent."""
    place = Path(folder).absolute()
    return shutil.disk_usage(next(above for above in (place, *place.parents) if above.exists())).free
