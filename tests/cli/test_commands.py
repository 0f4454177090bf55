"""Each command does what the contract says, on a tiny random model: files, pipes, summaries, JSON."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import PROMPT, Finished, Run, Tiny


def as_json(done: Finished) -> dict[str, object]:
    assert done.code == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture
def attribute(run: Run, tiny: Tiny) -> Run:
    """`attribute` on the tiny model."""

    def call(*arguments: object, stdin: bytes = b"") -> Finished:
        done = run("attribute", *tiny.options, "--max-n-logits", 3, *arguments, stdin=stdin)
        assert done.code == 0, done.stderr
        return done

    return call


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_attribute_writes_a_raw_graph(attribute: Run, here: Path, suffix: str) -> None:
    done = attribute("-p", PROMPT, "-o", f"graph{suffix}")
    from circuit_tracer_cli.graph.store import load_graph

    graph = load_graph(here / f"graph{suffix}")
    assert graph.pruning is None
    assert graph.metadata["command"].startswith("circuit-tracer attribute ")
    assert done.stdout == b""
    assert "next: circuit-tracer show" in done.stderr
    assert [path.name for path in here.iterdir()] == [f"graph{suffix}"]


def test_attribute_writes_to_a_pipe(attribute: Run, here: Path) -> None:
    done = attribute("-p", PROMPT, "-o", "-")
    assert b"circuit-tracer-graph" in done.stdout[:4096]
    assert list(here.iterdir()) == []


def test_attribute_refuses_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    done = run("attribute", "-p", PROMPT, "-o", "-")
    assert done.code == 2
    assert "terminal" in done.stderr
    assert "hint: " in done.stderr


def test_a_prompt_from_stdin(attribute: Run, here: Path) -> None:
    attribute("-p", PROMPT, "-o", "given.safetensors")
    attribute("-p", "-", "-o", "piped.safetensors", stdin=f"{PROMPT}\n".encode())
    from circuit_tracer_cli.graph.store import load_graph

    given, piped = load_graph(here / "given.safetensors"), load_graph(here / "piped.safetensors")
    assert given.input_tokens.tolist() == piped.input_tokens.tolist()


@pytest.mark.parametrize(
    ("options", "file"),
    [
        (["--slug", "mine"], "graph_files/mine.json"),
        (["--graph-file-dir", "there"], "there/3-41-7-7-19-30.json"),
        (["--graph_file_dir", "there", "--slug", "mine"], "there/mine.json"),
    ],
)
def test_attribute_writes_graph_files(attribute: Run, here: Path, options: list[str], file: str) -> None:
    done = attribute("-p", PROMPT, *options)
    written = json.loads((here / file).read_text())
    listed = json.loads((here / file).with_name("graph-metadata.json").read_text())["graphs"]
    assert written["metadata"]["slug"] == listed[0]["slug"] == Path(file).stem
    assert written["metadata"]["pruning_settings"] == {"node_threshold": 0.8, "edge_threshold": 0.98}
    assert "next: circuit-tracer serve" in done.stderr


def test_attribute_obeys_its_thresholds(attribute: Run, here: Path) -> None:
    attribute("-p", PROMPT, "--slug", "few", "--node_threshold", "0.3", "--edge_threshold", "0.5")
    attribute("-p", PROMPT, "--slug", "many", "--node-threshold", "1", "--edge-threshold", "1")
    few, many = (json.loads((here / f"graph_files/{slug}.json").read_text()) for slug in ("few", "many"))
    assert few["metadata"]["pruning_settings"] == {"node_threshold": 0.3, "edge_threshold": 0.5}
    assert 0 < len(few["links"]) < len(many["links"])


def test_a_reference_command_line_runs_unchanged(attribute: Run, here: Path) -> None:
    options = "--graph_output_path g.pt --dtype fp32 --max_n_logits 4 --desired_logit_prob 0.9 --batch_size 8 --offload cpu"
    more = "--max_feature_nodes 12 --verbose --lazy-encoder --lazy-decoder --backend transformerlens --slug s"
    last = "--graph_file_dir d --node_threshold 0.7 --edge_threshold 0.9"
    attribute("--prompt", PROMPT, *options.split(), *more.split(), *last.split())
    assert {path.name for path in here.iterdir()} == {"g.pt", "d"}


@pytest.mark.parametrize("quiet", [[], ["--quiet"], ["--no-progress"]])
def test_a_set_read_at_the_wrong_hook_warns_even_when_quiet(run: Run, here: Path, quiet: list[str]) -> None:
    from circuit_tracer_cli.transcoders.references import LocalReference, resolve

    shipped = resolve("demo-plt")
    assert isinstance(shipped, LocalReference)
    wrong = here / "wrong"
    wrong.mkdir()
    for path in shipped.folder.iterdir():
        if path.suffix == ".safetensors":
            (wrong / path.name).symlink_to(path)
    config = (shipped.folder / "config.yaml").read_text()
    (wrong / "config.yaml").write_text(config.replace("mlp.hook_in", "hook_resid_mid"))
    prompt = ["attribute", "-p", "The opposite of small is", "--max-feature-nodes", "4", "-o", "g.pt", *quiet]
    assert "warning" not in run(*prompt).stderr
    assert run(*prompt, "-t", str(wrong)).stderr.count("warning: the transcoders reconstruct little") == 1


@pytest.mark.parametrize("offload", ["None", "none", "auto", "cpu", "disk"])
def test_offload_in_any_case(attribute: Run, here: Path, offload: str) -> None:
    attribute("-p", PROMPT, "-o", "g.pt", "--offload", offload)
    assert (here / "g.pt").is_file()


@pytest.mark.parametrize(
    "words", [["--no_lazy_encoder", "--no_lazy_decoder"], ["--lazy_encoder", "--no-lazy-decoder"]]
)
def test_lazy_or_not_gives_the_same(attribute: Run, here: Path, words: list[str]) -> None:
    from circuit_tracer_cli.graph.store import load_graph

    attribute("-p", PROMPT, "-o", "auto.pt")
    attribute("-p", PROMPT, "-o", "chosen.pt", *words)
    auto, chosen = load_graph(here / "auto.pt"), load_graph(here / "chosen.pt")
    assert (auto.adjacency_matrix - chosen.adjacency_matrix).abs().max() < 1e-5


def test_targets_are_taken_in_order(attribute: Run, here: Path) -> None:
    from circuit_tracer_cli.graph.store import load_graph

    attribute("-p", PROMPT, "-o", "g.pt", "--target", "7", "--target", "id:12")
    assert [target.vocab_idx for target in load_graph(here / "g.pt").logit_targets] == [7, 12]


def test_a_completion_has_a_target_for_each_of_its_tokens(attribute: Run, here: Path) -> None:
    from circuit_tracer_cli.graph.store import load_graph

    done = attribute("-p", PROMPT, "-o", "g.pt", "--completion", " 7 5")
    graph = load_graph(here / "g.pt")
    ends = [
        (target.vocab_idx, place.position)
        for target, place in zip(graph.logit_targets, graph.places, strict=True)
    ]
    assert ends == [(7, graph.n_pos - 2), (5, graph.n_pos - 1)]
    assert graph.input_tokens[-1] == 7
    assert f"@{graph.n_pos - 2}" in done.stderr


def test_the_summary_says_what_came_out(attribute: Run) -> None:
    done = attribute("-p", PROMPT, "-o", "g.pt")
    for word in (
        "targets",
        "predictions",
        "active features",
        "replacement",
        "completeness",
        "written      g.pt",
    ):
        assert word in done.stderr
    assert max(map(len, done.stderr.splitlines())) <= 110


def test_progress_is_lines_where_there_is_no_terminal(attribute: Run) -> None:
    assert " s  loading" in attribute("-p", PROMPT, "-o", "g.pt").stderr
    assert " s  loading" not in attribute("-p", PROMPT, "-o", "g.pt", "--no-progress").stderr


def test_quiet_says_nothing(attribute: Run) -> None:
    assert attribute("-p", PROMPT, "-o", "g.pt", "--quiet").stderr == ""


def test_a_pipe_and_a_direct_call_give_the_same_json(attribute: Run, run: Run, here: Path) -> None:
    raw = attribute("-p", PROMPT, "-o", "-").stdout
    pruned = run("prune", "-o", "-", stdin=raw)
    assert pruned.code == 0
    assert run("export", "--slug", "x", "--graph-file-dir", "piped", stdin=pruned.stdout).code == 0
    attribute("-p", PROMPT, "--slug", "x", "--graph-file-dir", "direct")
    piped, direct = (json.loads((here / name / "x.json").read_text()) for name in ("piped", "direct"))
    for record in (piped, direct):
        record["metadata"]["info"].pop("create_time_ms", None)
    assert piped == direct


def test_prune_reports_what_stays(run: Run, here: Path, raw_graph: Path) -> None:
    report = as_json(run("prune", raw_graph, "--json"))
    counts = report["counts"]
    assert isinstance(counts, dict)
    assert isinstance(report["edges_before"], int)
    assert 0 < counts["edges"] < report["edges_before"]
    assert report["pruning"] == {"node_threshold": 0.8, "edge_threshold": 0.98}
    assert list(here.iterdir()) == []
    text = run("prune", raw_graph).text
    assert f"{counts['edges']:,} edges" in text
    assert "replacement" in text


def test_prune_to_a_pipe_reports_on_stderr(run: Run, raw_graph: Path) -> None:
    done = run("prune", raw_graph, "-o", "-")
    assert b"circuit-tracer-graph" in done.stdout[:4096]
    assert "replacement" in done.stderr
    assert run("prune", raw_graph, "-o", "-", "--quiet").stderr == ""


def test_show_a_raw_and_a_pruned_graph(run: Run, raw_graph: Path) -> None:
    pruned = run("prune", raw_graph, "-o", "-").stdout
    raw, kept = as_json(run("show", raw_graph, "--json")), as_json(run("show", "-", "--json", stdin=pruned))
    assert raw["pruning"] is None
    assert kept["pruning"]
    for name in ("replacement_score", "completeness_score", "prompt", "targets", "predictions"):
        assert raw[name] == kept[name]
    predictions = raw["predictions"]
    assert isinstance(predictions, list)
    assert [set(entry) for entry in predictions] == [{"token", "id", "probability"}] * 10
    assert "predictions  " in run("show", raw_graph).text


def test_show_a_graph_without_predictions(run: Run, here: Path, raw_graph: Path) -> None:
    from circuit_tracer_cli.graph.store import load_graph, save_graph

    graph = load_graph(raw_graph)
    del graph.metadata["top_predictions"]
    save_graph(graph, here / "older.safetensors")
    assert "predictions" not in run("show", "older.safetensors").text
    assert as_json(run("show", "older.safetensors", "--json"))["predictions"] == []


def test_show_lists_as_many_as_asked_for(run: Run, raw_graph: Path) -> None:
    shown = as_json(run("show", raw_graph, "--json", "--nodes", "4", "--paths", "2", "--edges", "3"))
    assert isinstance(shown["strongest_edges"], list)
    assert [0 <= edge["stability"] <= 1 for edge in shown["strongest_edges"]] == [True] * 3
    assert "kept by prunings" in run("show", raw_graph, "--edges", "3").text
    assert isinstance(shown["strongest_nodes"], list)
    assert isinstance(shown["strongest_paths"], list)
    assert (len(shown["strongest_nodes"]), len(shown["strongest_paths"])) == (4, 2)
    shares = [path["share"] for path in shown["strongest_paths"]]
    assert shares == sorted(shares, reverse=True)


def test_show_fits_eighty_columns(run: Run, raw_graph: Path) -> None:
    text = run("show", raw_graph).text
    assert "Strongest nodes" in text
    assert "Strongest paths" in text
    assert "path (share of the whole graph)" in text
    tables = text[text.index("Strongest nodes") :].splitlines()
    assert max(map(len, tables)) <= 80
    assert all(line == line.rstrip() for line in tables)


def test_control_characters_of_a_graph_are_not_obeyed(run: Run, raw_graph: Path, here: Path) -> None:
    from circuit_tracer_cli.graph.store import load_graph, save_graph

    graph = load_graph(raw_graph)
    graph.input_string = "\x1b]0;owned\x07\x1b[2J"
    graph.metadata["prompt_tokens"] = ["\x1b[31m"] * graph.n_pos
    graph.logit_targets = [target._replace(token_str="\x1b[1m") for target in graph.logit_targets]
    save_graph(graph, here / "g.safetensors")
    done = run("show", "g.safetensors")
    assert done.code == 0
    assert b"\x1b" not in done.stdout
    assert b"\x07" not in done.stdout


@pytest.mark.parametrize(
    ("format_", "suffixes"),
    [("json", {".json"}), ("html", {".html"}), ("graphml", {".graphml"}), ("csv", {".csv"})],
)
def test_export_prints_what_it_wrote(
    run: Run, raw_graph: Path, here: Path, format_: str, suffixes: set[str]
) -> None:
    done = run("export", raw_graph, "--format", format_, "--slug", "mine")
    assert done.code == 0, done.stderr
    paths = [here / line for line in done.text.splitlines()]
    assert paths
    assert all(path.stat().st_size > 0 for path in paths)
    assert {path.suffix for path in paths} == suffixes
    assert {path.parent.name for path in paths} <= {"graph_files", "mine"}


def test_export_takes_a_pruned_graph_as_it_is(run: Run, raw_graph: Path, here: Path) -> None:
    pruned = run("prune", raw_graph, "--node-threshold", "0.5", "-o", "-").stdout
    assert run("export", "--slug", "x", stdin=pruned).code == 0
    metadata = json.loads((here / "graph_files" / "x.json").read_text())["metadata"]
    assert metadata["pruning_settings"]["node_threshold"] == 0.5


def test_a_graph_from_a_named_pipe(run: Run, raw_graph: Path, here: Path) -> None:
    """As `show <(zcat graph.gz)` gives it."""
    fifo = here / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(raw_graph.read_bytes()))
    writer.start()
    done = run("show", fifo)
    writer.join()
    assert done.code == 0, done.stderr
    assert done.stdout == run("show", raw_graph).stdout


def test_export_invents_a_name(run: Run, raw_graph: Path, here: Path) -> None:
    done = run("export", raw_graph)
    assert done.code == 0
    path = here / done.text.splitlines()[0]
    assert path.is_file()
    assert path.stem.replace("-", "").startswith("03417")


def test_doctor(run: Run) -> None:
    report = as_json(run("doctor", "--json"))
    versions, parts = report["versions"], report["parts"]
    assert isinstance(versions, dict)
    assert isinstance(parts, dict)
    assert versions["torch"]
    assert versions["circuit-tracer-cli"]
    assert parts["viewer"]
    text = run("doctor").text
    assert "torch" in text
    assert "Devices" in text or "devices" in text


@pytest.mark.parametrize("name", ["--version"])
def test_version(run: Run, name: str) -> None:
    import circuit_tracer_cli

    assert run(name).text == f"circuit-tracer {circuit_tracer_cli.__version__}\n"


def test_doctor_lists_the_models(run: Run) -> None:
    records = as_json(run("doctor", "--models", "--json"))
    listed = {row["architecture"]: row for row in records["models"]}
    assert listed["GPTJForCausalLM"]["feature_inputs"] == [
        "ln2.hook_normalized",
        "ln2.hook_out",
        "mlp.hook_in",
    ]
    assert listed["Gemma2ForCausalLM"]["modules"]["ln2_post"].endswith(".post_feedforward_layernorm")
    text = run("doctor", "--models").text
    assert all(row["models"].split(",")[0] in text for row in records["models"])
    assert "all but OLMo 2" in text
    assert max(map(len, text.splitlines())) <= 80


def test_group_writes_supernodes_for_the_viewer_and_keeps_those_of_people(
    run: Run, raw_graph: Path, here: Path
) -> None:
    raw = str(raw_graph)
    assert run("group", raw, "--json").code == 2
    done = run("group", raw, "--level", "0", "-o", "grouped.json", "--json")
    assert done.code == 0
    found = json.loads(done.stdout)["groups"]
    written = json.loads((here / "grouped.json").read_bytes())
    assert [[group["name"], *group["nodes"]] for group in found] == written["qParams"]["supernodes"]
    assert written["metadata"]["grouping"]["level"] == 0
    features = [node["node_id"] for node in written["nodes"] if node["activation"] is not None][:2]
    written["qParams"]["supernodes"] = [["mine", *features]]
    (here / "grouped.json").write_text(json.dumps(written))
    again = json.loads(run("group", "grouped.json", "-o", "grouped.json", "--json").stdout)["groups"]
    mine = next(group for group in again if group["name"] == "mine")
    assert set(features) <= set(mine["nodes"])
    assert mine["kept"] is True
    anew = json.loads(run("group", "grouped.json", "--no-keep", "-o", "other.json", "--json").stdout)[
        "groups"
    ]
    assert "mine" not in [group["name"] for group in anew]
    assert run("group", "grouped.json", "--measure", "-o", "x.json").code == 2
    assert run("group", "grouped.json", "-o", "x.safetensors").code == 2


def test_grouping_a_raw_graph_again_replaces_what_an_earlier_run_wrote(
    run: Run, raw_graph: Path, here: Path
) -> None:
    raw, path = str(raw_graph), here / "grouped.json"

    def grouped(*options: str) -> list[list[str]]:
        done = run("group", raw, "-o", "grouped.json", "--json", *options)
        assert done.code == 0, done.stderr
        return [[one["name"], *one["nodes"]] for one in json.loads(done.stdout)["groups"]]

    def annotated() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(path.read_bytes())["qParams"]
        return found

    first = grouped("--level", "0")
    second = grouped("--level", "0.9")
    assert first != second
    assert annotated()["supernodes"] == second
    document = json.loads(path.read_bytes())
    features = [node["node_id"] for node in document["nodes"] if node["activation"] is not None]
    token = next(node["node_id"] for node in document["nodes"] if node["feature_type"] == "embedding")
    document["qParams"] |= {
        "pinnedIds": [token],
        "supernodes": [["mine", *features[:2]]],
        "clerps": [["1", "a"]],
    }
    path.write_text(json.dumps(document))
    third = grouped("--level", "0.9")
    assert annotated()["supernodes"] == third
    assert {"mine"} <= {name for name, *_ in third}
    assert token in annotated()["pinnedIds"]
    assert annotated()["clerps"] == [["1", "a"]]
    anew = grouped("--level", "0.9", "--no-keep")
    assert annotated()["supernodes"] == anew == second


def test_export_says_where_groups_made_by_hand_keep_automatic_ones_out(
    run: Run, raw_graph: Path, here: Path
) -> None:
    assert run("group", str(raw_graph), "--level", "0", "-o", "g.safetensors").code == 0
    assert run("export", "g.safetensors", "--slug", "g", "--graph-file-dir", ".").code == 0
    document = json.loads((here / "g.json").read_bytes())
    automatic = document["qParams"]["supernodes"]
    assert automatic
    name, *nodes = max(automatic, key=len)
    assert len(nodes) > 1, name
    document["qParams"]["supernodes"] = [
        ["mine", nodes[0], *(n for _, *ns in automatic if ns != nodes for n in ns[:1])]
    ]
    document["metadata"]["grouping"]["level"] = 0.5
    (here / "g.json").write_text(json.dumps(document))
    done = run("export", "g.safetensors", "--slug", "g", "--graph-file-dir", ".")
    assert "keeps its groups that were made by hand" in done.stderr
    assert json.loads((here / "g.json").read_bytes())["qParams"]["supernodes"][0][0] == "mine"


def test_edges_without_a_finite_weight_stay_counted(run: Run, raw_graph: Path, here: Path) -> None:
    """Through export, group, diff and table, which see the graph without them."""
    assert run("export", str(raw_graph), "--slug", "odd", "--graph-file-dir", ".").code == 0
    document = json.loads((here / "odd.json").read_bytes())
    document["links"][0]["weight"] = float("nan")
    document["qk_only_nodes"] = {"0_1_1": {"node_id": "0_1_1"}}
    (here / "odd.json").write_text(json.dumps(document))
    for command in (["group", "odd.json", "-o", "odd.json"], ["diff", "odd.json", "odd.json"]):
        done = run(*command)
        assert done.code == 0, done.stderr
        assert "odd.json: left out an edge whose weight is NaN or infinite" in done.stderr
    written = json.loads((here / "odd.json").read_bytes())
    assert written["metadata"]["edges_left_out"] == 1
    assert written["qk_only_nodes"] == document["qk_only_nodes"]
