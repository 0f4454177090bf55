"""The demo from prompt to viewer, as someone without a terminal sees it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_the_list(run: Run) -> None:
    listed = json.loads(run("demo", "--list", "--json").stdout)
    text = run("demo", "--list").text
    assert listed[0]["id"] == "dallas"
    assert all(entry["id"] in text for entry in listed)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("kind", ["clt", "plt"])
def test_the_whole_way(run: Run, here: Path, kind: str) -> None:
    done = run("demo", "--transcoders", kind, "--no-progress")
    assert done.code == 0, done.stderr
    assert '" Austin"' in done.text
    assert "Strongest paths" in done.text
    assert done.text.splitlines()[-1].startswith("http://127.0.0.1:")
    assert "the viewer answered (200)" in done.stderr
    slug = "demo-dallas" if kind == "clt" else "demo-dallas-plt"
    assert (here / "graph_files" / f"{slug}.safetensors").is_file()
    graph = json.loads((here / "graph_files" / f"{slug}.json").read_text())
    assert graph["metadata"]["scan"] == f"demo-{kind}"
    assert graph["nodes"]
    assert graph["links"]


def test_another_prompt_by_number_and_as_json(run: Run) -> None:
    done = run("demo", "--prompt-id", "2", "--json", "--no-progress")
    assert done.code == 0, done.stderr
    assert json.loads(done.text)["targets"][0]["token"] == " Sacramento"
    assert "http://127.0.0.1:" in done.stderr


def test_the_suggested_commands_run(run: Run, here: Path) -> None:
    lines = [line.removeprefix("next").strip() for line in run("demo", "--no-progress").stderr.splitlines()]
    suggested = [
        shlex.split(line)[1:] for line in lines if line.startswith("circuit-tracer ") and "serve" not in line
    ]
    assert [words[0] for words in suggested] == ["show", "intervene", "demo"]
    for words in suggested:
        done = run(*words)
        assert done.code == 0, done.stderr
        assert "Austin" in done.text
