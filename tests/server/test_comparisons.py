"""Graphs of the folder compared and merged over HTTP."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from circuit_tracer_cli.export.viewer import create_graph_files
from tests.graph.builders import random_graph

from .builders import make_client


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A folder with two graphs of one prompt."""
    for seed, slug in ((1, "one"), (2, "two")):
        create_graph_files(random_graph(seed=seed), slug, tmp_path / "graphs", "set")
    return tmp_path / "graphs"


@pytest.fixture
def asked(pair: Path) -> TestClient:
    return make_client(pair)


def test_diff_is_the_record_of_the_command(asked: TestClient) -> None:
    record = asked.get("/api/graphs/one/diff/two").json()
    assert {"alignment", "shared", "only_a", "only_b", "scores", "changes"} <= set(record)
    assert record["alignment"]["level"] == "exact"
    bag = asked.get("/api/graphs/one/diff/two", params={"align": "bag"}).json()
    assert bag["alignment"]["level"] == "bag"


def test_a_comparison_is_a_graph_of_the_folder_and_made_once(asked: TestClient, pair: Path) -> None:
    reply = asked.post("/api/diff", json={"a": "one", "b": "two"})
    assert reply.status_code == 201
    assert reply.json() == {"slug": "one-vs-two"}
    assert reply.headers["location"] == "api/graphs/one-vs-two"
    graph = asked.get("/api/graphs/one-vs-two").json()
    assert graph["metadata"]["diff"]["a"]["name"] == "one"
    assert {node["diff"]["side"] for node in graph["nodes"]} <= {"a", "b", "both"}
    assert asked.post("/api/diff", json={"a": "one", "b": "two"}).status_code == 200
    assert asked.post("/api/diff", json={"a": "one", "b": "two", "align": "bag"}).json() == {
        "slug": "one-vs-two-2"
    }
    os.utime(pair / "one.json")
    assert asked.post("/api/diff", json={"a": "one", "b": "two"}).status_code == 201
    assert {"one-vs-two", "one-vs-two-2"} <= {
        one["slug"] for one in asked.get("/api/graphs").json()["graphs"]
    }


def test_merge_takes_the_single_graphs(asked: TestClient) -> None:
    asked.post("/api/diff", json={"a": "one", "b": "two"})
    reply = asked.post("/api/merge", json={"slug": "union"})
    assert reply.status_code == 201
    assert reply.json()["n"] == 2
    graph = asked.get("/api/graphs/union").json()
    assert graph["metadata"]["merged"]["members"] == ["one", "two"]
    frequencies = {node["merged"]["frequency"] for node in graph["nodes"]}
    assert frequencies == {0.5, 1.0}
    again = asked.post("/api/merge", json={"slug": "union"})
    assert again.status_code == 409
    assert "union-2" in again.json()["hint"]
    consensus = asked.post("/api/merge", json={"slug": "core", "graphs": ["one", "two"], "min_frequency": 1})
    assert consensus.json()["nodes"] == sum(node["merged"]["frequency"] == 1 for node in graph["nodes"])


@pytest.mark.parametrize(
    ("method", "address", "body", "status", "said"),
    [
        ("GET", "/api/graphs/one/diff/none", None, 404, "no graph 'none'"),
        ("GET", "/api/graphs/one/diff/two?align=up", None, 422, "align"),
        ("GET", "/api/graphs/one/diff/two?target=9_9_9", None, 422, "neither graph has a node 9_9_9"),
        ("GET", "/api/graphs/one/diff/other", None, 422, "layers"),
        ("POST", "/api/diff", {"a": "one"}, 422, "b: missing"),
        ("POST", "/api/diff", {"a": "one", "b": "../secret"}, 422, "can't be the name"),
        ("POST", "/api/diff", {"a": "one", "b": "two", "slug": "one"}, 409, "a graph named"),
        ("POST", "/api/merge", {"slug": "a/b"}, 422, "can't name a graph"),
        ("POST", "/api/merge", {"slug": "u", "graphs": ["one", "none"]}, 404, "no graph 'none'"),
        ("POST", "/api/merge", {"slug": "u", "min_frequency": 2}, 422, "min_frequency"),
    ],
)
def test_bad_requests_say_what_is_wrong(
    asked: TestClient, pair: Path, method: str, address: str, body: object, status: int, said: str
) -> None:
    document = json.loads((pair / "one.json").read_text())
    document["metadata"]["slug"] = "other"
    document["nodes"] = [
        {**node, "layer": str(int(node["layer"]) + 5)} if node["feature_type"] == "logit" else node
        for node in document["nodes"]
    ]
    (pair / "other.json").write_text(json.dumps(document))
    reply = asked.request(method, address, json=body)
    assert reply.status_code == status, reply.text
    assert said in reply.json()["error"]
    assert {path.stem for path in pair.glob("*.json")} == {"one", "two", "other", "graph-metadata"}
