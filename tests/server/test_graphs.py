"""Listing, reading and saving graph files."""

from __future__ import annotations

import gzip
import json
import math
import os
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from circuit_tracer_cli.errors import BadGraphFile, OutputError
from circuit_tracer_cli.export import compact
from circuit_tracer_cli.export.report import save_report
from circuit_tracer_cli.files import atomic
from circuit_tracer_cli.server import graphs
from circuit_tracer_cli.server.graphs import GraphFolder
from circuit_tracer_cli.server.replies import BodyCache

from .builders import make_client, make_graph, write_graph


def put(client: TestClient, slug: str, params: Any, etag: str | None) -> Any:
    headers = {} if etag is None else {"If-Match": etag}
    return client.put(f"/api/graphs/{slug}/annotations", json=params, headers=headers)


def test_listing_merges_files_and_metadata(data_dir: Path, client: TestClient) -> None:
    write_graph(data_dir, "another")
    listed = [{"slug": "gone"}, {"slug": "demo", "title_prefix": "A", "prompt": "old"}]
    (data_dir / "graph-metadata.json").write_text(json.dumps({"graphs": listed}))
    reply = client.get("/api/graphs").json()
    assert [graph["slug"] for graph in reply["graphs"]] == ["demo", "another"]
    assert reply["graphs"][0]["title_prefix"] == "A"
    assert reply["graphs"][0]["prompt"] == " a"
    assert reply["errors"] == []


def test_the_nodes_alone_with_all_that_is_plain(data_dir: Path, client: TestClient) -> None:
    document = make_graph("odd")
    document["metadata"]["prompt"] = "half \ud83d"
    document["nodes"] = [
        {
            "node_id": "a",
            "feature": 3,
            "is_target_logit": True,
            "clerp": "é\ud83d",
            "influence": None,
            "extra": [1],
        },
        7,
    ]
    (data_dir / "odd.json").write_text(json.dumps(document))
    reply = client.get("/api/graphs/odd/nodes")
    plain = {"node_id": "a", "feature": 3, "is_target_logit": True, "clerp": "é\ud83d"}
    assert reply.json() == {"nodes": [plain, {}]}
    assert client.get("/api/graphs/odd/view").json()["metadata"]["prompt"] == "half \ud83d"
    assert client.get("/api/graphs/none/nodes").status_code == 404
    tag = {"If-None-Match": reply.headers["etag"]}
    assert client.get("/api/graphs/odd/nodes", headers=tag).status_code == 304


def test_heads_kept_on_links(data_dir: Path, client: TestClient) -> None:
    document = make_graph("headed")
    document["links"][0] |= {"heads": [[3, 2, 0, 0.25]], "heads_rest": -0.15}
    (data_dir / "headed.json").write_text(json.dumps(document))
    told = client.get("/api/graphs/headed/heads").json()["links"]
    assert told == [["E_5_0", "1_7_0", 0.10000000149011612, [[3, 2, 0, 0.25]], -0.15]]
    assert client.get("/api/graphs/demo/heads").json() == {"links": []}
    assert client.get("/api/graphs/none/heads").status_code == 404


def test_new_changed_and_removed_files_are_seen_at_once(data_dir: Path, client: TestClient) -> None:
    def slugs() -> set[str]:
        return {graph["slug"] for graph in client.get("/api/graphs").json()["graphs"]}

    assert slugs() == {"demo"}
    path = write_graph(data_dir, "later")
    assert slugs() == {"demo", "later"}
    path.write_text("{")
    assert slugs() == {"demo"}
    path.unlink()
    assert slugs() == {"demo"}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"metadata": {}}', b'{"metadata": 1, "nodes": [], "links": []}', b"\xff\xfe",
     b'{"metadata": {}, "nodes": [{"x": NaN], "links": []}', b'{"metadata": {}, "nodes": 1, "links": []}',
     b'{"metadata": {}, "nodes": [], "links": []} x', b'{"a" 1}', b"[" * 200_000, b'{"a":' * 100_000],
)  # fmt: skip
def test_invalid_files_are_named_and_do_no_harm(data_dir: Path, client: TestClient, content: bytes) -> None:
    (data_dir / "bad.json").write_bytes(content)
    reply = client.get("/api/graphs").json()
    assert [graph["slug"] for graph in reply["graphs"]] == ["demo"]
    assert [problem["slug"] for problem in reply["errors"]] == ["bad"]
    direct = client.get("/api/graphs/bad")
    assert direct.status_code == 422
    assert set(direct.json()) == {"error", "hint"}
    assert put(client, "bad", {}, "*").status_code in (200, 422)


@pytest.mark.parametrize("large", [False, True])
def test_links_without_a_finite_weight_are_left_out_and_counted(
    data_dir: Path, client: TestClient, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """As Python writes them; browsers refuse such a file as a whole. The file itself stays as it is."""
    graph = make_graph("odd")
    (link,) = graph["links"][:1]
    graph["links"] += [{**link, "weight": weight} for weight in (math.nan, math.inf, -math.inf)]
    graph["nodes"][0]["influence"] = math.nan
    path = data_dir / "odd.json"
    path.write_text(json.dumps(graph))
    if large:
        monkeypatch.setattr(compact, "COMPACT_FROM", 1)
        content = client.get("/api/graphs/odd/compact").content
        _, _, size, edges = struct.unpack_from("<4sIII", content)
        assert edges == len(graph["links"]) - 3
        assert json.loads(content[16 : 16 + size])["metadata"]["edges_left_out"] == 3
    reply = client.get("/api/graphs/odd")
    served = json.loads(reply.content, parse_constant=lambda name: pytest.fail(name))
    assert served["links"] == make_graph("odd")["links"]
    assert served["metadata"]["edges_left_out"] == 3
    assert served["nodes"][0]["influence"] is None
    listed = {entry["slug"]: entry for entry in client.get("/api/graphs").json()["graphs"]}
    assert listed["odd"]["edges_left_out"] == 3
    assert "edges_left_out" not in listed["demo"]
    assert put(client, "odd", {"clickedId": "E_5_0"}, reply.headers["ETag"]).status_code == 200
    assert path.read_text().count('"weight": NaN') == 1


def test_every_truncation_of_a_graph_is_refused(data_dir: Path, client: TestClient) -> None:
    whole = (data_dir / "demo.json").read_bytes()
    for length in range(0, len(whole) - 1, 97):
        (data_dir / "cut.json").write_bytes(whole[:length])
        assert client.get("/api/graphs/cut").status_code == 422
        assert "cut" not in [graph["slug"] for graph in client.get("/api/graphs").json()["graphs"]]


def test_a_large_file_is_listed_by_its_head(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_WHOLE_UP_TO", 64)
    monkeypatch.setattr(graphs, "_PARSED_UP_TO", 64)
    assert GraphFolder(data_dir, data_dir).read("demo").content == (data_dir / "demo.json").read_bytes()
    assert [graph["slug"] for graph in GraphFolder(data_dir, data_dir).listing().graphs] == ["demo"]
    whole = (data_dir / "demo.json").read_bytes()
    (data_dir / "demo.json").write_bytes(whole[: len(whole) // 2])
    assert [problem["slug"] for problem in GraphFolder(data_dir, data_dir).listing().errors] == ["demo"]
    with pytest.raises(BadGraphFile, match="end is missing"):
        GraphFolder(data_dir, data_dir).read("demo")


def test_a_broken_metadata_file_hides_nothing(data_dir: Path, client: TestClient) -> None:
    for content in ("{", "[]", '{"graphs": [1]}', '{"graphs": [{"slug": []}]}'):
        (data_dir / "graph-metadata.json").write_text(content)
        assert [graph["slug"] for graph in client.get("/api/graphs").json()["graphs"]] == ["demo"]


def test_validators_and_compression(data_dir: Path, client: TestClient) -> None:
    graph = make_graph("big")
    graph["nodes"] = graph["nodes"] * 200
    (data_dir / "big.json").write_text(json.dumps(graph))
    plain = client.get("/api/graphs/big", headers={"Accept-Encoding": "identity"})
    packed = client.get("/api/graphs/big", headers={"Accept-Encoding": "gzip"})
    refused = client.get("/api/graphs/big", headers={"Accept-Encoding": "gzip;q=0, br"})
    assert "content-encoding" not in plain.headers
    assert "content-encoding" not in refused.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(plain.content) / 4
    assert packed.content == plain.content == (data_dir / "big.json").read_bytes()
    assert packed.headers["vary"] == "Accept-Encoding"
    tag = plain.headers["etag"]
    assert client.get("/api/graphs/big", headers={"If-None-Match": f'"x", W/{tag}'}).status_code == 304
    (data_dir / "big.json").write_text(json.dumps(make_graph("other")))
    assert client.get("/api/graphs/big", headers={"If-None-Match": tag}).status_code == 200


def test_reference_routes(data_dir: Path, client: TestClient) -> None:
    for path in ("/data/demo.json", "/graph_data/demo.json", "/graph_data/demo.json?cache=1"):
        reply = client.get(path)
        assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
        assert reply.content == (data_dir / "demo.json").read_bytes()
    assert client.head("/data/demo.json").headers["content-length"] == str(
        (data_dir / "demo.json").stat().st_size
    )
    (data_dir / "demo.pt").write_bytes(b"\0" * 10)
    assert client.get("/data/demo.pt").headers["content-type"] == "application/octet-stream"


def test_saving_changes_nothing_but_the_annotations(data_dir: Path, client: TestClient) -> None:
    path = write_graph(data_dir, "demo", pinnedIds=[], linkType="both")
    os.chmod(path, 0o640)
    before = path.read_text()
    tag = client.get("/api/graphs/demo").headers["etag"]
    params = {
        "pinnedIds": ["1_7_0"],
        "supernodes": [["größe “x”", "1_7_0"]],
        "clerps": [["43", "名前"]],
        "mine": {"a": 1},
    }
    reply = put(client, "demo", params, tag)
    after = path.read_text()
    assert reply.status_code == 200
    assert json.loads(after)["qParams"] == params
    head, tail = before.split('"qParams"')[0], before[before.index('"nodes"') :]
    assert after.startswith(head)
    assert after.endswith(tail)
    assert reply.headers["etag"] == client.get("/api/graphs/demo").headers["etag"] != tag
    assert path.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in data_dir.iterdir() if not file.name.endswith(".lock")] == ["demo.json"]


def test_annotations_are_added_where_there_were_none(data_dir: Path, client: TestClient) -> None:
    graph = make_graph()
    del graph["qParams"]
    (data_dir / "demo.json").write_text(json.dumps(graph))
    assert put(client, "demo", {"pinnedIds": ["a"]}, "*").status_code == 200
    saved = json.loads((data_dir / "demo.json").read_text())
    assert saved == {**graph, "qParams": {"pinnedIds": ["a"]}}


def test_conflicts(client: TestClient) -> None:
    tag = client.get("/api/graphs/demo").headers["etag"]
    assert put(client, "demo", {}, None).status_code == 428
    first = put(client, "demo", {"pinnedIds": ["first"]}, tag)
    stale = put(client, "demo", {"pinnedIds": ["second"]}, tag)
    assert (first.status_code, stale.status_code) == (200, 412)
    assert set(stale.json()) == {"error", "hint"}
    assert client.get("/api/graphs/demo").json()["qParams"] == {"pinnedIds": ["first"]}
    assert put(client, "demo", {"pinnedIds": ["second"]}, stale.headers["etag"]).status_code == 200
    assert put(client, "demo", {}, f"W/{tag}").status_code == 412
    assert put(client, "missing", {}, "*").status_code == 404


def test_a_file_changed_by_another_program_is_a_conflict(data_dir: Path, client: TestClient) -> None:
    tag = client.get("/api/graphs/demo").headers["etag"]
    write_graph(data_dir, "demo", pinnedIds=["theirs"])
    assert put(client, "demo", {"pinnedIds": ["mine"]}, tag).status_code == 412


def test_of_two_writers_one_wins(data_dir: Path) -> None:
    folders = [GraphFolder(data_dir, data_dir), GraphFolder(data_dir, data_dir)]
    tag = folders[0].read("demo").etag
    outcomes: list[str] = []
    barrier = threading.Barrier(12)

    def write(number: int) -> None:
        barrier.wait()
        try:
            folders[number % 2].save("demo", {"pinnedIds": [str(number)]}, lambda present: present == tag)
            outcomes.append("saved")
        except graphs.StaleTag:
            outcomes.append("stale")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["saved"] + ["stale"] * 11
    assert len(json.loads((data_dir / "demo.json").read_text())["qParams"]["pinnedIds"]) == 1


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_file(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = (data_dir / "demo.json").read_bytes()

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, step, full)
    with pytest.raises(OutputError, match="no space left"):
        GraphFolder(data_dir, data_dir).save("demo", {"pinnedIds": ["x"]}, lambda _: True)
    monkeypatch.undo()
    assert (data_dir / "demo.json").read_bytes() == before
    assert [file.name for file in data_dir.iterdir() if not file.name.endswith(".lock")] == ["demo.json"]
    assert put(make_client(data_dir), "demo", {}, "*").status_code == 200


def test_a_full_disk_is_507(data_dir: Path, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "replace", full)
    reply = put(client, "demo", {"clickedId": "1_7_0"}, "*")
    assert reply.status_code == 507
    assert "no space left" in reply.json()["error"]


def test_half_a_character_is_refused(data_dir: Path, client: TestClient) -> None:
    body = b'{"clickedId": "\\ud800"}'
    reply = client.put("/api/graphs/demo/annotations", content=body, headers={"If-Match": "*"})
    assert reply.status_code == 422
    assert json.loads((data_dir / "demo.json").read_text())["qParams"] == {}


def test_bodies_are_kept_within_the_limit(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(os.urandom(1000))
    cache = BodyCache(max_bytes=2500)
    bodies = [cache.read(path) for path in paths]
    assert cache.read(paths[2]) is bodies[2]
    assert cache.read(paths[0]) is not bodies[0]
    (tmp_path / "large").write_bytes(os.urandom(5000))
    assert cache.read(tmp_path / "large") is not cache.read(tmp_path / "large")


def test_a_file_that_fails_its_check_is_not_kept(data_dir: Path) -> None:
    folder = GraphFolder(data_dir, data_dir)
    (data_dir / "bad.json").write_text("{}")
    assert folder.read_file("bad.json").content == b"{}"
    for _ in range(2):
        with pytest.raises(BadGraphFile, match="metadata"):
            folder.read("bad")


def test_golden_graphs_are_served_as_they_are(golden: Path, tmp_path: Path) -> None:
    folder = tmp_path / "graphs"
    folder.mkdir()
    for path in sorted(golden.glob("cases/*/graph.json*")):
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        (folder / f"{path.parent.name}.json").write_bytes(raw)
    client = make_client(folder)
    listing = client.get("/api/graphs").json()
    assert listing["errors"] == []
    assert len(listing["graphs"]) == len(list(folder.glob("*.json"))) > 0
    for graph in listing["graphs"]:
        assert client.get(f"/api/graphs/{graph['slug']}").json()["metadata"]["prompt"] == graph["prompt"]


def test_numbers_that_json_has_no_word_for_are_refused(data_dir: Path, client: TestClient) -> None:
    path = write_graph(data_dir, "demo", pinnedIds=[])
    before = path.read_bytes()
    tag = client.get("/api/graphs/demo").headers["etag"]
    reply = client.put("/api/graphs/demo/annotations", content=b'{"x": 1e999}', headers={"If-Match": tag})
    assert reply.status_code == 400
    assert path.read_bytes() == before
    assert client.get("/api/graphs/demo").status_code == 200


def test_a_page_learns_what_changed_in_a_file(data_dir: Path, client: TestClient) -> None:
    path, whole = data_dir / "demo.json", client.get("/api/graphs/demo")
    first = client.get("/api/graphs/demo/view")
    assert first.json() == {name: whole.json()[name] for name in ("metadata", "qParams")}
    assert first.headers["etag"] == whole.headers["etag"]
    unchanged = {"If-None-Match": first.headers["etag"]}
    assert client.get("/api/graphs/demo/view", headers=unchanged).status_code == 304
    save_report(path, {"version": 1, "checks": []})
    second = client.get("/api/graphs/demo/view", headers=unchanged)
    assert second.json()["metadata"]["validation"] == {"version": 1, "checks": []}
    assert second.headers["etag"] == client.get("/api/graphs/demo").headers["etag"] != first.headers["etag"]
    assert client.get("/api/graphs").json()["graphs"][0]["validation"]["version"] == 1
    assert client.get("/api/graphs/none/view").status_code == 404
