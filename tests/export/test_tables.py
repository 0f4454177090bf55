"""GraphML, CSV, and the table of formats."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path

import networkx
import pytest
from hypothesis import given, settings

from circuit_tracer_cli.errors import InvalidValue, UsageError
from circuit_tracer_cli.export import FORMATS, Destination, exporter
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.types import LogitTarget
from tests.graph.builders import graphs, random_graph, worked_example

NASTY = "a<b>&\"'\x00\x1b\ud800\ufffe,;\n\r\tü\u202e\U0001f600"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_what_it_says(tmp_path: Path, name: str) -> None:
    written = exporter(name)(pruned_graph(worked_example()), Destination("a", tmp_path / "new"))
    assert written
    assert all(path.parent == tmp_path / "new" and path.stat().st_size for path in written)
    module, function = FORMATS[name].split(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", FORMATS)
def test_a_bad_slug_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidValue):
        exporter(name)(pruned_graph(worked_example()), Destination("../a", tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_unknown_format() -> None:
    with pytest.raises(UsageError) as caught:
        exporter("pdf")
    assert "graphml" in (caught.value.hint or "")


@settings(max_examples=30)
@given(graphs())
def test_graphml_is_what_networkx_makes_of_the_pruned_graph(
    tmp_path_factory: pytest.TempPathFactory, graph: Graph
) -> None:
    (path,) = exporter("graphml")(pruned_graph(graph), Destination("a", tmp_path_factory.mktemp("graphs")))
    found = networkx.read_graphml(path)
    expected = pruned_graph(graph).to_networkx()
    assert set(found.nodes) == set(expected.nodes)
    for node, values in expected.nodes(data=True):
        assert found.nodes[node] == {name: value for name, value in values.items() if name != "index"}
    assert {(a, b): w for a, b, w in found.edges(data="weight")} == {
        (a, b): w for a, b, w in expected.edges(data="weight")
    }


def test_graphml_of_text_that_xml_cannot_hold(tmp_path: Path) -> None:
    graph = random_graph(
        input_string=NASTY,
        metadata={"prompt_tokens": [NASTY, "b", "c"]},
        logit_targets=[LogitTarget(NASTY, 1), LogitTarget("x", 2)],
        scan=["a", NASTY],
    )
    (path,) = exporter("graphml")(pruned_graph(graph), Destination("a", tmp_path))
    found = networkx.read_graphml(path)
    assert found.nodes["E_5_0"]["token"].startswith("a<b>&\"'\ufffd\ufffd\ufffd\ufffd,;")
    assert found.nodes["3_1_2"]["token"].endswith("ü\u202e\U0001f600")


def test_csv_tables(tmp_path: Path) -> None:
    graph = worked_example()
    nodes_path, edges_path = exporter("csv")(pruned_graph(graph), Destination("a", tmp_path))
    with nodes_path.open(newline="", encoding="utf-8") as stream:
        nodes = list(csv.DictReader(stream))
    with edges_path.open(newline="", encoding="utf-8") as stream:
        edges = list(csv.DictReader(stream))
    assert [node["node_id"] for node in nodes] == ["0_7_1", "1_9_1", "E_3_0", "E_4_1", "3_5_1"]
    assert nodes[0]["activation"] == "1.0"
    assert (nodes[2]["token"], nodes[2]["feature"], nodes[2]["layer"]) == ("a", "", "")
    pruned = pruned_graph(graph)
    expected = {(s, t): w for s, t, w in pruned.to_networkx().edges(data="weight")}
    assert {(edge["source"], edge["target"]): float(edge["weight"]) for edge in edges} == expected


def test_csv_of_strange_text(tmp_path: Path) -> None:
    graph = random_graph(metadata={"prompt_tokens": [NASTY, "b", "c"]})
    nodes_path, _ = exporter("csv")(pruned_graph(graph), Destination("a", tmp_path))
    with nodes_path.open(newline="", encoding="utf-8") as stream:
        tokens = [node["token"] for node in csv.DictReader(stream) if node["kind"] == "token"]
    assert tokens == [NASTY.replace("\ud800", "?"), "b", "c"]
