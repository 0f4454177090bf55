"""The demo from prompt to viewer, as someone without a terminal sees it."""

from __future__ import annotations

import json
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
    assert (here / "graph_files" / "demo-dallas.safetensors").is_file()
    graph = json.loads((here / "graph_files" / "demo-dallas.json").read_text())
    assert graph["metadata"]["scan"] == f"demo-{kind}"
    assert graph["nodes"]
    assert graph["links"]


def test_another_prompt_by_number_and_as_json(run: Run) -> None:
    done = run("demo", "--prompt-id", "2", "--json", "--quiet")
    assert done.code == 0, done.stderr
    record = json.JSONDecoder().raw_decode(done.text)[0]
    assert record["targets"][0]["token"] == " Sacramento"


def test_the_suggested_commands_run(run: Run, here: Path) -> None:
    suggested = [
        line.removeprefix("next").strip()
        for line in run("demo", "--no-progress").stderr.splitlines()
        if "circuit-tracer show" in line
    ]
    assert len(suggested) == 1
    shown = run(*suggested[0].split()[1:])
    assert shown.code == 0
    assert "Austin" in shown.text
