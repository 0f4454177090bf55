"""Feature examples: decoded by the server, and as files."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from circuit_tracer_cli.export.records import cantor_code as cantor
from circuit_tracer_cli.export.records import cantor_decode as uncantor

from .builders import make_client, write_features, write_graph

RECORD = {"index": 2, "top_logits": [" né", "的"], "examples_quantiles": []}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("graphs", "features"):
        (tmp_path / name).mkdir()
    write_features(tmp_path / "features", {(1, 2): RECORD, (0, 3): {"index": 3}})
    return tmp_path


@pytest.fixture
def client(folder: Path) -> TestClient:
    return make_client(folder / "graphs", features_dir=folder / "features")


def test_a_record(client: TestClient) -> None:
    assert client.get("/api/features/1/2").json() == RECORD
    assert client.get("/features/8.json").json() == RECORD
    assert client.get("/api/features/0/3").json() == {"index": 3}


@pytest.mark.parametrize("path", ["1/0", "1/4", "1/99999999999999999999", "2/0", "99/1"])
def test_no_record(client: TestClient, path: str) -> None:
    reply = client.get(f"/api/features/{path}")
    assert (reply.status_code, reply.content) == (204, b"")


def test_without_a_folder_the_hint_names_the_option(folder: Path) -> None:
    client = make_client(folder / "graphs")
    for path in ("/api/features/1/2", "/features/index.json.gz"):
        reply = client.get(path)
        assert reply.status_code == 404
        assert "--features-dir" in reply.json()["hint"]
    assert client.get("/healthz").json()["features"] is False


def test_files_are_sent_as_they_are(folder: Path, client: TestClient) -> None:
    reply = client.get("/features/index.json.gz", headers={"Accept-Encoding": "gzip"})
    assert reply.content == (folder / "features" / "index.json.gz").read_bytes()
    assert "content-encoding" not in reply.headers
    offsets = json.loads(gzip.decompress(reply.content))[1]["offsets"]
    part = client.get("/features/layer_1.bin", headers={"Range": f"bytes={offsets[2]}-{offsets[3]}"}).content
    (length,) = struct.unpack("<I", part[:4])
    assert json.loads(zlib.decompress(part[4 : 4 + length])) == RECORD


def test_an_index_by_name_and_gzip_records(folder: Path, client: TestClient) -> None:
    body = gzip.compress(json.dumps(RECORD).encode())
    (folder / "features" / "x.bin").write_bytes(struct.pack("<I", len(body)) + body)
    index = {"7": {"filename": "x.bin", "offsets": [0, 4 + len(body)]}, "8": None}
    (folder / "features" / "index.json.gz").write_bytes(gzip.compress(json.dumps(index).encode()))
    assert client.get("/api/features/7/0").json() == RECORD


def test_labels_of_a_graph(folder: Path, client: TestClient) -> None:
    write_graph(folder / "graphs", "demo")
    label = {"text": "capitals", "provenance": "auto: peaks", "confidence": 0.5}
    labels = {"1/7": label, "1/8": {**label, "text": "not in the graph"}}
    assert client.get("/api/graphs/demo/labels").json() == {"labels": {}}
    (folder / "features" / "labels.json.gz").write_bytes(gzip.compress(json.dumps(labels).encode()))
    assert make_client(folder / "graphs", features_dir=folder / "features").get(
        "/api/graphs/demo/labels"
    ).json() == {"labels": {"43": label}}
    assert make_client(folder / "graphs").get("/api/graphs/demo/labels").json() == {"labels": {}}
    assert client.get("/api/graphs/nope/labels").status_code == 404


def test_cantor_codes_are_exact() -> None:
    for layer, feature in [(0, 0), (0, 6200), (24, 2394), (47, 2**24 - 1), (3, 94906265)]:
        assert uncantor(cantor(layer, feature)) == (layer, feature)
    assert cantor(24, 2394) == 2926965


def test_a_rebuilt_folder_is_read_again(folder: Path, client: TestClient) -> None:
    assert client.get("/api/features/1/2").json() == RECORD
    write_features(folder / "features", {(1, 2): {"index": 2, "rebuilt": "yes"}})
    assert client.get("/api/features/1/2").json()["rebuilt"] == "yes"


@pytest.mark.parametrize(
    "index",
    [b"", b"not gzip", gzip.compress(b"{", mtime=0), gzip.compress(b'[{"filename": "x"}]', mtime=0),
     gzip.compress(b'[{"filename": "x", "offsets": ["a"]}]', mtime=0),
     gzip.compress(b"[1]", mtime=0), gzip.compress(b'{"x": {"filename": "x", "offsets": []}}', mtime=0),
     gzip.compress(b"[]", mtime=0)[:-4]],
    ids=range(8),
)  # fmt: skip
def test_a_broken_index_is_an_error_with_a_hint(folder: Path, client: TestClient, index: bytes) -> None:
    (folder / "features" / "index.json.gz").write_bytes(index)
    reply = client.get("/api/features/0/0")
    assert reply.status_code == 422
    assert "features build" in reply.json()["hint"]


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "length"])
def test_a_broken_record_is_an_error(folder: Path, client: TestClient, damage: str) -> None:
    path = folder / "features" / "layer_1.bin"
    whole = path.read_bytes()
    length = struct.pack("<I", 2**32 - 1)
    path.write_bytes(
        {"cut": whole[:-9], "noise": whole[:4] + b"\7" * 40, "empty": b"", "length": length + whole[4:-9]}[
            damage
        ]
    )
    assert client.get("/api/features/1/2").status_code == 422


def test_an_index_cannot_name_a_file_elsewhere(folder: Path, client: TestClient) -> None:
    (folder / "secret.bin").write_bytes((folder / "features" / "layer_1.bin").read_bytes())
    index = [{"filename": "../secret.bin", "offsets": [0, 100]}]
    (folder / "features" / "index.json.gz").write_bytes(gzip.compress(json.dumps(index).encode()))
    assert client.get("/api/features/0/0").status_code == 404
