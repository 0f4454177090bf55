"""What a graph file hides of a node's input, asked of a server with a model."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from .test_attention import TEXT, client, traced
from .test_runs import until

__all__ = ["client"]  # the fixture


def ask(client: TestClient, path: str = "/api/hidden", **body: Any) -> dict[str, Any]:
    reply = client.post(path, json={"prompt": TEXT, **body})
    assert reply.status_code == 202, reply.text
    place = reply.headers["location"]
    until(lambda: client.get(place).json()["state"] in ("done", "failed"))
    found: dict[str, Any] = client.get(place).json()
    return found


def test_what_is_hidden_is_the_row_without_the_nodes_shown(client: TestClient) -> None:
    graph = traced().graph
    target = graph.layout.logit_offset
    sources, weights = graph.edges.row(target)
    row = {graph.node_id(s): float(w) for s, w in zip(sources.tolist(), weights.tolist(), strict=True)}
    features = {
        name: w for name, w in row.items() if name.split("_")[0] != "E" and name.split("_")[1] != "-1"
    }
    assert len(graph.selected_features) == len(graph.active_features)
    shown = sorted(features)[::2]
    hidden = {name: w for name, w in features.items() if name not in shown}
    found = ask(client, node=graph.node_id(target), shown=[*shown, "9_9_9", "E_3_1"], top=4)["result"]
    expected = sorted(hidden, key=lambda name: -abs(hidden[name]))[:4]
    assert [one["node_id"] for one in found["strongest"]] == expected
    assert [one["weight"] for one in found["strongest"]] == pytest.approx(
        [hidden[name] for name in expected], abs=1e-5
    )
    assert found["count"] == len(hidden)
    assert found["total"] == pytest.approx(sum(row.values()), abs=1e-4)
    share = sum(map(abs, hidden.values())) / sum(map(abs, row.values()))
    assert found["share"] == pytest.approx(share, abs=1e-5)
    nothing = ask(client, node=graph.node_id(target), shown=sorted(features))["result"]
    assert (nothing["strongest"], nothing["count"], nothing["share"]) == ([], 0, 0)


@pytest.mark.parametrize(
    ("node", "message"), [("9_9_9", "no node 9_9_9"), ("0_-1_2", "where no edge ends"), ("E_3_1", "E_3_1")]
)
def test_a_node_without_inputs_fails_the_run(client: TestClient, node: str, message: str) -> None:
    found = ask(client, node=node)
    assert found["state"] == "failed"
    assert message in found["error"]["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": "1"}, "node: missing"),
        ({"node": "1_2_3"}, "the prompt is empty"),
        ({"prompt": "1", "node": "1_2_3", "top": 0}, "top"),
        ({"prompt": "1", "node": "1_2_3", "show": []}, "unknown key"),
    ],
)
def test_a_wrong_body_is_refused_at_once(client: TestClient, body: dict[str, Any], message: str) -> None:
    reply = client.post("/api/hidden", json=body)
    assert reply.status_code == 422
    assert message in reply.json()["error"]


def test_added_nodes_come_with_all_their_links_to_what_is_shown(client: TestClient) -> None:
    graph = traced().graph
    names, layout = graph.node_ids(), graph.layout
    add = [names[layout.n_features // 3], names[2 * layout.n_features // 3]]
    shown = [name for place, name in enumerate(names) if place % 2 and name not in add]
    found = ask(client, "/api/expand", add=add, shown=shown)["result"]
    kept = {*add, *shown}
    expected = {
        (names[source], names[target]): weight
        for block in graph.edges.blocks()
        for source, target, weight in block.triples()
        if {names[source], names[target]} <= kept and {names[source], names[target]} & set(add)
    }
    ours = {(one["source"], one["target"]): one["weight"] for one in found["links"]}
    assert len(ours) == len(found["links"])
    assert {pair: ours.get(pair, 0.0) for pair in expected} == pytest.approx(expected, abs=1e-5)
    assert all(abs(weight) < 1e-5 for pair, weight in ours.items() if pair not in expected)
    assert [one["node_id"] for one in found["nodes"]] == add
    values = [graph.activation_values[graph.selected_features[names.index(name)]] for name in add]
    assert [one["activation"] for one in found["nodes"]] == pytest.approx([float(value) for value in values])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"add": ["0_9999_3"]}, "no node 0_9999_3"),
        ({"add": ["E_3_1"]}, "where no edge ends"),
        ({"add": ["0_1_1"], "shown": ["DIRECTION"]}, "is a direction"),
    ],
)
def test_what_cannot_be_added_fails_the_run(client: TestClient, body: dict[str, Any], message: str) -> None:
    model = traced().model.model.shape
    direction = f"{model.n_layers + 1}_{model.d_vocab}_6"
    shown = [direction if name == "DIRECTION" else name for name in body.get("shown", [])]
    found = ask(client, "/api/expand", **{**body, "shown": shown})
    assert found["state"] == "failed"
    assert message in found["error"]["error"]
