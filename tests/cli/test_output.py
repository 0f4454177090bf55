"""The sink: what goes where, in which form; and what a dead stream does."""

from __future__ import annotations

import io
import json
import sys

import pytest

from circuit_tracer_cli.cli.output import Output, number, quoted, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" Dallas", " Dallas"),
        ("a\nb\tc\r", "a⏎b→c↵"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x00\x7f", "\\x00\\x7f"),
        ("naïve 北京", "naïve 北京"),
        ("\u202eevil", "\\x202eevil"),
        ("\udc80", "\\xdc80"),
    ],
)
def test_visible_text_obeys_nothing(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_visible_text_is_cut() -> None:
    assert visible("abcdefgh", 5) == "abcd…"
    assert visible("abcde", 5) == "abcde"
    assert quoted(" x") == '" x"'


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.000"), (0.1234, "0.123"), (-2.5, "-2.500"), (1e-5, "1.00e-05"), (12345.0, "1.23e+04")],
)
def test_numbers_are_short(value: float, shown: str) -> None:
    assert number(value) == shown


def test_streams(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.result("asked")
    output.note("good to know")
    output.warn("careful")
    out, err = capsys.readouterr()
    assert out == "asked\n"
    assert err == "good to know\nwarning: careful\n"


def test_quiet_keeps_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=True)
    output.note("good to know")
    output.warn("careful")
    assert capsys.readouterr() == ("", "warning: careful\n")


def test_results_make_way_for_a_graph(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(stdout_taken=True)
    output.result("asked")
    output.data({"a": 1})
    output.table("T", ("name", "n#"), [("x", "1")])
    out, err = capsys.readouterr()
    assert out == ""
    assert "asked" in err
    assert '"a": 1' in err
    assert "name" in err


def test_json_keeps_letters(capsys: pytest.CaptureFixture[str]) -> None:
    Output().data({"token": " é北"})
    out, _ = capsys.readouterr()
    assert json.loads(out) == {"token": " é北"}
    assert "é北" in out


def test_tables_align_numbers_and_end_lines_clean(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table("Title", ("name", "n#"), [("[bold]x[/bold]", "1"), ("y", "100")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Title"
    assert lines[2].endswith("    1")
    assert "[bold]x[/bold]" in lines[2]
    assert all(line == line.rstrip() for line in lines)


class Dead(io.StringIO):
    """A terminal that has gone away."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_dead_stderr_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Dead())
    Output().note("nobody reads this")
    Output().warn("nor this")
