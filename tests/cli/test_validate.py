"""`validate` on a tiny model's graph: text, JSON, pipes, and where model and transcoders come from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from circuit_tracer_cli.cli.validate import origin
from circuit_tracer_cli.graph.store import load_graph, save_graph
from tests.cli.conftest import Run, Tiny

SMALL = ("--samples", 4, "--perturbations", 1)


def test_a_report_in_words(run: Run, tiny: Tiny, raw_graph: Path) -> None:
    done = run("validate", raw_graph, *tiny.options, *SMALL)
    assert done.code == 0, done.stderr
    for words in ("they agree", "Spearman", "KL", "errors kept", "cosine"):
        assert words in done.text
    assert max(map(len, done.text.splitlines())) <= 80
    assert "perturbations (2)" in done.stderr


def test_json_repeats_for_a_seed(run: Run, tiny: Tiny, raw_graph: Path) -> None:
    reports = [
        json.loads(run("validate", raw_graph, *tiny.options, *SMALL, "--json", "-q", "--seed", seed).stdout)
        for seed in (1, 1, 2)
    ]
    assert reports[0] == reports[1] != reports[2]
    assert reports[0]["direct"]["agrees"] is True
    assert set(reports[0]) >= {"direct", "ablation", "edges", "faithfulness", "scores", "precision"}


def test_a_pruned_graph_through_a_pipe(run: Run, tiny: Tiny, raw_graph: Path) -> None:
    assert run("prune", raw_graph, "-o", "pruned.safetensors").code == 0
    done = run("validate", *tiny.options, *SMALL, "--json", stdin=Path("pruned.safetensors").read_bytes())
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["scores"]["errors_kept"] is None


def test_a_graph_names_its_transcoders_by_its_command(run: Run, tiny: Tiny) -> None:
    shutil.copytree(tiny.transcoders, "my set")
    made = run("attribute", "-t", "my set", "-p", "3 42 7", "-o", "g.safetensors")
    assert made.code == 0, made.stderr
    done = run("validate", "g.safetensors", *SMALL)
    assert done.code == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("circuit-tracer attribute -p x -t 'my set' -m there", ("my set", "there")),
        ("circuit-tracer attribute --transcoder_set=a --model b", ("a", "b")),
        ("circuit-tracer attribute -p x", ("demo", None)),
        ("circuit-tracer attribute -p x -tdemo-plt", ("demo-plt", None)),
        ("script.py", (None, None)),
        ("'", (None, None)),
        (None, (None, None)),
    ],
)
def test_origin(raw_graph: Path, command: str | None, expected: tuple[str | None, str | None]) -> None:
    graph = load_graph(raw_graph)
    graph.metadata["command"] = command
    graph.metadata.get("transcoders", {}).pop("reference", None)
    assert origin(graph) == expected


def test_a_graph_that_names_nothing_needs_a_flag(run: Run, raw_graph: Path) -> None:
    graph = load_graph(raw_graph)
    graph.metadata.clear()
    save_graph(graph, Path("bare.safetensors"))
    done = run("validate", "bare.safetensors")
    assert done.code == 1
    assert "--transcoder-set" in done.stderr


def test_another_set_is_refused(run: Run, tiny: Tiny, raw_graph: Path) -> None:
    done = run("validate", raw_graph, "-t", "demo", "-q")
    assert (done.code, done.stdout) == (1, b"")
    assert done.stderr.startswith("error: the graph comes from a model with layers 3")
