"""Range requests, by the table of RFC 9110 and over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from circuit_tracer_cli.server.ranges import UnsatisfiableRange, parse_range

from .builders import make_client

CONTENT = bytes(range(100))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-200", (90, 100)),
        ("bytes=90-", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-500", (0, 100)),
        ("Bytes = 1-2", (1, 3)),
        ("bytes=0-1,5-6", None),
        ("bytes=5-2", None),
        ("bytes=a-b", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("items=0-1", None),
        ("bytes=1-2-3", None),
        ("bytes=" + "9" * 5000 + "-", None),
        ("bytes=٣-٤", None),
    ],
)
def test_parsing(header: str | None, expected: tuple[int, int] | None) -> None:
    assert parse_range(header, 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_beyond_the_end(header: str) -> None:
    with pytest.raises(UnsatisfiableRange):
        parse_range(header, 100)


def test_an_empty_file_has_no_range() -> None:
    for header in ("bytes=0-", "bytes=-1"):
        with pytest.raises(UnsatisfiableRange):
            parse_range(header, 0)


@given(st.text(max_size=30) | st.from_regex(r"bytes=\d{0,4}-\d{0,4}", fullmatch=True), st.integers(0, 500))
def test_a_range_is_never_outside_the_file(header: str, size: int) -> None:
    try:
        part = parse_range(header, size)
    except UnsatisfiableRange:
        return
    assert part is None or 0 <= part[0] < part[1] <= size


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


@pytest.mark.parametrize("header", ["bytes=x", "bytes=1-2,4-5"])
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
