"""Bounds the phases of a validation in time, and keeps what a phase has measured when it is interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from circuit_tracer_cli.types import Progress, SilentProgress

T = TypeVar("T")


class Phase:
    """One phase: it measures item after item until all are done, its time is up, or it is interrupted.

    Use it as a context manager around the loop: KeyboardInterrupt ends the block and is remembered in `interrupted`, so that the
    items measured before it can be summarized. The first item is always measured.

    Args:
        limit: Seconds; None for no limit.
    """

    def __init__(
        self,
        name: str = "",
        planned: int = 0,
        limit: float | None = None,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.planned, self.limit = name, planned, limit
        self.progress, self.clock = progress or SilentProgress(), clock
        self.done, self.seconds, self.interrupted = 0, 0.0, False
        self._begun = clock()

    def __enter__(self) -> Self:
        self._begun = self.clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.seconds = self.clock() - self._begun
        self.interrupted = isinstance(error, KeyboardInterrupt)
        return self.interrupted

    @property
    def over(self) -> bool:
        """True if something was measured and no time is left."""
        return self.done > 0 and self.limit is not None and self.clock() - self._begun >= self.limit

    @property
    def cut(self) -> bool:
        """True if it ended before everything planned was measured."""
        return self.done < self.planned

    def step(self, count: int = 1) -> None:
        """Report that `count` more items are measured."""
        self.done += count
        self.progress.advance(count)

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items until time is up; an item counts as done when the next one is requested."""
        for item in items:
            if self.over:
                return
            yield item
            self.step()


class Pace:
    """Divides a budget between phases: each gets an equal share of what is left, so unused time goes to later ones.

    Args:
        progress: Progress callback.
        budget: Seconds for all phases together; None for no limit.
        phases: Number of phases that share it.
    """

    def __init__(
        self,
        progress: Progress,
        budget: float | None,
        phases: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.progress, self.budget, self.clock = progress, budget, clock
        self._coming = phases
        self.phases: list[Phase] = []

    def phase(self, name: str, planned: int) -> Phase:
        """Begin a phase of `planned` items."""
        used = sum(phase.seconds for phase in self.phases)
        share = None if self.budget is None else max(0.0, self.budget - used) / max(1, self._coming)
        self._coming -= 1
        self.progress.phase(name, planned)
        begun = Phase(name, planned, share, self.progress, self.clock)
        self.phases.append(begun)
        return begun
