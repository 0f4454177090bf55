"""Range requests over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from .builders import make_client

CONTENT = bytes(range(100))


@pytest.fixture
def features(tmp_path: Path) -> TestClient:
    for name in ("graphs", "features"):
        (tmp_path / name).mkdir()
    (tmp_path / "features" / "layer_0.bin").write_bytes(CONTENT)
    return make_client(tmp_path / "graphs", features_dir=tmp_path / "features")


def test_part_of_a_file(features: TestClient) -> None:
    reply = features.get("/features/layer_0.bin", headers={"Range": "bytes=10-19"})
    assert (reply.status_code, reply.content) == (206, CONTENT[10:20])
    assert reply.headers["content-range"] == "bytes 10-19/100"
    assert reply.headers["content-length"] == "10"
    assert reply.headers["content-type"] == "application/octet-stream"
    assert "access-control-allow-origin" not in reply.headers


def test_the_last_bytes(features: TestClient) -> None:
    reply = features.get("/features/layer_0.bin", headers={"Range": "bytes=-5"})
    assert (reply.status_code, reply.content) == (206, CONTENT[-5:])


def test_beyond_the_end_over_http(features: TestClient) -> None:
    reply = features.get("/features/layer_0.bin", headers={"Range": "bytes=100-"})
    assert reply.status_code == 416
    assert reply.headers["content-range"] == "bytes */100"
    assert reply.json()["error"]


UNCLEAR = [
    "bytes=x",
    "bytes=5-2",
    "bytes=-",
    "bytes=",
    "items=0-1",
    "bytes=1-2-3",
    "bytes=" + "9" * 5000 + "-",
]


@pytest.mark.parametrize("header", UNCLEAR, ids=range(len(UNCLEAR)))
def test_what_is_not_understood_gives_the_whole_file(features: TestClient, header: str) -> None:
    reply = features.get("/features/layer_0.bin", headers={"Range": header})
    assert (reply.status_code, reply.content) == (200, CONTENT)


def test_a_changed_file_is_sent_whole(features: TestClient) -> None:
    tag = features.get("/features/layer_0.bin").headers["etag"]
    fresh = features.get("/features/layer_0.bin", headers={"Range": "bytes=0-1", "If-Range": tag})
    stale = features.get("/features/layer_0.bin", headers={"Range": "bytes=0-1", "If-Range": '"old"'})
    assert (fresh.status_code, stale.status_code) == (206, 200)


def test_head_tells_the_length(features: TestClient) -> None:
    reply = features.head("/features/layer_0.bin", headers={"Range": "bytes=0-9"})
    assert (reply.status_code, reply.headers["content-length"], reply.content) == (206, "10", b"")


def test_unchanged_files_are_not_sent_again(features: TestClient) -> None:
    tag = features.get("/features/layer_0.bin").headers["etag"]
    assert features.get("/features/layer_0.bin", headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize(
    ("header", "part"), [("bytes=0-0", (0, 1)), ("bytes=90-200", (90, 100)), ("bytes=-500", (0, 100))]
)
def test_ends_beyond_the_file_are_its_end(features: TestClient, header: str, part: tuple[int, int]) -> None:
    reply = features.get("/features/layer_0.bin", headers={"Range": header})
    assert (reply.status_code, reply.content) == (206, CONTENT[slice(*part)])


def test_several_ranges_come_in_one_reply(features: TestClient) -> None:
    reply = features.get("/features/layer_0.bin", headers={"Range": "bytes=1-2,4-5"})
    assert reply.status_code == 206
    assert reply.headers["content-type"].startswith("multipart/byteranges")
    assert CONTENT[1:3] in reply.content
    assert len(reply.content) == int(reply.headers["content-length"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.from_regex(r"bytes=[0-9]{0,4}-[0-9]{0,4}", fullmatch=True))
def test_a_range_is_never_outside_the_file(features: TestClient, header: str) -> None:
    reply = features.get("/features/layer_0.bin", headers={"Range": header})
    assert reply.status_code in (200, 206, 416)
    assert reply.status_code == 416 or reply.content in CONTENT
