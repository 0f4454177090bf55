"""Servers that other machines can reach want a token from them."""

from __future__ import annotations

import logging
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from circuit_tracer_cli.server.access import cookie_name, is_loopback, token_for
from circuit_tracer_cli.server.serve import serve

from .builders import make_client, make_page

COOKIE = cookie_name("s3cret")
PATHS = ["/", "/api/graphs", "/data/demo.json", "/src/main.js"]


@pytest.fixture
def stranger(data_dir: Path) -> TestClient:
    return make_client(
        data_dir, host="0.0.0.0", base="http://192.168.1.5:8041", token="s3cret", peer="192.168.1.9"
    )


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_given_away(stranger: TestClient, path: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Cookie": f"{COOKIE}=wrong"},
        {"Cookie": "\x01=;;"},
    ):
        reply = stranger.get(path, headers=headers)
        assert reply.status_code == 401
        assert set(reply.json()) == {"error", "hint"}
    assert stranger.get(f"{path}?token=wrong").status_code == 401


def test_writing_wants_it_too(data_dir: Path, stranger: TestClient) -> None:
    before = (data_dir / "demo.json").read_bytes()
    assert stranger.post("/save_graph/demo", json={"qParams": {"linkType": "input"}}).status_code == 401
    assert (data_dir / "demo.json").read_bytes() == before


def test_the_link_opens_the_page_and_a_cookie_the_rest(stranger: TestClient) -> None:
    page = stranger.get("/?token=s3cret")
    assert page.status_code == 200
    assert "HttpOnly" in page.headers["set-cookie"]
    assert "SameSite=Strict" in page.headers["set-cookie"]
    assert [stranger.get(path).status_code for path in PATHS] == [200] * 4


def test_scripts_may_send_it_as_a_header(stranger: TestClient) -> None:
    assert stranger.get("/api/graphs", headers={"Authorization": "Bearer s3cret"}).status_code == 200


def test_this_machine_needs_the_token_too(data_dir: Path) -> None:
    """On a login node every local user could read and write otherwise."""
    neighbour = make_client(data_dir, host="0.0.0.0", token="s3cret", peer="127.0.0.1")
    assert neighbour.get("/api/graphs").status_code == 401
    assert neighbour.get("/api/graphs?token=s3cret").status_code == 200


@pytest.mark.parametrize("path", [*PATHS, "/healthz"])
def test_a_wrong_token_is_refused_even_beside_the_right_one(stranger: TestClient, path: str) -> None:
    right = {"Cookie": f"{COOKIE}=s3cret"}
    assert stranger.get(path, headers=right).status_code == 200
    assert stranger.get(f"{path}?token=wrong", headers=right).status_code == 401
    assert stranger.get(f"{path}?token=s3cret&token=wrong", headers=right).status_code == 401
    assert stranger.get(path, headers={**right, "Authorization": "Bearer wrong"}).status_code == 401
    assert stranger.get(path, headers={**right, "Authorization": "Basic dXNlcg=="}).status_code == 200
    for wrong in ("", "é", "s3cre", "s3crett", "S3CRET"):
        assert stranger.get(path, params={"token": wrong}).status_code == 401


def test_health_is_open_but_not_to_a_wrong_token(stranger: TestClient) -> None:
    assert stranger.get("/healthz").status_code == 200
    assert stranger.get("/healthz?token=wrong").status_code == 401


def test_a_stale_cookie_is_renewed_by_the_link(stranger: TestClient) -> None:
    stale = {"Cookie": f"{COOKIE}=old"}
    assert stranger.get("/", headers=stale).status_code == 401
    assert "s3cret" in stranger.get("/?token=s3cret", headers=stale).headers["set-cookie"]
    assert cookie_name("one") != cookie_name("two")


@pytest.mark.parametrize(
    ("host", "wanted", "has"),
    [
        ("127.0.0.1", None, False),
        ("127.0.0.1", True, True),
        ("127.0.0.1", False, False),
        ("0.0.0.0", None, True),
        ("0.0.0.0", False, False),
        ("192.168.1.5", None, True),
    ],
)
def test_who_has_a_token(host: str, wanted: bool | None, has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CIRCUIT_TRACER_TOKEN", raising=False)
    assert (token_for(host, wanted) is not None) is has
    monkeypatch.setenv("CIRCUIT_TRACER_TOKEN", "mine")
    assert token_for(host, wanted) == ("mine" if has else None)


def test_which_addresses_are_reachable_from_elsewhere() -> None:
    assert [
        is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1", "::ffff:127.0.0.1")
    ] == [True] * 5
    assert [
        is_loopback(host) for host in ("0.0.0.0", "", "::", "192.168.1.5", "example.org", "testclient")
    ] == [False] * 6
    assert token_for("127.0.0.1") is None
    first, second = token_for("0.0.0.0"), token_for("0.0.0.0")
    assert first is not None
    assert first != second


def test_a_public_server_says_its_link(
    data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        serve(data_dir, make_page(tmp_path / "page"), port=0, host="0.0.0.0") as server,
    ):
        assert server.link in caplog.text
        assert urlsplit(server.link).query.startswith("token=")
        assert server.url == f"http://127.0.0.1:{server.port}/"
        token = urlsplit(server.link).query
        with urllib.request.urlopen(f"{server.url}api/graphs?{token}", timeout=5) as reply:
            assert reply.status == 200


def test_a_private_server_has_no_token(data_dir: Path, tmp_path: Path) -> None:
    with serve(data_dir, make_page(tmp_path / "page"), port=0) as server:
        assert server.link == server.url
