"""How long the phases of a trace take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from circuit_tracer_cli.types import Progress


class Stopwatch:
    """Seconds per phase, told to a progress display as they begin."""

    clock: Callable[[], float] = staticmethod(time.perf_counter)

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[None]:
        """Time one phase."""
        self.progress.phase(name, total)
        start = self.clock()
        yield
        self.seconds[name] = round(self.clock() - start, 6)
