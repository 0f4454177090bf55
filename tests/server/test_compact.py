"""The compact form of a graph: what it holds, where it lies, ranges, and when it is made anew."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from circuit_tracer_cli.export import Destination, compact
from circuit_tracer_cli.export.report import save_report
from circuit_tracer_cli.export.viewer import export
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.server.graphs import GraphFolder, feature_codes
from tests.graph.builders import random_graph

from .builders import make_client, make_graph

URL = "/api/graphs/demo/compact"


@pytest.fixture(autouse=True)
def _small_files_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "COMPACT_FROM", 0)


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The graphs whose links were read and ranked."""
    found: list[str] = []
    original = compact._edges

    def counted(graph: Any) -> Any:
        found.append(str(graph["metadata"].get("slug")))
        return original(graph)

    monkeypatch.setattr(compact, "_edges", counted)
    return found


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


def test_a_save_exchanges_the_header_alone(data_dir: Path, client: TestClient, derived: list[str]) -> None:
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
    assert (data_dir / "demo.json").stat().st_size > 0


def test_annotations_change_the_header_alone_where_the_file_begins_with_them(
    data_dir: Path, client: TestClient, derived: list[str]
) -> None:
    path = export(pruned_graph(random_graph()), Destination("a", data_dir))[0]
    url = "/api/graphs/a/compact"
    before = client.get(url).content
    client.put("/api/graphs/a/annotations", json={"sg_pos": "1 2"}, headers={"If-Match": "*"})
    after = client.get(url).content
    assert unpack(after)[0]["qParams"]["sg_pos"] == "1 2"
    assert derived == []
    compact.compact_path(path).unlink()
    again = client.get(url).content
    assert derived == ["a"]
    assert unpack(again)[0] == unpack(after)[0]
    assert unpack(before)[0]["etag"] != unpack(after)[0]["etag"]


def test_the_exporter_writes_it_with_the_graph_file(tmp_path: Path, derived: list[str]) -> None:
    """It is what the server would derive, but for the ranking's last digits."""
    path = export(pruned_graph(random_graph()), Destination("a", tmp_path))[0]
    form = compact.compact_path(path)
    written = form.read_bytes()
    assert compact.current_form(path, tmp_path / "spare") == form
    assert (form.read_bytes(), derived) == (written, [])
    form.unlink()
    assert compact.current_form(path, tmp_path / "spare") == form
    ours, theirs = unpack(written), unpack(form.read_bytes())
    assert derived == ["a"]
    assert ours[0] == theirs[0]
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-12)
    assert sorted(ours[2].tolist()) == sorted(theirs[2].tolist())
    save_report(path, {"version": 1, "checks": []})
    renewed = compact.current_form(path, tmp_path / "spare")
    assert renewed is not None
    assert unpack(renewed.read_bytes())[0]["metadata"]["validation"] == {"version": 1, "checks": []}
    assert derived == ["a"]


def test_another_server_takes_it_as_it_is(data_dir: Path, client: TestClient, derived: list[str]) -> None:
    first = client.get(URL)
    second = make_client(data_dir).get(URL)
    assert (second.content, second.headers["etag"]) == (first.content, first.headers["etag"])
    assert derived == ["demo"]
    assert [path.name for path in (data_dir / compact.FOLDER).iterdir()] == ["demo.ctgb"]


@pytest.mark.parametrize("key", ["nodes", "links"])
def test_other_nodes_or_links_are_ranked_anew(
    data_dir: Path, client: TestClient, derived: list[str], key: str
) -> None:
    before = client.get(URL).content
    graph = make_graph()
    graph[key][0]["weight" if key == "links" else "influence"] = 0.7
    (data_dir / "demo.json").write_text(json.dumps(graph, indent=2))
    assert client.get(URL).content != before
    assert len(derived) == 2


@pytest.mark.parametrize("damage", [b"", b"CTGB", b"CTGB" + b"\0" * 40, b"\xff\xfe\n"], ids=range(4))
def test_a_damaged_form_is_replaced(
    data_dir: Path, client: TestClient, derived: list[str], damage: bytes
) -> None:
    first = client.get(URL).content
    compact.compact_path(data_dir / "demo.json").write_bytes(damage)
    assert client.get(URL).content == first
    assert len(derived) == 2


def test_a_folder_that_cannot_be_written_is_no_obstacle(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / compact.FOLDER).write_text("a file where the folder would be")
    client = make_client(data_dir, spare_dir=tmp_path / "spare")
    assert client.get(URL).status_code == 200
    assert len(list((tmp_path / "spare").iterdir())) == 1
    assert client.get(URL).status_code == 200
    assert make_client(data_dir, spare_dir=tmp_path / "no" / "where").get(URL).status_code == 204


def test_small_graphs_have_none(data_dir: Path, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "COMPACT_FROM", 1 << 20)
    assert client.get(URL).status_code == 204
    assert not (data_dir / compact.FOLDER).exists()


def test_annotations_may_stand_at_the_end(data_dir: Path, client: TestClient, derived: list[str]) -> None:
    graph = make_graph()
    for pins in ([], ["1_7_0"]):
        late = {key: graph[key] for key in ("nodes", "metadata", "links")}
        (data_dir / "demo.json").write_text(json.dumps({**late, "qParams": {"pinnedIds": pins}}))
        assert unpack(client.get(URL).content)[0]["qParams"] == {"pinnedIds": pins}
    assert len(derived) == 2


def test_codes_come_from_the_form_as_from_the_json(data_dir: Path) -> None:
    graph = make_graph()
    for kind, code in (("mlp reconstruction error", 5), ("per layer transcoder", 77), ("", 3), ("logit", 8)):
        graph["nodes"].append(
            {**graph["nodes"][0], "node_id": f"x{code}", "feature_type": kind, "feature": code}
        )
    graph["nodes"].append({**graph["nodes"][0], "node_id": "none", "feature": None})
    (data_dir / "demo.json").write_text(json.dumps(graph))
    folder = GraphFolder(data_dir, data_dir)
    assert folder.compact("demo") is not None
    assert folder.codes("demo") == feature_codes((data_dir / "demo.json").read_bytes()) == {43, 77, 3}


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


def test_a_graph_with_a_cycle_is_left_to_the_json(data_dir: Path, client: TestClient) -> None:
    graph = chain()
    graph["links"].append({"source": "3_9_0", "target": "1_7_0", "weight": 1.0})
    (data_dir / "demo.json").write_text(json.dumps(graph))
    assert client.get(URL).status_code == 204
    assert client.get("/api/graphs/demo").status_code == 200
