"""Help and the ways to write an option."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from circuit_tracer_cli.cli.app import app
from tests.cli.conftest import Run

TREE = typer.main.get_command(app)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, the program and the groups included."""
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


def long_options() -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """Every long option with a hyphen inside its name, and whether it's a flag."""
    for path in commands(TREE):
        command: Any = TREE
        for word in path:
            command = command.commands[word]
        for parameter in command.params:
            for name in (*parameter.opts, *parameter.secondary_opts):
                if name.startswith("--") and "-" in name[2:]:
                    yield path, name, parameter.is_flag


OPTIONS = list(long_options())


@pytest.mark.parametrize("path", list(commands(TREE)), ids=" ".join)
def test_help_goes_to_stdout_and_fits(run: Run, path: tuple[str, ...]) -> None:
    for flag in ("--help", "-h"):
        done = run(*path, flag)
        assert done.code == 0
        assert done.stderr == ""
        assert done.text.startswith("Usage: circuit-tracer")
        assert max(map(len, done.text.splitlines())) <= 80


def test_there_are_options_to_check() -> None:
    names = {name for _, name, _ in OPTIONS}
    assert {"--graph-file-dir", "--no-lazy-encoder", "--max-n-logits", "--features-dir"} <= names


@pytest.mark.parametrize(
    ("path", "name", "is_flag"), OPTIONS, ids=[" ".join((*path, name)) for path, name, _ in OPTIONS]
)
def test_every_option_may_have_underscores(run: Run, path: tuple[str, ...], name: str, is_flag: bool) -> None:
    """The parser stops at the first option that it doesn't know: that must be the last one, not the one before."""
    spelled = "--" + name[2:].replace("-", "_")
    done = run(*path, spelled, *([] if is_flag else ["1"]), "--no-such-option")
    assert done.code == 2
    assert done.stderr.startswith("error: no such option: --no-such-option")


def test_the_alias_is_the_same_command(run: Run) -> None:
    ours, reference = run("serve", "--help").text, run("start-server", "--help").text
    assert ours.split("\n", 1)[1] == reference.split("\n", 1)[1]
    assert run("start_server", "--help").code == 0
