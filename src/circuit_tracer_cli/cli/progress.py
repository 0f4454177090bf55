"""Progress of a long call: bars on a terminal, one line per phase elsewhere, nothing with --quiet."""

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
    """Return the progress display that suits stderr: bars only if they are wanted and stderr is a terminal."""
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
    """Shows messages only."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def note(self, message: str) -> None:
        """Print the message."""
        self._output.note(message)


class Lines(NotesOnly):
    """Prints a line when a phase begins, with the seconds since the program started; for logs."""

    def phase(self, name: str, total: int | None = None) -> None:
        """Print the phase's name and its number of steps."""
        steps = f" ({total})" if total else ""
        self._output.note(f"{time.monotonic() - _STARTED:7.1f} s  {name}{steps}")


class Bars:
    """Shows one bar per phase; finished phases stay, with their time."""

    def __init__(self, display: RichProgress, output: Output) -> None:
        self._display = display
        self._output = output
        self._task: TaskID | None = None

    def phase(self, name: str, total: int | None = None) -> None:
        """Close the previous bar and open the next."""
        self._finish()
        self._task = self._display.add_task(name, total=total)

    def advance(self, steps: int = 1) -> None:
        """Move the bar."""
        if self._task is not None:
            self._display.advance(self._task, steps)

    def note(self, message: str) -> None:
        """Print the message above the bars."""
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
