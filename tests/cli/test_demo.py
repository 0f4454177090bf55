"""The demo from prompt to viewer, as someone without a terminal sees it."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_the_list(run: Run) -> None:
    listed = json.loads(run("demo", "--list", "--json").stdout)
    text = run("demo", "--list").text
    assert listed[0]["id"] == "dallas"
    assert all(entry["id"] in text for entry in listed)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("kind", [pytest.param("clt", marks=pytest.mark.long), "plt"])
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


@pytest.mark.long
def test_another_prompt_by_number_and_as_json(run: Run) -> None:
    done = run("demo", "--prompt-id", "2", "--json", "--no-progress")
    assert done.code == 0, done.stderr
    assert json.loads(done.text)["targets"][0]["token"] == " Sacramento"
    assert "http://127.0.0.1:" in done.stderr


def suggested(stderr: str) -> list[tuple[list[str], str]]:
    """The commands that `demo` suggests, each with what it says that they do."""
    lines = [line.strip() for line in stderr.splitlines()]
    return [
        (shlex.split(line)[1:], after)
        for line, after in pairwise(lines)
        if line.startswith("circuit-tracer ") and "serve" not in line
    ]


@pytest.mark.long
def test_the_suggested_commands_do_what_is_said(run: Run, here: Path) -> None:
    found = suggested(run("demo", "--no-progress").stderr)
    assert [words[0] for words, _ in found] == ["show", "intervene", "intervene", "demo", "demo"]
    for words, effect in found[:3]:
        done = run(*words, *(["--json"] if words[0] == "intervene" else []))
        assert done.code == 0, done.stderr
        assert "Austin" in done.text
        if words[0] == "intervene":
            best = min(json.loads(done.text)["next_token"]["tokens"], key=lambda token: token["rank_after"])
            assert effect.endswith(f'" Austin" becomes "{best["text"]}"')
            assert best["text"] != " Austin"
    assert found[2][1].endswith('" Sacramento"')


@pytest.mark.long
def test_a_group_stands_for_the_place_in_the_viewers_file(run: Run, here: Path) -> None:
    run("demo", "--no-progress", "--quiet")
    graph = json.loads((here / "graph_files" / "demo-dallas.json").read_text())
    ((name, *members),) = graph["qParams"]["supernodes"]
    assert name == "Texas"
    assert set(members) <= {node["node_id"] for node in graph["nodes"]}
    assert len(members) > 3


@pytest.mark.long
@pytest.mark.parametrize("prompt_id", ["antonym-en", "osaka-language"])
def test_another_example_suggests_an_experiment_too(run: Run, here: Path, prompt_id: str) -> None:
    done = run("demo", "--prompt-id", prompt_id, "--no-progress")
    assert " becomes " in done.stderr
    assert (here / "graph_files" / f"demo-{prompt_id}-off.plan").is_file()


@pytest.mark.long
def test_the_check_over_all_facts(run: Run) -> None:
    done = run("demo", "--check", "--json", "--no-progress")
    assert done.code == 0, done.stderr
    outcomes = json.loads(done.text)
    assert [one["asked"] for one in outcomes] == [100, 100, 54]
    for one in outcomes:
        assert one["right"] >= 0.95 * one["asked"]
        assert one["swap_follows"] >= 0.9
        assert one["off_changes"] >= 0.8
        assert one["control_keeps"] >= 0.9
