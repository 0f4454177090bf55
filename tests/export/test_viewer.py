from __future__ import annotations

import gzip
import json
import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import given, settings

from circuit_tracer_cli.errors import BadGraphFile, InvalidValue, OutputError, UsageError
from circuit_tracer_cli.export import Destination
from circuit_tracer_cli.export.graph_json import read_graph_json
from circuit_tracer_cli.export.viewer import (
    create_graph_files,
    export,
    prompt_tokens_of,
    scan_names,
    with_scan,
)
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.graph.store import load_graph
from circuit_tracer_cli.types import LogitTarget
from tests.graph.builders import golden_case, golden_names, graphs, random_graph, worked_example

SCHEMA = json.loads((Path(__file__).parent / "neuronpedia.schema.json").read_text(encoding="utf-8"))


def created(graph: Graph, folder: Path, slug: str = "graph", **arguments: Any) -> dict[str, Any]:
    """The graph file that is written, checked against the schema."""
    path, listed = create_graph_files(graph, slug, folder, **arguments)
    assert (path.name, listed.name) == (f"{slug}.json", "graph-metadata.json")
    values: dict[str, Any] = json.loads(path.read_bytes())
    jsonschema.validate(values, SCHEMA)
    return values


@settings(max_examples=30)
@given(graphs())
def test_every_file_is_valid(tmp_path_factory: pytest.TempPathFactory, graph: Graph) -> None:
    values = created(graph, tmp_path_factory.mktemp("graphs"))
    ids = [node["node_id"] for node in values["nodes"]]
    assert len(set(ids)) == len(ids)
    ends = {end for link in values["links"] for end in (link["source"], link["target"])}
    assert ends <= set(ids)
    inner = {n["node_id"] for n in values["nodes"] if n["feature_type"] not in ("embedding", "logit")}
    assert inner <= ends
    kinds = [node["feature_type"] for node in values["nodes"]]
    assert kinds.count("embedding") == graph.n_pos
    assert kinds.count("logit") == len(graph.logit_targets)
    assert [node["is_target_logit"] for node in values["nodes"]].count(True) == 1


def test_predictions_are_carried_where_there_are_any(tmp_path: Path) -> None:
    said = [
        {"token": " Austin", "id": 7, "probability": 0.75},
        {"token": " the", "id": 9, "probability": 0.125},
    ]
    graph = worked_example()
    assert "top_predictions" not in created(graph, tmp_path)["metadata"]
    for damaged in ("none", [], [*said, {"token": 3}], [{**said[0], "id": True}]):
        graph.metadata["top_predictions"] = damaged
        assert "top_predictions" not in created(graph, tmp_path)["metadata"]
    graph.metadata["top_predictions"] = said
    assert created(pruned_graph(graph, 0.8, 0.98), tmp_path)["metadata"]["top_predictions"] == said
    listed = json.loads((tmp_path / "graph-metadata.json").read_text())["graphs"]
    assert [entry["top_predictions"] for entry in listed] == [said]


def test_proposed_labels_are_copied_into_nodes(tmp_path: Path) -> None:
    graph = worked_example()
    node = next(one["node_id"] for one in created(graph, tmp_path)["nodes"] if one["activation"] is not None)
    layer, feature, _ = node.split("_")
    known = {f"{layer}/{feature}": {"promotes": [[" Texas", 6.0]], "suppresses": [[" is", -1.0]]}}
    graph.metadata["proposed_labels"] = {"features": known, "drivers": {node: [[1, 0.5]]}}
    file = created(graph, tmp_path)
    found = {one["node_id"]: one["proposed_label"] for one in file["nodes"] if "proposed_label" in one}
    assert list(found) == [node]
    assert found[node]["text"].endswith("→ Texas")
    assert found[node]["driven_by"][0][1:] == [1, 0.5]
    assert all(one["clerp"] == "" for one in file["nodes"] if one["feature_type"] != "logit")


def test_what_is_damaged_of_attention_is_left_out(tmp_path: Path) -> None:
    graph = worked_example()
    node = created(graph, tmp_path)["nodes"][0]["node_id"]
    good = {"pair_wise_contributors": [["0_1_0", "E_3_1", 0.5]]}
    sides = {f"top_{side}_marginal_contributors": [["0_-1_0", 1]] for side in "qk"}
    for links in (
        3,
        [[0]],
        [[0, 1, [[1, 2]], 0.0]],
        [[0, 1, [[1, 2, 3, float("nan")]], 0]],
        [[0, 1, [], "x"]],
    ):
        graph.metadata["heads"] = {"links": links}
        for told in (7, good, {**good, **sides, "top_q_marginal_contributors": [["nobody", 1]]}):
            graph.metadata["qk_tracing"] = {node: {"look": {}, "qk_tracing_results": told}}
            file = created(graph, tmp_path)
            assert not any("heads" in link for link in file["links"])
            assert not any("qk_tracing_results" in one for one in file["nodes"])
    graph.metadata["qk_tracing"] = {node: {"look": {}, "qk_tracing_results": {**good, **sides}}}
    file = created(graph, tmp_path)
    assert file["nodes"][0]["qk_tracing_results"] == {**good, **sides}
    assert set(file["qk_only_nodes"]) <= {"0_1_0", "E_3_1", "0_-1_0"}


def test_contents(tmp_path: Path) -> None:
    graph = worked_example()
    graph.metadata["settings"] = {
        "max_n_logits": 10,
        "batch_size": 256,
        "max_feature_nodes": None,
        "update_interval": 4,
    }
    graph.metadata["create_time_ms"] = 17
    values = created(graph, tmp_path)
    metadata = values["metadata"]
    assert metadata["prompt_tokens"] == ["a", " b"]
    assert (metadata["slug"], metadata["scan"], metadata["prompt"], metadata["node_threshold"]) == (
        "graph",
        "s",
        "a b",
        0.8,
    )
    assert metadata["generation_settings"] == {"max_n_logits": 10, "batch_size": 256}
    assert metadata["pruning_settings"] == {"node_threshold": 0.8, "edge_threshold": 0.98}
    assert metadata["info"]["generator"]["name"] == "circuit-tracer-cli"
    assert metadata["info"]["create_time_ms"] == 17
    assert metadata["feature_details"]
    assert metadata["replacement_score"] == pytest.approx(0.75)
    assert values["qParams"] == {
        "pinnedIds": [],
        "supernodes": [],
        "linkType": "both",
        "clickedId": "",
        "sg_pos": "",
    }
    assert [node["node_id"] for node in values["nodes"]] == ["0_7_1", "1_9_1", "E_3_0", "E_4_1", "3_5_1"]
    assert len(values["links"]) == 7
    assert values["links"][0] == {"source": "E_3_0", "target": "0_7_1", "weight": -1.0}
    assert b"\n" not in (tmp_path / "graph.json").read_bytes()


def nearly(a: Any, b: Any) -> bool:
    return a == b or (
        isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6)
    )


@pytest.mark.parametrize("name", golden_names())
def test_reference_file(golden: Path, tmp_path: Path, name: str) -> None:
    """Equal but for the ids of errors, the additional metadata and rounding of the influence."""
    case = golden_case(golden, name)
    plain, packed = (case.folder / f"graph.json{suffix}" for suffix in ("", ".gz"))
    if not plain.exists() and not packed.exists():
        pytest.skip("this case has no graph.json")
    content = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    original, expected = json.loads(content), read_graph_json(content)
    case.graph.metadata["prompt_tokens"] = original["metadata"]["prompt_tokens"]
    values = created(case.graph, tmp_path, name)
    found = read_graph_json(json.dumps(values))
    assert found.links == expected.links
    assert len(found.nodes) == len(original["nodes"])
    for node, wanted in zip(values["nodes"], original["nodes"], strict=True):
        if "error" in node["feature_type"]:
            wanted = wanted | {name: node[name] for name in ("node_id", "jsNodeId")}
        assert list(node) == list(wanted)
        assert all(nearly(node[key], wanted[key]) for key in node), (node, wanted)
    assert values["qParams"] == original["qParams"]
    assert values["metadata"] | original["metadata"] == values["metadata"]


def test_pipe_and_direct_call_give_the_same_file(tmp_path: Path) -> None:
    graph = random_graph(density=1.0)
    pruned_graph(graph, 0.9, 0.9).save(tmp_path / "pruned.safetensors")
    graph.save(tmp_path / "raw.pt")
    direct = created(graph, tmp_path / "a", node_threshold=0.9, edge_threshold=0.9)
    assert created(load_graph(tmp_path / "pruned.safetensors"), tmp_path / "b") == direct
    path, _ = create_graph_files(
        tmp_path / "raw.pt", "graph", tmp_path / "c", node_threshold=0.9, edge_threshold=0.9
    )
    assert json.loads(path.read_bytes()) == direct


def test_pruned_graph_is_not_pruned_again(tmp_path: Path) -> None:
    pruned = pruned_graph(random_graph(), 0.5, 0.9)
    assert created(pruned, tmp_path)["metadata"]["pruning_settings"] == {
        "node_threshold": 0.5,
        "edge_threshold": 0.9,
    }
    with pytest.raises(UsageError, match="already pruned"):
        create_graph_files(pruned, "other", tmp_path, node_threshold=0.7)
    with pytest.raises(UsageError, match="already pruned"):
        pruned_graph(pruned, 0.8)
    assert not (tmp_path / "other.json").exists()


def test_list_of_graphs(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    for slug in ("a", "b", "a"):
        created(random_graph(), folder, slug)
    entries = json.loads((folder / "graph-metadata.json").read_bytes())["graphs"]
    assert [entry["slug"] for entry in entries] == ["b", "a"]
    assert entries[1] == json.loads((folder / "a.json").read_bytes())["metadata"]
    assert sorted(path.name for path in folder.iterdir()) == [
        ".graph-metadata.json.lock", "a.json", "b.json", "graph-metadata.json"
    ]  # fmt: skip


def test_bare_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    create_graph_files(random_graph(), "a", "folder")
    assert (tmp_path / "folder" / "graph-metadata.json").exists()


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"graphs": 3}', b'{"graphs": [1]}', b"\xff"])
def test_damaged_list_is_found_before_anything_is_written(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "graph-metadata.json").write_bytes(content)
    with pytest.raises(BadGraphFile, match="damaged"):
        create_graph_files(random_graph(), "a", tmp_path)
    assert not (tmp_path / "a.json").exists()
    assert (tmp_path / "graph-metadata.json").read_bytes() == content


def test_writers_at_the_same_time_lose_no_entry(tmp_path: Path) -> None:
    """The lock belongs to the opened file, so threads exclude each other as processes do."""
    slugs = [f"graph-{number}" for number in range(24)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda slug: create_graph_files(worked_example(), slug, tmp_path), slugs))
    entries = json.loads((tmp_path / "graph-metadata.json").read_bytes())["graphs"]
    assert sorted(entry["slug"] for entry in entries) == sorted(slugs)


def annotate(path: Path, **q_params: Any) -> None:
    values = json.loads(path.read_bytes())
    values["qParams"].update(q_params)
    path.write_text(json.dumps(values), encoding="utf-8")


def test_annotations_survive_an_export_of_the_same(tmp_path: Path) -> None:
    graph = worked_example()
    created(graph, tmp_path)
    annotate(
        tmp_path / "graph.json",
        pinnedIds="0_7_1,1_9_1",
        supernodes=[["x", "0_7_1"], ["y", "9_9_9"]],
        clickedId="0_7_1",
        sg_pos="1 2 3 4",
        clerps=[["14", "label"]],
    )
    kept = created(graph, tmp_path)["qParams"]
    assert kept["pinnedIds"] == ["0_7_1", "1_9_1"]
    assert kept["supernodes"] == [["x", "0_7_1"]]
    assert (kept["clickedId"], kept["clerps"]) == ("0_7_1", [["14", "label"]])
    assert created(graph, tmp_path, node_threshold=0.0)["qParams"]["pinnedIds"] == []
    annotate(tmp_path / "graph.json", pinnedIds=["E_3_0"], sg_pos="1 2")
    assert created(graph, tmp_path)["qParams"]["sg_pos"] == "1 2"
    assert created(graph, tmp_path, scan="other")["qParams"]["pinnedIds"] == []


def test_annotations_that_fit_no_more_are_kept_aside(tmp_path: Path) -> None:
    graph, path = worked_example(), tmp_path / "graph.json"
    write = partial(create_graph_files, slug="graph", output_path=tmp_path)
    assert write(graph) == [path, tmp_path / "graph-metadata.json"]
    annotate(path, linkType="input", pruningThreshold=0.5)
    assert len(write(graph, scan="other")) == 2  # nobody wrote anything that could be missed
    annotate(path, pinnedIds=["0_7_1"], clerps=[["14", "label"]])
    assert len(write(graph, scan="other")) == 2
    kept = path.read_bytes()
    to = Destination("graph", tmp_path)
    *_, aside = export(with_scan(pruned_graph(graph), "third"), to)
    assert aside == tmp_path / "graph.json.bak"
    assert aside.read_bytes() == kept
    assert json.loads(path.read_bytes())["qParams"]["pinnedIds"] == []
    annotate(path, pinnedIds=["0_7_1"])
    assert export(with_scan(pruned_graph(graph), "fourth"), to)[-1] == tmp_path / "graph.json.bak2"
    assert aside.read_bytes() == kept


def test_damaged_file_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_bytes(b"{")
    assert created(worked_example(), tmp_path)["qParams"]["pinnedIds"] == []


def test_repeated_targets(tmp_path: Path) -> None:
    graph = random_graph(logit_targets=[LogitTarget("a", 7), LogitTarget("a", 7)])
    logits = [node for node in created(graph, tmp_path)["nodes"] if node["feature_type"] == "logit"]
    assert [node["node_id"] for node in logits] == ["3_7_2", "3_7_2_2"]
    assert [node["is_target_logit"] for node in logits] == [True, False]


def test_activation_that_json_cannot_hold(tmp_path: Path) -> None:
    graph = random_graph(activation_values=torch.full((12,), float("nan")), density=1.0)
    features = [n for n in created(graph, tmp_path)["nodes"] if n["feature_type"] == "cross layer transcoder"]
    assert features
    assert {node["activation"] for node in features} == {None}


def test_scan_names() -> None:
    assert scan_names("user/repo") == ("user/repo", [])
    name, listed = scan_names(["a", "b"])
    assert (name, listed) == ("custom-3554d2b8a1e34099", ["a", "b"])
    assert scan_names(["a-b"])[0] != name
    for scan in (None, "", []):
        with pytest.raises(InvalidValue, match="which transcoders"):
            scan_names(scan)


def test_scan_is_asked_for_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="which transcoders"):
        create_graph_files(random_graph(scan=None), "a", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    values = created(random_graph(scan=None), tmp_path, scan=["x", "y"])
    assert values["metadata"]["transcoder_list"] == ["x", "y"]


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError):
            create_graph_files(random_graph(), "a", folder)


@pytest.mark.parametrize("slug", ["../a", "a/b", "", "graph-metadata", ".a"])
def test_bad_slug(tmp_path: Path, slug: str) -> None:
    with pytest.raises(InvalidValue):
        create_graph_files(random_graph(), slug, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_tokens_of_a_graph_without_them(golden: Path) -> None:
    case = golden_case(golden, "llama-plt-relu-limited")
    facts = case.graph.cfg.to_dict() | {"tokenizer_name": str(golden / "models" / "llama")}
    known = Graph(
        **{name: getattr(case.graph, name) for name in ("input_string", "input_tokens", "active_features")},
        **{name: getattr(case.graph, name) for name in ("selected_features", "activation_values")},
        **{name: getattr(case.graph, name) for name in ("logit_targets", "logit_probabilities", "scan")},
        adjacency_matrix=case.graph.edges,
        cfg=facts,
    )
    original = json.loads((case.folder / "graph.json").read_text(encoding="utf-8"))
    assert prompt_tokens_of(known) == original["metadata"]["prompt_tokens"]


def test_tokens_of_a_graph_whose_tokenizer_is_unknown() -> None:
    graph = random_graph(metadata={"prompt_tokens": ["too few"]})
    with pytest.warns(UserWarning, match="tokens are shown by number"):
        assert prompt_tokens_of(graph) == ["⟨5⟩", "⟨6⟩", "⟨7⟩"]


def test_how_many_edges_were_left_out_is_carried(tmp_path: Path) -> None:
    graph = worked_example()
    assert "edges_left_out" not in created(graph, tmp_path)["metadata"]
    graph.metadata["edges_left_out"] = 2
    assert created(graph, tmp_path)["metadata"]["edges_left_out"] == 2


def test_a_graph_exports_itself_pruned(tmp_path: Path) -> None:
    graph = worked_example()
    written = graph.export("one", tmp_path, "csv")
    assert {path.parent for path in written} == {tmp_path}
    assert graph.pruning is None
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    graph.export("one", tmp_path / "a")
    create_graph_files(graph, "one", tmp_path / "b")
    one, other = (json.loads((tmp_path / name / "one.json").read_bytes()) for name in "ab")
    assert one["nodes"] == other["nodes"]
    assert [[link[end] for end in ("source", "target", "weight")] for link in one["links"]] == [
        list(link.values()) for link in other["links"]
    ]
    for faulty in ({"format": "pdf"}, {"slug": "../one"}):
        with pytest.raises(UsageError):
            graph.export(**({"slug": "two", "directory": tmp_path} | faulty))
    assert not (tmp_path / "two.json").exists()
