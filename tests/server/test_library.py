"""Upload, rename, duplicate, delete and restore, over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from circuit_tracer_cli.export import Destination
from circuit_tracer_cli.export.viewer import export
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.server import library
from tests.graph.builders import random_graph

from .builders import make_graph


def slugs(client: TestClient) -> list[str]:
    return sorted(graph["slug"] for graph in client.get("/api/graphs").json()["graphs"])


def upload(client: TestClient, graph: Any, slug: str | None = None) -> Any:
    return client.post(
        "/api/graphs", content=json.dumps(graph), params={} if slug is None else {"slug": slug}
    )


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_listing_has_what_a_library_shows(data_dir: Path, client: TestClient) -> None:
    reply = client.get("/api/graphs").json()
    (graph,) = reply["graphs"]
    file = (data_dir / "demo.json").stat()
    assert reply["folder"] == str(data_dir)
    assert (graph["prompt"], graph["folder"], graph["bytes"]) == (" a", "graphs", file.st_size)
    assert graph["modified_ms"] == file.st_mtime_ns // 1_000_000


def test_an_upload_is_listed_and_read_as_it_was_sent(data_dir: Path, client: TestClient) -> None:
    graph = make_graph("sent", pinnedIds=["1_7_0"], clerps=[["43", "größe"]])
    reply = upload(client, graph)
    assert reply.status_code == 201, reply.text
    assert reply.json()["slug"] == "sent"
    assert reply.headers["location"] == "api/graphs/sent"
    stored = client.get("/api/graphs/sent")
    assert stored.json() == graph
    assert stored.headers["etag"] == reply.headers["etag"]
    entries = json.loads((data_dir / "graph-metadata.json").read_bytes())["graphs"]
    assert [entry["slug"] for entry in entries] == ["sent"]


def test_a_name_that_is_taken_gets_a_number_or_is_refused(client: TestClient) -> None:
    assert [upload(client, make_graph("demo")).json()["slug"] for _ in range(2)] == ["demo-2", "demo-3"]
    assert client.get("/api/graphs/demo-3").json()["metadata"]["slug"] == "demo-3"
    reply = upload(client, make_graph("x"), "demo")
    assert reply.status_code == 409
    assert "demo-4" in reply.json()["hint"]
    assert upload(client, make_graph("x"), "mine").json()["slug"] == "mine"
    assert upload(client, make_graph("../../etc/x y")).json()["slug"] == "etc-x-y"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"metadata": {}}',
        b"PK\x03\x04" + b"\0" * 40,
        json.dumps(make_graph()).encode("utf-16"),
        json.dumps({**make_graph(), "links": [{"source": "a", "target": "b", "weight": "x"}]}).encode(),
        json.dumps(make_graph()).replace("0.8", "Nan").encode(),
        b"[" * 100_000,
    ],
    ids=range(9),
)
def test_what_is_not_a_graph_file_is_judged_before_it_is_stored(
    data_dir: Path, client: TestClient, content: bytes
) -> None:
    reply = client.post("/api/graphs", content=content)
    assert reply.status_code == 422
    assert set(reply.json()) == {"error", "hint"}
    assert visible(data_dir) == {"demo.json"}


def test_an_upload_has_a_limit_and_a_name_that_a_file_may_have(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slug in ("../x", "a b", ".hidden", "graph-metadata", "x" * 300):
        assert upload(client, make_graph(), slug).status_code == 422
    monkeypatch.setattr(library, "MAX_UPLOAD", 100)
    assert upload(client, make_graph()).status_code == 413
    foreign = {"Origin": "https://evil.example"}
    assert client.post("/api/graphs", json=make_graph(), headers=foreign).status_code == 403


def test_renaming_moves_everything_that_names_it(data_dir: Path, client: TestClient) -> None:
    export(pruned_graph(random_graph()), Destination("old", data_dir))
    before = client.get("/api/graphs/old").json()
    reply = client.patch("/api/graphs/old", json={"slug": "new", "title": "Dallas"})
    assert reply.status_code == 200
    assert (reply.json()["slug"], reply.json()["title"]) == ("new", "Dallas")
    after = client.get("/api/graphs/new").json()
    assert after["metadata"].pop("title") == "Dallas"
    assert after == {**before, "metadata": {**before["metadata"], "slug": "new"}}
    assert client.get("/api/graphs/old").status_code == 404
    assert slugs(client) == ["demo", "new"]
    entries = json.loads((data_dir / "graph-metadata.json").read_bytes())["graphs"]
    assert [(entry["slug"], entry["title"]) for entry in entries] == [("new", "Dallas")]
    assert client.patch("/api/graphs/new", json={"slug": "demo"}).status_code == 409
    assert client.patch("/api/graphs/new", json={"slug": "a/b"}).status_code == 422
    assert client.patch("/api/graphs/new", json={"name": "x"}).status_code == 422
    assert client.patch("/api/graphs/none", json={"slug": "x"}).status_code == 404


def test_a_title_alone_leaves_every_other_byte(data_dir: Path, client: TestClient) -> None:
    before = (data_dir / "demo.json").read_text()
    assert client.patch("/api/graphs/demo", json={"title": "a “title”"}).status_code == 200
    after = (data_dir / "demo.json").read_text()
    assert after.replace(', "title": "a “title”"', "") == before


def test_a_duplicate_is_a_graph_of_its_own(client: TestClient) -> None:
    first, second = (client.post("/api/graphs/demo/duplicate") for _ in range(2))
    assert [reply.json()["slug"] for reply in (first, second)] == ["demo-copy", "demo-copy-2"]
    named = client.post("/api/graphs/demo/duplicate", json={"slug": "mine"})
    assert (named.status_code, named.json()["slug"]) == (201, "mine")
    saved = client.put("/api/graphs/mine/annotations", json={"clickedId": "1_7_0"}, headers={"If-Match": "*"})
    assert saved.status_code == 200
    assert client.get("/api/graphs/demo").json()["qParams"] == {}
    assert client.post("/api/graphs/demo/duplicate", json={"slug": "mine"}).status_code == 409
    assert client.post("/api/graphs/demo/duplicate", content="{").status_code == 400


def test_a_deleted_graph_can_be_brought_back(data_dir: Path, client: TestClient) -> None:
    before = (data_dir / "demo.json").read_bytes()
    reply = client.delete("/api/graphs/demo")
    assert (reply.status_code, reply.json()["restore"]) == (200, "api/graphs/demo/restore")
    assert slugs(client) == []
    assert client.get("/api/graphs/demo").status_code == 404
    assert client.delete("/api/graphs/demo").status_code == 404
    assert client.get("/data/.trash/x").status_code == 404
    restored = client.post("/api/graphs/demo/restore")
    assert (restored.status_code, restored.json()["slug"]) == (200, "demo")
    assert (data_dir / "demo.json").read_bytes() == before
    assert slugs(client) == ["demo"]
    assert client.post("/api/graphs/demo/restore").status_code == 409
    assert client.post("/api/graphs/other/restore").status_code == 404


def test_of_two_deleted_graphs_of_a_name_the_last_comes_back_first(client: TestClient) -> None:
    for title in ("first", "second"):
        upload(client, make_graph("twice"), "twice.v1")
        client.patch("/api/graphs/twice.v1", json={"title": title})
        client.delete("/api/graphs/twice.v1")
    assert client.post("/api/graphs/twice.v1/restore").json()["title"] == "second"
    client.patch("/api/graphs/twice.v1", json={"slug": "kept"})
    assert client.post("/api/graphs/twice.v1/restore").json()["title"] == "first"
