"""The compact form of a graph: what it holds, ranges, and when it is derived anew."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from circuit_tracer_cli.server import compact
from circuit_tracer_cli.server.bodies import body_of

from .builders import make_graph

URL = "/api/graphs/demo/compact"


def unpack(content: bytes) -> tuple[dict[str, Any], Any, Any]:
    magic, version, size, count = struct.unpack_from("<4sIII", content)
    assert (magic, version, size % 8) == (b"CTGB", 1, 0)
    header = json.loads(content[16 : 16 + size])
    n = len(header["ids"])
    columns = np.frombuffer(content, "<f8", 6 * n, 16 + size).reshape(6, n)
    edges = np.frombuffer(content, np.dtype("<u4,<u4,<f4"), count, 16 + size + 48 * n)
    assert len(content) == 16 + size + 48 * n + 12 * count
    return header, columns, edges


def chain() -> dict[str, Any]:
    """Token → feature → logit, with a weak link beside the way and a strong one into a feature that leads nowhere."""
    graph = make_graph("demo")
    graph["nodes"].append({**graph["nodes"][0], "node_id": "1_8_0", "clerp": "dead end", "influence": None})
    graph["nodes"][2]["token_prob"] = 1.0
    links = [
        ("E_5_0", "1_8_0", 90.0),
        ("E_5_0", "3_9_0", -0.5),
        ("1_7_0", "3_9_0", 1.5),
        ("E_5_0", "1_7_0", 2.0),
    ]
    graph["links"] = [{"source": s, "target": t, "weight": w} for s, t, w in links]
    graph["links"] += [{"source": "gone", "target": "3_9_0", "weight": 5.0}]
    return graph


def test_edges_come_by_their_influence_on_the_logits(data_dir: Path, client: TestClient) -> None:
    (data_dir / "demo.json").write_text(json.dumps(chain()))
    reply = client.get(URL)
    header, columns, edges = unpack(reply.content)
    assert header["ids"] == ["1_7_0", "E_5_0", "3_9_0", "1_8_0"]
    assert header["etag"] == client.get("/api/graphs/demo").headers["etag"] != reply.headers["etag"]
    assert header["clerp"] == {"3": "dead end"}
    assert header["metadata"]["prompt_tokens"] == [" a"]
    # 0.75 of the logit's input and all of the feature's; then the rest of the logit's; the dead end has no influence.
    assert [(int(s), int(t)) for s, t, _ in edges] == [(1, 0), (0, 2), (1, 2), (1, 3)]
    assert float(edges["f2"][2]) == -0.5
    assert np.isnan(columns[3, 3])
    assert columns[3, 0] == 0.1
    assert columns[5].tolist() == [2.0, 0.0, 2.0, 90.0]


def test_ranges_and_validators(client: TestClient) -> None:
    whole = client.get(URL)
    tag = whole.headers["etag"]
    part = client.get(URL, headers={"Range": "bytes=4-19", "If-Range": tag})
    assert (part.status_code, part.content) == (206, whole.content[4:20])
    assert part.headers["content-range"] == f"bytes 4-19/{len(whole.content)}"
    assert client.get(URL, headers={"Range": "bytes=4-19", "If-Range": '"old"'}).content == whole.content
    assert client.get(URL, headers={"Range": "bytes=9999999-"}).status_code == 416
    assert client.get(URL, headers={"If-None-Match": tag}).status_code == 304
    assert client.head(URL).headers["content-length"] == str(len(whole.content))


def test_a_save_exchanges_the_header_alone(
    data_dir: Path, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived: list[str] = []
    original = compact.compact_graph

    def counted(body: Any) -> bytes | None:
        derived.append(body.etag)
        return original(body)

    monkeypatch.setattr(compact, "compact_graph", counted)
    first, again = client.get(URL), client.get(URL)
    assert (first.headers["etag"], len(derived)) == (again.headers["etag"], 1)
    json_tag = client.get("/api/graphs/demo").headers["etag"]
    saved = client.put(
        "/api/graphs/demo/annotations", json={"pinnedIds": ["1_7_0"]}, headers={"If-Match": json_tag}
    )
    reply = client.get(URL)
    header, _, _ = unpack(reply.content)
    assert header["qParams"]["pinnedIds"] == ["1_7_0"]
    assert header["etag"] == saved.headers["etag"]
    assert reply.headers["etag"] != first.headers["etag"]
    assert len(derived) == 1
    assert reply.content == original(body_of((data_dir / "demo.json").read_bytes()))


@pytest.mark.parametrize(
    "change",
    [{"nodes": [{"feature_type": "logit"}]}, {"nodes": [1]}, {"links": [{"source": []}]}, {"links": [None]},
     {"nodes": [{"node_id": ["x"], "layer": "1"}]}],
)  # fmt: skip
def test_what_has_no_compact_form_is_left_to_the_json(
    data_dir: Path, client: TestClient, change: dict[str, Any]
) -> None:
    (data_dir / "demo.json").write_text(json.dumps({**make_graph(), **change}))
    assert client.get(URL).status_code == 204
    assert client.get("/api/graphs/demo").status_code == 200


def test_a_missing_or_broken_graph_is_an_error(data_dir: Path, client: TestClient) -> None:
    (data_dir / "broken.json").write_text("{")
    assert client.get("/api/graphs/broken/compact").status_code == 422
    assert client.get("/api/graphs/nope/compact").status_code == 404


def test_a_cycle_ends(data_dir: Path, client: TestClient) -> None:
    graph = chain()
    graph["links"].append({"source": "3_9_0", "target": "1_7_0", "weight": 1.0})
    (data_dir / "demo.json").write_text(json.dumps(graph))
    assert len(unpack(client.get(URL).content)[2]) == 5
