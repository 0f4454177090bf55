"""`--from` of show, prune and export: the same graph asked about another node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuit_tracer_cli.cli.app import run
from circuit_tracer_cli.graph.store import load_graph
from tests.graph.builders import random_graph


@pytest.fixture
def path(tmp_path: Path) -> str:
    graph = random_graph(seed=3, n_layers=3, n_pos=3, n_features=3)
    graph.save(tmp_path / "g.safetensors")
    return str(tmp_path / "g.safetensors")


def test_show_prune_and_export_explain_the_named_node(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = load_graph(path)
    name = graph.node_id(25)
    layer, feature, position = name.split("_")
    written = f"{layer}/{feature}@{position}"
    assert run(["show", path, "--from", written, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["root"] == name
    assert shown["replacement_score"] == pytest.approx(graph.rooted(25).scores()[0])
    assert {path["nodes"][-1] for path in shown["strongest_paths"]} == {name}
    assert run(["show", path, "--from", name]) == 0
    assert f"explains     {written}" in capsys.readouterr().out
    pruned = str(tmp_path / "p.safetensors")
    assert run(["prune", path, "--from", name, "-o", pruned, "-q"]) == 0
    assert load_graph(pruned).root == 25
    folder = tmp_path / "out"
    files = []
    for source, more in ((path, ["--from", name]), (pruned, [])):
        assert run(["export", source, *more, "--slug", "g", "--graph-file-dir", str(folder), "-q"]) == 0
        files.append(json.loads((folder / "g.json").read_text()))
    assert files[0]["nodes"] == files[1]["nodes"]
    assert files[0]["links"] == files[1]["links"]


def test_a_pruned_graph_takes_another_root_but_no_other_thresholds(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pruned = str(tmp_path / "p.safetensors")
    assert run(["prune", path, "-o", pruned, "-q"]) == 0
    kept = load_graph(pruned)
    assert kept.pruning is not None
    feature = kept.node_id(int(kept.pruning.node_mask[:27].nonzero()[-1]))
    assert run(["show", pruned, "--from", feature]) == 0
    assert "cover only what is left" in capsys.readouterr().err
    assert run(["export", pruned, "--from", feature, "--node-threshold", "0.5", "--slug", "x"]) == 1
    assert "start from the raw graph" in capsys.readouterr().err
    assert run(["show", path, "--from", "E_5_0"]) == 1
    assert "has no inputs to explain" in capsys.readouterr().err
