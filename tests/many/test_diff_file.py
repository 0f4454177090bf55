"""Two compared graphs as one file for the viewer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuit_tracer_cli.export.graph_json import read_graph_json
from circuit_tracer_cli.export.viewer import create_graph_files
from circuit_tracer_cli.many.diff import diff_graphs
from circuit_tracer_cli.many.diff_file import DIFF, MOST_CHANGES, diff_file_of, diff_of_folder, write_diff
from circuit_tracer_cli.many.facts import facts_of_graph
from tests.graph.builders import random_graph


def test_every_node_and_edge_says_which_graph_has_it(tmp_path: Path) -> None:
    a, b = random_graph(seed=1), random_graph(seed=2)
    found = diff_graphs(a, b)
    write_diff(found, tmp_path / "both.json")
    file = read_graph_json((tmp_path / "both.json").read_bytes(), "both")
    kept = [
        {name for name, here in zip(facts.ids, facts.kept.tolist(), strict=True) if here}
        for facts in (facts_of_graph(a, "A"), facts_of_graph(b, "B"))
    ]
    sides = {node.node_id: node.extra[DIFF]["side"] for node in file.nodes}
    assert {name for name, side in sides.items() if side != "b"} == kept[0]
    assert {name for name, side in sides.items() if side != "a"} == kept[1]
    facts = facts_of_graph(a, "A")
    weights = {
        (facts.ids[s], facts.ids[t]): w
        for s, t, w in zip(facts.source.tolist(), facts.target.tolist(), facts.weight.tolist(), strict=True)
    }
    of_a = [link for link in file.links if link.extra[DIFF]["side"] == "a"]
    assert of_a
    for link in of_a:
        assert link.weight == pytest.approx(weights[link.source, link.target])
    assert {(link.source, link.target) for link in file.links} >= set(weights)


def test_what_it_says_of_the_target_sums_to_the_change() -> None:
    found = diff_graphs(random_graph(seed=1), random_graph(seed=2))
    file = diff_file_of(found, "both")
    record = file.metadata.extra[DIFF]
    assert len(record["changes"]) <= MOST_CHANGES
    change = sum(one["by_activation"] + one["by_path"] for one in record["changes"])
    assert change + record["others"]["change"] == pytest.approx(sum(c.b - c.a for c in found.changes))
    shown = {node.node_id for node in file.nodes}
    assert any("id" in one for one in record["changes"])
    assert {one["id"] for one in record["changes"] if "id" in one} <= shown


def test_a_graph_against_itself_is_that_graph() -> None:
    graph = random_graph()
    file = diff_file_of(diff_graphs(graph, graph), "same")
    assert {node.extra[DIFF]["class"] for node in file.nodes} == {"shared"}
    assert {link.extra[DIFF]["class"] for link in file.links} == {"shared"}
    assert file.metadata.extra[DIFF]["scores"]["jaccard"] == 1


def test_raw_graphs_that_a_batch_has_kept_tell_what_pruning_cut(tmp_path: Path) -> None:
    for seed, slug in ((1, "a"), (2, "b")):
        graph = random_graph(seed=seed)
        create_graph_files(graph, slug, tmp_path / "graphs", "set", 0.5, 0.7)
        (tmp_path / "objects" / slug).mkdir(parents=True)
        graph.save(tmp_path / "objects" / slug / f"{slug}.safetensors")
    files = diff_of_folder(tmp_path / "graphs", "a", "b")
    assert "unknown" in {node.extra[DIFF]["class"] for node in diff_file_of(files, "d").nodes}
    (tmp_path / "batch.json").write_text("{}")
    lines = [json.dumps({"graph": slug, "slug": slug, "prompt": "p"}) for slug in "ab"]
    (tmp_path / "batch.jsonl").write_text("\n".join(lines) + "\n")
    raw = diff_of_folder(tmp_path / "graphs", "a", "b")
    assert "unknown" not in {node.extra[DIFF]["class"] for node in diff_file_of(raw, "d").nodes}
    assert set(raw.keys.tolist()) == set(files.keys.tolist())


def test_labels_of_either_file_are_kept(tmp_path: Path) -> None:
    for seed, slug in ((1, "a"), (2, "b")):
        create_graph_files(random_graph(seed=seed), slug, tmp_path, "set")
        document = json.loads((tmp_path / f"{slug}.json").read_text())
        for node in document["nodes"]:
            if node["feature_type"] == "cross layer transcoder":
                node |= {"clerp": slug, "proposed_label": {"text": f"of {slug}"}}
        (tmp_path / f"{slug}.json").write_text(json.dumps(document))
    file = diff_file_of(diff_of_folder(tmp_path, "a", "b"), "d")
    features = [node for node in file.nodes if node.feature_type == "cross layer transcoder"]
    assert {node.extra[DIFF]["side"] for node in features} >= {"a", "b"}
    for node in features:
        slug = "b" if node.extra[DIFF]["side"] == "b" else "a"
        assert (node.clerp, node.extra["proposed_label"]) == (slug, {"text": f"of {slug}"})


def test_graphs_of_two_sets_are_laid_over_each_other_by_place() -> None:
    a, b = random_graph(seed=1), random_graph(seed=2)
    b.scan = "another"
    found = diff_graphs(a, b)
    file = diff_file_of(found, "both")
    assert file.metadata.extra[DIFF]["match"] == "place"
    features = [node for node in file.nodes if node.feature_type == "cross layer transcoder"]
    assert len({node.node_id for node in file.nodes}) == len(file.nodes)
    assert {node.clerp for node in features} == {f"all features of layer {node.layer}" for node in features}
    assert sum(node.extra[DIFF]["share_b"] for node in features) == pytest.approx(1, abs=0.3)
