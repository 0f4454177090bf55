"""Progress: bars on a terminal, lines elsewhere, silence on request."""

from __future__ import annotations

import io
import sys

import pytest

from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.cli.progress import progress_on


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def walk(output: Output, *, bars: bool) -> None:
    with progress_on(output, bars=bars) as progress:
        progress.phase("loading")
        progress.note("something to read")
        progress.phase("rows", 10)
        progress.advance(4)
        progress.advance()


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    walk(Output(), bars=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(" s  loading")
    assert lines[1] == "something to read"
    assert lines[2].endswith(" s  rows (10)")


def test_only_notes_without_progress(capsys: pytest.CaptureFixture[str]) -> None:
    walk(Output(), bars=False)
    assert capsys.readouterr().err == "something to read\n"


def test_silence_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    walk(Output(quiet=True), bars=True)
    assert capsys.readouterr().err == ""


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    walk(Output(), bars=True)
    written = terminal.getvalue()
    assert "something to read" in written
    assert "rows" in written
    assert "5/10" in written


def test_bars_never_reach_stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    walk(Output(), bars=True)
    assert capsys.readouterr().out == ""
