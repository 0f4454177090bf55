"""The only module that prints. Results go to stdout, notes and warnings to stderr; a closed stderr never stops a computation."""

from __future__ import annotations

import json
import sys
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

_MARKS = {"\n": "⏎", "\t": "→", "\r": "↵"}


def visible(text: str, width: int | None = None) -> str:
    """Return text that is safe to print: without control characters, cut to `width` with an ellipsis."""
    shown = "".join(_MARKS.get(c, c) if c.isprintable() or c in _MARKS else f"\\x{ord(c):02x}" for c in text)
    return shown if width is None or len(shown) <= width else shown[: width - 1] + "…"


def quoted(token: str, width: int | None = None) -> str:
    """Return a token in quotes, so that its leading space is visible."""
    return f'"{visible(token, width)}"'


def number(value: float) -> str:
    """Return a score, weight or probability with few digits, for tables."""
    return f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 1000 else f"{value:.2e}"


@dataclass(frozen=True, slots=True)
class Output:
    """Prints a command's results, notes and warnings.

    Args:
        quiet: Hide notes. Warnings stay.
        stdout_taken: A graph is written to stdout, so results go to stderr.
    """

    quiet: bool = False
    stdout_taken: bool = False

    @property
    def _results(self) -> TextIO:
        return sys.stderr if self.stdout_taken else sys.stdout

    def result(self, text: str = "") -> None:
        """Print a line or paragraph of the result."""
        if self.stdout_taken:
            _to_stderr(text)
        else:
            print(text)

    def data(self, record: Any) -> None:
        """Print the result as JSON."""
        self.result(json.dumps(record, ensure_ascii=False, indent=2))

    def note(self, message: str) -> None:
        """Print a note to stderr."""
        if not self.quiet:
            _to_stderr(message)

    def warn(self, message: str) -> None:
        """Print a warning to stderr, even when quiet."""
        _to_stderr(f"warning: {message}")

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        dim: Container[int] = (),
    ) -> None:
        """Print a table of strings; columns whose name ends in `#` contain numbers. Rows whose index is in `dim` are gray."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=title,
            show_header=any(columns),
            title_justify="left",
            title_style="bold",
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        for column in columns:
            table.add_column(
                column.rstrip("#"),
                justify="right" if column.endswith("#") else "left",
                overflow="fold",
                header_style="dim",
            )
        for number_of_row, row in enumerate(rows):
            table.add_row(*(Text(cell) for cell in row), style="dim" if number_of_row in dim else None)
        console = Console(file=self._results, highlight=False)
        with console.capture() as capture:
            console.print(table)
        self.result("\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n")))


def _to_stderr(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        return
