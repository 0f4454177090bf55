"""`diff`, `merge`, `table` and `query` on the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from circuit_tracer_cli.cli.app import run
from circuit_tracer_cli.cli.serve import folder_of_graphs, slug_in
from tests.graph.builders import random_graph


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two raw graphs."""
    for seed, name in ((1, "a"), (2, "b")):
        random_graph(seed=seed).save(tmp_path / f"{name}.safetensors")
    return tmp_path


def test_diff_tells_what_the_contract_promises(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", str(folder / "a.safetensors"), str(folder / "b.safetensors"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {"alignment", "shared", "only_a", "only_b", "pruned_only", "scores", "changes"} <= set(record)
    for change in record["changes"]:
        assert set(change) == {"node", "kind", "a", "b", "by_activation", "by_path"}
        assert change["by_activation"] + change["by_path"] == pytest.approx(change["b"] - change["a"])


def test_diff_is_readable(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["diff", str(folder / "a.safetensors"), str(folder / "b.safetensors"), "--noise", "-n", "3"]) == 0
    )
    shown = capsys.readouterr().out
    assert "alignment    exact" in shown
    assert "by activation" in shown
    assert "≈" in shown


def test_merge_writes_a_graph_that_show_and_diff_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "union.json"
    assert run(["merge", str(folder), "-o", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 2
    assert run(["diff", str(out), str(out)]) == 0
    assert "0 only in A" in capsys.readouterr().out
    assert run(["merge", str(folder), "-o", str(folder / "union.txt")]) == 2
    assert "doesn't end in .json" in capsys.readouterr().err


def test_diff_writes_a_graph_that_the_viewer_opens(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = [str(folder / f"{name}.safetensors") for name in "ab"]
    assert run(["diff", *pair, "-o", str(folder / "both.json")]) == 0
    assert f"serve {folder} --graph both" in capsys.readouterr().err
    assert json.loads((folder / "both.json").read_text())["metadata"]["diff"]["level"] == "exact"
    assert run(["diff", *pair, "-o", str(folder / "both.txt")]) == 2
    assert "doesn't end in .json" in capsys.readouterr().err


def test_a_row_leads_to_its_graph(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb")
    sql = "select slug from graphs order by slug limit 1"
    assert run(["query", str(folder), sql]) == 0
    assert "--graph" not in capsys.readouterr().err  # the viewer has no files here
    graphs = folder / "graphs"
    assert run(["export", str(folder / "a.safetensors"), "--graph-file-dir", str(graphs), "--slug", "a"]) == 0
    capsys.readouterr()
    assert run(["query", str(folder), sql]) == 0
    assert f"serve {folder} --graph a\n" in capsys.readouterr().err
    (folder / "batch.json").write_text("{}")
    (folder / "batch.jsonl").write_text(json.dumps({"graph": "0f", "slug": "a", "prompt": "p"}) + "\n")
    assert folder_of_graphs(folder) == graphs
    assert (
        slug_in(folder, graphs, "0f") == slug_in(graphs, graphs, "0f") == slug_in(folder, graphs, "a") == "a"
    )
    assert run(["serve", str(folder), "--graph", "b"]) == 1
    assert f"{graphs} has no graph b" in capsys.readouterr().err


def test_query_prints_json_csv_and_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb")
    sql = "select graph, n_tokens from graphs order by graph"
    assert run(["query", str(folder), sql, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"graph": "a", "n_tokens": 3},
        {"graph": "b", "n_tokens": 3},
    ]
    assert run(["query", str(folder), sql, "--csv"]) == 0
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [
        ["graph", "n_tokens"],
        ["a", "3"],
        ["b", "3"],
    ]
    assert run(["query", str(folder), sql]) == 0
    assert "n_tokens" in capsys.readouterr().out


def test_bad_calls_say_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb")
    graph = str(folder / "a.safetensors")
    for arguments, code, message in (
        (["diff", graph, str(folder / "absent.pt")], 1, "absent.pt"),
        (["diff", graph, graph, "--target", "9_9_9"], 2, "neither graph has a node 9_9_9"),
        (["query", str(folder), "drop table nodes"], 2, "single SELECT"),
        (["query", str(folder), "select nope from nodes"], 1, "nope"),
        (["table", str(folder / "absent")], 1, "no such folder"),
        (["merge", str(folder), "-o", str(folder / "u.json"), "--by", "city"], 1, "no batch.jsonl"),
    ):
        assert run(arguments) == code, arguments
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
