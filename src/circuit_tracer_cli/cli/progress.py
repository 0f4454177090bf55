"""How far a long call is: bars on a terminal, one line per phase elsewhere, nothing when asked to be quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.types import Progress, SilentProgress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_STARTED = time.monotonic()


@contextmanager
def progress_on(output: Output, *, bars: bool) -> Iterator[Progress]:
    """The progress that suits where stderr goes. Bars only when they're wanted and stderr is a terminal."""
    if output.quiet:
        yield SilentProgress()
    elif not bars:
        yield NotesOnly(output)
    elif sys.stderr.isatty():
        with _rich_progress() as display:
            yield Bars(display, output)
    else:
        yield Lines(output)


class NotesOnly(SilentProgress):
    """Only what the user should read."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def note(self, message: str) -> None:
        """Print it."""
        self._output.note(message)


class Lines(NotesOnly):
    """A line when a phase begins, with the seconds since the program's start: for logs."""

    def phase(self, name: str, total: int | None = None) -> None:
        """Print the phase's name, and how many steps it will take."""
        steps = f" ({total})" if total else ""
        self._output.note(f"{time.monotonic() - _STARTED:7.1f} s  {name}{steps}")


class Bars:
    """One bar per phase on the terminal; finished phases stay, with their time."""

    def __init__(self, display: RichProgress, output: Output) -> None:
        self._display = display
        self._output = output
        self._task: TaskID | None = None

    def phase(self, name: str, total: int | None = None) -> None:
        """Close the bar before, open the next."""
        self._finish()
        self._task = self._display.add_task(name, total=total)

    def advance(self, steps: int = 1) -> None:
        """Move the bar."""
        if self._task is not None:
            self._display.advance(self._task, steps)

    def note(self, message: str) -> None:
        """Print above the bars."""
        self._display.console.print(message, markup=False, highlight=False)

    def _finish(self) -> None:
        if self._task is not None:
            task = self._display.tasks[-1]
            total = task.total if task.total is not None else max(task.completed, 1)
            self._display.update(self._task, total=total, completed=total)


def _rich_progress() -> RichProgress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
