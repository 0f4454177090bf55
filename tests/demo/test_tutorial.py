"""Every command of the tutorial, run in its order in one folder, as the reader runs it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"


def command_lines() -> list[list[str]]:
    """The words of each command in a shell block."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def run(words: list[str], folder: Path) -> str:
    assert words[0] == "circuit-tracer"
    done = subprocess.run(
        [sys.executable, "-m", "circuit_tracer_cli", *words[1:]],
        cwd=folder,
        env={**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
    return done.stdout


def test_the_page_shows_every_step() -> None:
    steps = [words[1] for words in command_lines()]
    assert steps == [
        "demo", "show", "intervene", "intervene", "intervene", "demo", "validate", "attribute", "show"
    ]  # fmt: skip


@pytest.mark.long
def test_every_command_of_the_tutorial_runs(tmp_path: Path) -> None:
    printed = [run(words, tmp_path) for words in command_lines()]
    traced, shown, group_off, all_off, swapped, checked, _, _, oakland = printed
    assert "Texas" in traced
    assert "Strongest paths" in shown
    for text in (group_off, all_off):
        assert most_likely(text) != " Austin"
    assert most_likely(swapped) == " Sacramento"
    assert "swapped" in checked
    assert "Sacramento - Austin" in oakland
    plan = json.loads((tmp_path / "graph_files" / "demo-dallas-swap.plan").read_text())
    assert plan["freeze_attention"] is False


def most_likely(text: str) -> str:
    """The token of the first row under "Next token"."""
    rows = text[text.index("Next token") :].splitlines()
    return rows[2][1 : rows[2].index('"', 1)]
