"""Requests with and without the path that a proxy keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.server.access import check_root_path
from circuit_tracer_cli.server.app import Settings, create_app
from circuit_tracer_cli.viewer_files import static_folder

PREFIX = "/user/me/proxy/8041"


@pytest.fixture
def below(data_dir: Path) -> TestClient:
    settings = Settings(data_dir=data_dir, static_dir=static_folder(), root_path=PREFIX)
    return TestClient(create_app(settings), base_url="http://127.0.0.1:8041")


@pytest.mark.parametrize("prefix", [PREFIX, ""])
def test_page_files_and_api_answer_with_and_without_the_path(below: TestClient, prefix: str) -> None:
    assert "main.js" in below.get(f"{prefix}/").text
    assert below.get(f"{prefix}/src/graph.js").status_code == 200
    assert [graph["slug"] for graph in below.get(f"{prefix}/api/graphs").json()["graphs"]] == ["demo"]
    reply = below.get(f"{prefix}/api/graphs/demo")
    saved = below.put(
        f"{prefix}/api/graphs/demo/annotations", json={}, headers={"If-Match": reply.headers["etag"]}
    )
    assert saved.status_code == 200
    assert below.get(f"{prefix}/graph_data/demo.json").status_code == 200


def test_the_address_without_the_last_slash_leads_to_the_page(below: TestClient) -> None:
    reply = below.get(f"{PREFIX}?slug=a%20b", follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (308, "./8041/?slug=a%20b")
    assert "main.js" in below.get(PREFIX).text


@pytest.mark.parametrize(
    "path",
    [
        f"{PREFIX}x/api/graphs",
        f"{PREFIX}/../../etc/passwd",
        f"/other{PREFIX}/api/graphs",
        f"{PREFIX}{PREFIX}/",
    ],
)
def test_other_paths_are_not_found(below: TestClient, path: str) -> None:
    assert below.get(path).status_code == 404


@pytest.mark.parametrize("given", [PREFIX, f"{PREFIX}/", PREFIX[1:], f"//{PREFIX}//"])
def test_slashes_around_the_path_do_not_matter(given: str) -> None:
    assert check_root_path(given) == PREFIX


@pytest.mark.parametrize("given", ["", "/", "//"])
def test_no_path_is_none(given: str) -> None:
    assert check_root_path(given) == ""


@pytest.mark.parametrize("given", ["https://hub.example.org/x", "/a/../b", "/a b", "/a?b", "/a//b", "/é"])
def test_what_is_no_path_is_refused(given: str) -> None:
    with pytest.raises(InvalidValue, match="is not a proxy's path"):
        check_root_path(given)


def test_a_path_with_escaped_letters_is_met_as_it_comes(data_dir: Path) -> None:
    """JupyterHub writes the `@` of a user's name as %40, and the server reads paths unescaped."""
    settings = Settings(
        data_dir=data_dir, static_dir=static_folder(), root_path="/user/me%40x.org/proxy/8041"
    )
    client = TestClient(create_app(settings), base_url="http://127.0.0.1:8041")
    assert client.get("/user/me%40x.org/proxy/8041/healthz").status_code == 200


@pytest.mark.parametrize("given", ["/api", "/data/x", "features"])
def test_a_path_that_hides_the_servers_own_is_refused(given: str) -> None:
    with pytest.raises(InvalidValue, match="an address of the server"):
        check_root_path(given)
