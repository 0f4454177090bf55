"""Rows of a block of targets in whatever memory there is: a block that doesn't fit is halved until it does.

Which features are traced is decided elsewhere and never depends on this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.linear import Targets
from circuit_tracer_cli.attribution.transfer import OnTheWay, sent_to_host


class RowEngine(Protocol):
    """Anything that computes rows."""

    def rows(self, targets: Targets) -> Tensor:
        """Rows of targets sorted by layer from high to low, `(row, columns up to the last position)`."""


@dataclass(slots=True)
class BlockSize:
    """The most rows times positions in one block. Shrinks when memory runs out, and stays small then."""

    work: int
    halvings: int = 0

    def shrink(self, work: int) -> None:
        """Remember that `work` was too much."""
        self.work = max(1, min(self.work, work // 2))
        self.halvings += 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python or torch ran out of memory, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def rows_in_parts(
    engine: RowEngine, targets: Targets, index: Tensor, size: BlockSize
) -> Iterator[tuple[Tensor, OnTheWay]]:
    """The rows of `targets.select(index)` on their way to the host, as `(part of index, rows)`, in the order of `index`.

    Args:
        engine: Computes them.
        targets: From which `index` selects, sorted by layer from high to low.
        index: `(n)` int64.
        size: How large a part may be; shrunk where memory runs out.

    Raises what the engine raises; running out of memory only where a single row doesn't fit.
    """
    parts = [index]
    while parts:
        part = parts.pop()
        work = len(part) * (int(targets.positions[part].max()) + 1)
        if len(part) > 1 and size.halvings and work > size.work:
            parts += reversed(part.chunk(2))
            continue
        rows = _attempt(engine, targets.select(part))
        if rows is None:
            _give_back(targets.vectors.device)
            size.shrink(work)
            parts += reversed(part.chunk(2))
            continue
        yield part, rows


def _attempt(engine: RowEngine, targets: Targets) -> OnTheWay | None:
    """The rows, begun to be copied, or None where they don't fit. What the attempt held is gone when it returns."""
    try:
        return sent_to_host(engine.rows(targets))
    except (MemoryError, RuntimeError) as error:
        if len(targets) == 1 or not is_out_of_memory(error):
            raise
    return None


def _give_back(device: torch.device) -> None:
    """Let an accelerator's allocator return what it keeps in blocks of the old size."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
