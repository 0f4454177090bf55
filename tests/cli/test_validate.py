"""`validate` on a tiny model's graph: text, JSON, pipes, and where model and transcoders come from."""

from __future__ import annotations

import io
import json
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from circuit_tracer_cli.cli.graph_model import _model_of, origin, request_of_graph
from circuit_tracer_cli.graph.store import load_graph, save_graph
from circuit_tracer_cli.request import TraceRequest
from tests.cli.conftest import Run, Tiny

SMALL = ("--samples", 4, "--perturbations", 1)


def test_a_report_in_words(run: Run, tiny: Tiny, raw_graph: Path) -> None:
    done = run("validate", raw_graph, *tiny.options, *SMALL)
    assert done.code == 0, done.stderr
    for words in ("Direct effects", "Influence", "KL", "after pruning", "cosine"):
        assert words in done.text
    assert done.text.splitlines()[2].startswith("ok  ")
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
    assert [check["name"] for check in reports[0]["checks"]][:2] == ["direct_effects", "influence"]


def test_a_budget_is_printed_and_kept(run: Run, tiny: Tiny, raw_graph: Path) -> None:
    done = run("validate", raw_graph, *tiny.options, *SMALL, "--budget", "0.001")
    assert done.code == 0, done.stderr
    assert "at most 0.001 s (--budget)" in done.stderr
    assert "direct effects: 1 of 12 measured" in done.text
    assert run("validate", raw_graph, *tiny.options, "--budget", "-1").code == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interruption_prints_what_is_finished(
    run: Run, tiny: Tiny, raw_graph: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("circuit_tracer_cli.validation.report.measure_edges", interrupted)
    more = ["--json"] if as_json else []
    done = run("validate", raw_graph, *tiny.options, *SMALL, *more, "-o", "checked.safetensors")
    assert done.code == 130
    assert not Path("checked.safetensors").exists()
    if as_json:
        report = json.loads(done.stdout)
        assert report["direct"]["agrees"] is True
        assert report["edges"] is None
    else:
        assert "Direct effects" in done.text
        assert "Edges" not in done.text


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
    assert done.stderr.startswith("error: the graph's model has layers 3")


def test_the_report_travels_with_the_graph_through_pipes(run: Run, tiny: Tiny, raw_graph: Path) -> None:
    done = run("validate", *tiny.options, *SMALL, "-o", "-", stdin=raw_graph.read_bytes())
    assert done.code == 0, done.stderr
    assert "Direct effects" in done.stderr
    pruned = run("prune", "-o", "-", stdin=done.stdout)
    assert "validation   20" in pruned.stderr
    assert run("export", "--slug", "tiny", stdin=pruned.stdout).code == 0
    written = json.loads(Path("graph_files/tiny.json").read_text())
    report = written["metadata"]["validation"]
    assert report == load_graph(io.BytesIO(done.stdout)).metadata["validation"]
    assert report["version"] == 1
    assert datetime.fromisoformat(report["date"]).tzinfo is not None
    for check in report["checks"]:
        assert set(check) == {"name", "label", "value", "unit", "verdict", "detail"}
        assert check["verdict"] in ("pass", "warn", "fail", "info")
    assert report["checks"][0]["verdict"] == "pass"


def test_the_report_goes_into_a_graph_file_and_changes_nothing_else(
    run: Run, tiny: Tiny, raw_graph: Path
) -> None:
    assert run("export", raw_graph, "--slug", "tiny").code == 0
    path = Path("graph_files/tiny.json")
    before = json.loads(path.read_text())
    for _ in range(2):
        done = run("validate", raw_graph, *tiny.options, *SMALL, "--save", path)
        assert done.code == 0, done.stderr
    after = json.loads(path.read_text())
    assert after["metadata"].pop("validation")["checks"]
    assert after == before
    assert [entry.suffix for entry in path.parent.iterdir() if entry.suffix == ".tmp"] == []


def test_a_graph_may_take_its_own_report(run: Run, tiny: Tiny, raw_graph: Path) -> None:
    shutil.copy(raw_graph, "own.safetensors")
    done = run("validate", "own.safetensors", *tiny.options, *SMALL, "-q", "-o", "own.safetensors")
    assert done.code == 0, done.stderr
    assert " ok" in run("show", "own.safetensors", "--nodes", 0).text
    before, after = load_graph(raw_graph), load_graph("own.safetensors")
    assert after.metadata.pop("validation")["version"] == 1
    assert after.metadata == before.metadata
    assert (after.adjacency_matrix == before.adjacency_matrix).all()


def test_a_file_that_cannot_take_the_report_is_refused_before_the_work(
    run: Run, tiny: Tiny, raw_graph: Path
) -> None:
    assert run("export", raw_graph, "--slug", "tiny").code == 0
    values = json.loads(Path("graph_files/tiny.json").read_text())
    other = {**values, "metadata": {**values["metadata"], "prompt": "other"}}
    Path("prompt.json").write_text(json.dumps(other))
    feature = next(node for node in values["nodes"] if node["feature_type"] == "cross layer transcoder")
    node = {**feature, "node_id": "2_35_99"}
    Path("nodes.json").write_text(json.dumps({**values, "nodes": [*values["nodes"], node]}))
    Path("plain.json").write_text("{}")
    Path("half.json").write_text('{"metadata": {')
    for name, code, part in (
        ("graph.safetensors", 2, "-o FILE"),
        ("none.json", 1, "circuit-tracer export"),
        ("prompt.json", 1, "another prompt"),
        ("nodes.json", 1, "features that aren't in the graph"),
        ("plain.json", 1, "isn't a viewer file"),
        ("half.json", 1, "half.json: not valid JSON"),
    ):
        done = run("validate", raw_graph, *tiny.options, "--save", name)
        assert (done.code, done.stdout) == (code, b""), name
        assert part in done.stderr
        assert "loading" not in done.stderr


def test_another_set_is_measured_on_the_graphs_own_model(raw_graph: Path, tiny: Tiny) -> None:
    graph = load_graph(raw_graph)
    assert _model_of(graph, "some/set") == str(tiny.model)
    assert _model_of(graph, "demo-plt") is None
    graph.metadata.update(model="user/model", model_revision="step1000")
    assert _model_of(graph, "some/set") == "user/model@step1000"
    graph.metadata["model_commit"] = "c" * 40
    assert _model_of(graph, "some/set") == f"user/model@{'c' * 40}"
    graph.metadata["model"] = str(tiny.model / "gone")
    assert _model_of(graph, "some/set") is None


def test_a_graph_of_a_script_names_its_model_in_its_metadata(raw_graph: Path, tiny: Tiny) -> None:
    """It has no command line that could say it, and the set's own model may be another one."""
    graph = load_graph(raw_graph)
    graph.metadata.pop("command", None)
    nothing = {"transcoder_set": None, "model": None, "dtype": None}
    asked = request_of_graph(TraceRequest(), graph, nothing)
    assert (asked.model, asked.transcoder_set) == (str(tiny.model), str(tiny.transcoders))
    assert request_of_graph(TraceRequest(), graph, nothing | {"model": "user/other"}).model == "user/other"
    assert request_of_graph(TraceRequest(), graph, nothing | {"transcoder_set": "demo"}).model is None
