"""Labels that graphs of one transcoder set share."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from circuit_tracer_cli.errors import InvalidType, InvalidValue
from circuit_tracer_cli.server import labels as shared_labels
from circuit_tracer_cli.server.labels import SharedLabels, changed_labels, labels_folder

from .builders import make_client, make_graph, write_features, write_graph

CODE = "43"  # of feature 7 in layer 1, which every test graph has


@pytest.fixture
def sharing(data_dir: Path) -> TestClient:
    """A client over two graphs of one set and one of another."""
    write_graph(data_dir, "second")
    other = make_graph("other")
    other["metadata"]["scan"] = "another set"
    (data_dir / "other.json").write_text(json.dumps(other))
    return make_client(data_dir, labels_dir=data_dir.parent / "labels")


def save(client: TestClient, slug: str, clerps: Any) -> None:
    reply = client.put(f"/api/graphs/{slug}/annotations", json={"clerps": clerps}, headers={"If-Match": "*"})
    assert reply.status_code == 200


def labels(client: TestClient, slug: str) -> dict[str, Any]:
    return client.get(f"/api/graphs/{slug}/labels").json()["labels"]


def test_a_label_is_offered_to_the_other_graphs_of_the_set(sharing: TestClient) -> None:
    save(sharing, "demo", [[CODE, "größe"], ["7", "isn't in these graphs"]])
    for slug in ("demo", "second"):
        label = labels(sharing, slug)[CODE]
        assert (label["text"], label["provenance"]) == ("größe", "user")
        assert label["author"]
        assert label["time_ms"] > 1_700_000_000_000
        assert "7" not in labels(sharing, slug)
    assert labels(sharing, "other") == {}
    assert "clerps" not in sharing.get("/api/graphs/second").json()["qParams"]


def test_only_what_was_edited_changes(sharing: TestClient) -> None:
    save(sharing, "demo", [[CODE, "first"], ["7", "kept"]])
    save(sharing, "second", [[CODE, "second"]])
    save(sharing, "demo", [[CODE, "first"], ["7", "new"]])
    assert labels(sharing, "demo")[CODE]["text"] == "second"
    save(sharing, "second", [])
    assert CODE not in labels(sharing, "demo")


def test_a_persons_label_comes_before_a_proposed_one(data_dir: Path) -> None:
    import gzip

    write_features(data_dir.parent, {(1, 3): {"index": 3}})
    proposal = {"text": "proposed", "provenance": "words", "confidence": 0.5}
    (data_dir.parent / "labels.json.gz").write_bytes(gzip.compress(json.dumps({"1/7": proposal}).encode()))
    client = make_client(data_dir, features_dir=data_dir.parent, labels_dir=data_dir.parent / "labels")
    assert labels(client, "demo")[CODE] == proposal
    save(client, "demo", [[CODE, "mine"]])
    assert labels(client, "demo")[CODE]["text"] == "mine"
    save(client, "demo", [])
    assert labels(client, "demo")[CODE] == proposal


def test_export_and_import(sharing: TestClient) -> None:
    save(sharing, "demo", [[CODE, "mine"], ["7", "other"]])
    exported = sharing.get("/api/graphs/second/labels/shared")
    assert "attachment" in exported.headers["content-disposition"]
    document = exported.json()
    assert (document["format"], document["set"]) == ("circuit-tracer-labels", "set")
    reply = sharing.post("/api/graphs/other/labels/shared", json=document)
    assert reply.json() == {"taken": 2, "kept": 0}
    label = labels(sharing, "other")[CODE]
    assert (label["text"], label["provenance"]) == ("mine", "imported")
    assert label["author"] == document["labels"][CODE]["author"]
    document["labels"][CODE]["text"] = "theirs"
    assert sharing.post("/api/graphs/demo/labels/shared", json=document).json() == {"taken": 0, "kept": 1}
    assert labels(sharing, "demo")[CODE]["text"] == "mine"
    assert sharing.post("/api/graphs/demo/labels/shared?replace=1", json=document).json() == {
        "taken": 1,
        "kept": 0,
    }
    assert labels(sharing, "demo")[CODE]["text"] == "theirs"
    pairs = sharing.post("/api/graphs/other/labels/shared", json=[["9", "pair"], ["x", "no code"], 3])
    assert pairs.json() == {"taken": 1, "kept": 0}


@pytest.mark.parametrize(
    "document",
    [{}, None, 3, {"labels": []}, {"labels": {"1": 3}}, {"labels": {"x": "text"}}, {"labels": {"1": {"text": ""}}},
     {"labels": {"1": "x" * 3000}}],
)  # fmt: skip
def test_what_is_no_file_of_labels_is_refused(sharing: TestClient, document: Any) -> None:
    reply = sharing.post("/api/graphs/demo/labels/shared", content=json.dumps(document))
    assert reply.status_code == 422
    assert set(reply.json()) == {"error", "hint"}
    assert labels(sharing, "demo") == {}


def test_another_page_can_import_nothing(sharing: TestClient) -> None:
    headers = {"Origin": "https://evil.example"}
    assert (
        sharing.post(
            "/api/graphs/demo/labels/shared", json={"labels": {CODE: "x"}}, headers=headers
        ).status_code
        == 403
    )
    assert labels(sharing, "demo") == {}


def test_a_server_without_a_place_for_them_says_so(client: TestClient) -> None:
    assert client.get("/api/graphs/demo/labels").json() == {"labels": {}}
    assert client.get("/api/graphs/demo/labels/shared").status_code == 404
    save(client, "demo", [[CODE, "mine"]])


def test_a_label_that_can_not_be_shared_harms_no_save(data_dir: Path) -> None:
    (data_dir.parent / "labels").write_text("a file where the folder should be")
    client = make_client(data_dir, labels_dir=data_dir.parent / "labels")
    save(client, "demo", [[CODE, "mine"]])
    assert client.get("/api/graphs/demo").json()["qParams"]["clerps"] == [[CODE, "mine"]]


def test_a_damaged_file_counts_as_none_and_is_replaced(tmp_path: Path) -> None:
    shared = SharedLabels(tmp_path)
    shared.change("set", {"1": "a"})
    (path,) = tmp_path.glob("*.json")
    for content in ("", "{", "[]", '{"labels": 3}', '{"labels": {"1": 3}}', "[" * 100_000):
        path.write_text(content)
        assert shared.of("set") == {}
    shared.change("set", {"1": "b"})
    assert shared.of("set")["1"]["text"] == "b"


def test_two_servers_lose_nothing_of_each_other(tmp_path: Path) -> None:
    servers = [SharedLabels(tmp_path), SharedLabels(tmp_path)]

    def write(number: int) -> None:
        servers[number % 2].change("set", {str(number): f"label {number}"})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {code: label["text"] for code, label in servers[0].of("set").items()} == {
        str(number): f"label {number}" for number in range(16)
    }


def test_an_import_beside_a_save_overwrites_nothing_and_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person saves between the import's call and its turn; labels of three authors come in one write."""
    shared, other = SharedLabels(tmp_path), SharedLabels(tmp_path)
    shared.change("set", {"9": "first"})
    writes: list[Path] = []
    real_lock, real_write = shared_labels.locked_folder, shared_labels.write_bytes

    @contextmanager
    def late(folder: Path) -> Iterator[None]:
        monkeypatch.setattr(shared_labels, "locked_folder", real_lock)
        other.change("set", {"1": "saved"})
        writes.clear()
        with real_lock(folder):
            yield

    def write(path: Path, content: bytes) -> None:
        writes.append(path)
        real_write(path, content)

    monkeypatch.setattr(shared_labels, "locked_folder", late)
    monkeypatch.setattr(shared_labels, "write_bytes", write)
    texts = {str(code): {"text": f"theirs {code}", "author": f"author {code}"} for code in (1, 2, 3)}
    assert shared.take_in("set", {"labels": texts}) == (2, 1)
    assert len(writes) == 1
    found = {code: (label["text"], label["author"]) for code, label in shared.of("set").items()}
    assert found["1"][0] == "saved"
    assert (found["2"], found["3"]) == (("theirs 2", "author 2"), ("theirs 3", "author 3"))


def test_the_reasons_of_an_import(tmp_path: Path) -> None:
    with pytest.raises(InvalidType):
        SharedLabels(tmp_path).take_in("set", {"labels": {"1": None}})
    with pytest.raises(InvalidValue, match="2000"):
        SharedLabels(tmp_path).take_in("set", {"labels": {"1": "x" * 2001}})


CLERPS = st.dictionaries(st.integers(0, 9).map(str), st.text(min_size=1, max_size=3), max_size=5)


@given(CLERPS, CLERPS, st.booleans())
def test_the_change_leads_from_one_to_the_other(
    before: dict[str, str], after: dict[str, str], as_text: bool
) -> None:
    pairs = [list(pair) for pair in before.items()]
    change = changed_labels(json.dumps(pairs) if as_text else pairs, [list(pair) for pair in after.items()])
    merged = {**before, **change}
    assert {code: text for code, text in merged.items() if text is not None} == after
    assert all(before.get(code) != text for code, text in change.items())


def test_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert labels_folder() == Path("/data/circuit-tracer/labels")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert labels_folder() == Path.home() / ".local/share/circuit-tracer/labels"


def test_a_label_loses_the_marks_of_editors(sharing: TestClient, tmp_path: Path) -> None:
    """A file from a spreadsheet begins with a byte order mark and has CR LF where others have LF."""
    save(sharing, "demo", [[CODE, "\ufeffcapital\r\nof a state\r\n"]])
    assert labels(sharing, "second")[CODE]["text"] == "capital\nof a state"
    for document in (
        [[CODE, "\ufeffa\r\n"]],
        {"labels": {CODE: {"text": "a\r\n"}}},
        {"labels": {CODE: "\ufeffa"}},
    ):
        kept = SharedLabels(tmp_path / str(id(document)))
        kept.take_in("set", document)
        assert kept.of("set")[CODE]["text"] == "a"
