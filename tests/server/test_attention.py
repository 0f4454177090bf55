"""Heads and scores on a server's model: the numbers of the library, asked for by the ids of a graph file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from circuit_tracer_cli.attention.loadings import loadings
from circuit_tracer_cli.attention.prompt import FrozenPrompt
from circuit_tracer_cli.attention.qk import attend
from circuit_tracer_cli.server import attention
from circuit_tracer_cli.server.model import ModelRunner
from circuit_tracer_cli.server.runs import RunQueue
from tests.attention.prompts import frozen_prompt, some_edges

from .builders import make_client
from .test_runs import until

TEXT = "3 42 7 7 3 42"
Ask = Callable[..., dict[str, Any]]


def traced() -> FrozenPrompt:
    """The same prompt, traced and frozen by the library."""
    return frozen_prompt("llama", "clt", prompt=(0, 3, 42, 7, 7, 3, 42), precise=False)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server of the tiny model."""
    folder = tmp_path_factory.mktemp("served") / "graphs"
    folder.mkdir()
    queue = RunQueue(ModelRunner(model=traced().model))
    queue.start()
    yield make_client(folder, runs=queue)
    queue.close()


@pytest.fixture
def ask(client: TestClient) -> Ask:
    """Puts a question into the queue and returns the run when it has ended."""

    def asked(what: str, **body: Any) -> dict[str, Any]:
        reply = client.post(f"/api/attention/{what}", json={"prompt": TEXT, **body})
        assert reply.status_code == 202, reply.text
        place = reply.headers["location"]
        until(lambda: client.get(place).json()["state"] in ("done", "failed"))
        found: dict[str, Any] = client.get(place).json()
        return found

    return asked


def test_heads_are_those_of_the_graph(ask: Ask) -> None:
    prompt = traced()
    edges = [
        (source, target)
        for source, target in some_edges(prompt)
        if source in prompt.graph.edges.row(target)[0].tolist()
    ]
    ids = [[prompt.graph.node_id(end) for end in edge] for edge in edges]
    found = ask("heads", edges=ids, n=3)["result"]["edges"]
    for one, want in zip(found, loadings(prompt, edges, "arrive", 3), strict=True):
        assert (one["source"], one["target"]) == (want.source, want.target)
        assert one["weight"] == pytest.approx(want.weight, abs=1e-6)
        assert [(head["layer"], head["head"], head["position"]) for head in one["heads"]] == [
            (share.layer, share.head, share.position) for share in want.heads
        ]
        assert one["rest"] == pytest.approx(want.rest, abs=1e-5)


def test_a_score_comes_with_its_pattern_row(ask: Ask) -> None:
    prompt = traced()
    found = ask("qk", layer=2, head=1, query=-1, key=2, against="rest")["result"]
    want = attend(prompt, 2, 1, -1, 2, "rest")
    assert found["score"] == pytest.approx(want.score, abs=1e-6)
    assert [pair["value"] for pair in found["pairs"]] == pytest.approx([value for *_, value in want.pairs])
    assert sum(key["value"] for key in found["row"]) == pytest.approx(1, abs=1e-5)
    assert set(found["qk_tracing_results"]) == {
        "pair_wise_contributors", "top_q_marginal_contributors", "top_k_marginal_contributors",
    }  # fmt: skip
    alone = ask("qk", layer=2, head=1, query=-1)["result"]
    assert alone["row"] == found["row"]
    assert alone["pairs"] == []


@pytest.mark.parametrize(
    ("what", "body", "message"),
    [
        ("heads", {"edges": [["9_9_9", "3_1_2"]]}, "no node 9_9_9"),
        ("heads", {"edges": [["0_-1_2", "0_-1_3"]]}, "where no edge ends"),
        ("heads", {"edges": [["0_-1_2", "4_1_6"]], "scan": "other"}, "was made with other"),
        ("heads", {"edges": [["0_-1_2", "4_1_6"]], "prompt_tokens": ["a"]}, "splits the prompt"),
        ("qk", {"layer": 9, "head": 0, "query": 1}, "no layer 9"),
        ("qk", {"layer": 1, "head": 0, "query": 2, "key": 3}, "can't look ahead"),
    ],
)
def test_what_turns_out_late_fails_the_run(ask: Ask, what: str, body: dict[str, Any], message: str) -> None:
    found = ask(what, **body)
    assert found["state"] == "failed"
    assert message in found["error"]["error"]


@pytest.mark.parametrize(
    ("what", "body", "message"),
    [
        ("heads", {"prompt": "1"}, "no edges are given"),
        ("heads", {"prompt": "1", "edges": [["a"]]}, "edges.0"),
        ("heads", {"prompt": "1", "edges": [["a", "b"]], "by": "x"}, "by"),
        ("heads", {"edges": [["a", "b"]]}, "the prompt is empty"),
        ("qk", {"prompt": "1", "layer": 0, "head": 0}, "query: missing"),
        ("qk", {"prompt": "1", "layer": -1, "head": 0, "query": 0}, "layer"),
        (
            "qk",
            {"prompt": "1", "layer": 0, "head": 0, "query": 1, "against": "rest"},
            "against needs a first key",
        ),
        ("qk", {"prompt": "1", "layer": 0, "head": 0, "query": 1, "keys": 2}, "unknown key"),
    ],
)
def test_a_wrong_body_is_refused_at_once(
    client: TestClient, what: str, body: dict[str, Any], message: str
) -> None:
    reply = client.post(f"/api/attention/{what}", json=body)
    assert reply.status_code == 422
    assert message in reply.json()["error"]


def test_a_trace_lets_go_of_the_frozen_prompt(
    client: TestClient, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds weights, which a trace may have to move out of the device's memory."""
    ask("qk", layer=2, head=1, query=-1)
    held = []
    monkeypatch.setattr(
        "circuit_tracer_cli.pipeline.trace_with", lambda *_: held.append(attention._LAST._known)
    )
    assert attention._LAST._known is not None
    reply = client.post("/api/traces", json={"prompt": TEXT})
    place = reply.headers["location"]
    until(lambda: client.get(place).json()["state"] in ("done", "failed"))
    assert held == [None]


def test_without_a_model_there_is_nobody_to_ask(tmp_path: Path) -> None:
    (tmp_path / "graphs").mkdir()
    reply = make_client(tmp_path / "graphs").post("/api/attention/heads", json={"prompt": "1"})
    assert reply.status_code == 409
