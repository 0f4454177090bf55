"""Who is answered and who may write."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.server.access import AccessRules, check_origins

from .builders import PAGE, make_client

HUB = "https://hub.example.org"


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8041", True),
        ("localhost", True),
        ("LOCALHOST:9", True),
        ("localhost.", True),
        ("[::1]:8041", True),
        ("hub.example.org", True),
        ("evil.example.org", False),
        ("127.0.0.1.evil.example.org", False),
        ("localhost.evil.example.org", False),
        ("evil@localhost", False),
        ("localhost/x", False),
        ("192.168.1.5:8041", False),
        ("[::1", False),
        ("", False),
        (None, False),
    ],
)
def test_hosts(host: str | None, allowed: bool) -> None:
    assert AccessRules("127.0.0.1", check_origins([HUB])).host_allowed(host) is allowed


def test_a_server_on_all_interfaces_answers_to_addresses_but_not_to_foreign_names() -> None:
    rules = AccessRules("0.0.0.0")
    assert rules.host_allowed("192.168.1.5:8041")
    assert not rules.host_allowed("evil.example.org:8041")


def test_a_foreign_host_gets_nothing(data_dir: Path) -> None:
    client = make_client(data_dir, base="http://evil.example.org:8041")
    for path in ("/", "/api/graphs", "/data/demo.json", "/healthz"):
        reply = client.get(path)
        assert reply.status_code == 403
        assert set(reply.json()) == {"error", "hint"}


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": PAGE}, True),
        ({"Origin": PAGE, "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": HUB}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "http://127.0.0.1:9999", "Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "http://localhost:8041"}, False),
        ({"Origin": "https://evil.example.org"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
    ],
)
@pytest.mark.parametrize("route", ["save", "annotate"])
def test_writes(data_dir: Path, headers: dict[str, str], allowed: bool, route: str) -> None:
    client = make_client(data_dir, origins=(HUB,))
    before = (data_dir / "demo.json").read_bytes()
    if route == "save":
        reply = client.post("/save_graph/demo", json={"qParams": {"linkType": "input"}}, headers=headers)
    else:
        conditional = {**headers, "If-Match": "*"}
        reply = client.put("/api/graphs/demo/annotations", json={"linkType": "input"}, headers=conditional)
    assert (reply.status_code == 200) is allowed
    assert ((data_dir / "demo.json").read_bytes() != before) is allowed


def test_a_form_of_another_page_is_refused_as_a_simple_request(data_dir: Path) -> None:
    client = make_client(data_dir)
    headers = {"Origin": "https://evil.example.org", "Content-Type": "text/plain"}
    assert client.post("/save_graph/demo", content='{"qParams": {}}', headers=headers).status_code == 403


@pytest.mark.parametrize("path", ["/", "/api/graphs", "/data/demo.json", "/nope", "/src/main.js"])
def test_every_reply_is_protected(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in policy
    assert "http" not in policy
    assert "access-control-allow-origin" not in headers


def test_an_allowed_proxy_may_frame_the_page(data_dir: Path) -> None:
    policy = make_client(data_dir, origins=(HUB,)).get("/").headers["content-security-policy"]
    assert policy.endswith(f"frame-ancestors 'self' {HUB}")


@pytest.mark.parametrize(
    "origin", ["*", "hub.example.org", "ftp://x", "https://", "https://x/path", "https://x?y", "null"]
)
def test_bad_origins_are_refused(origin: str) -> None:
    with pytest.raises(InvalidValue, match="origin"):
        check_origins([origin])


def test_origins_are_normalised() -> None:
    assert check_origins(["https://HUB.example.org/", "http://x:1"]) == {HUB, "http://x:1"}
