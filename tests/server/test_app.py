"""Errors, methods and the page itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from circuit_tracer_cli import __version__
from circuit_tracer_cli.server import graphs
from circuit_tracer_cli.server.app import Settings, routes

from .builders import make_client


def test_the_documented_routes_are_those_of_the_server(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")
    documented = [
        f"{method} {path}"
        for cell in re.findall(r"^\| (`(?:GET|POST|PUT|PATCH|DELETE)[` ].*?) \|", page, re.MULTILINE)
        for methods, path in re.findall(r"((?:`?[A-Z]+`?[, ]+)+)(/[^`]*)`", cell)
        for method in re.findall("[A-Z]+", methods)
    ]
    served = {
        f"{method} {as_documented(route.path)}"
        for route in routes(Settings(tmp_path, tmp_path, feature_cache=tmp_path))
        for method in (route.methods or {"GET"}) - {"HEAD"}
    }
    assert sorted(documented) == sorted(served - {"GET /{relative}"})


def as_documented(path: str) -> str:
    """A route's path without convertors; of the reference's routes the beginning."""
    path = re.sub(r":\w+}", "}", path).replace("{run_id}", "{id}")
    return re.sub(r"^/(data|graph_data|features|save_graph)/.*", r"/\1/…", path)


def test_health(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok", "version": __version__, "features": False}


@pytest.mark.parametrize(
    "path", ["/nope", "/api/nope", "/api/graphs/nope", "/data/nope.json", "/save_graph/nope"]
)
def test_missing_things_are_json_errors(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code in (404, 405)
    assert set(reply.json()) == {"error", "hint"}


@pytest.mark.parametrize(("method", "path"), [("PATCH", "/api/graphs"), ("DELETE", "/data/demo.json"), ("PUT", "/"),
                                              ("PUT", "/api/graphs/demo"), ("POST", "/elsewhere")])  # fmt: skip
def test_other_methods_are_refused(client: TestClient, method: str, path: str) -> None:
    reply = client.request(method, path)
    assert reply.status_code == 405
    assert "GET" in reply.headers["allow"]
    assert set(reply.json()) == {"error", "hint"}


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/api/graphs", "/api/graphs/demo", "/data/demo.json", "/src/main.js"]
)
def test_head(client: TestClient, path: str) -> None:
    reply = client.head(path)
    assert (reply.status_code, reply.content) == (200, b"")
    assert int(reply.headers["content-length"]) > 0


def test_static_files_have_types_and_validators(client: TestClient) -> None:
    page, script = client.get("/"), client.get("/src/main.js")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert client.get("/", headers={"If-None-Match": page.headers["etag"]}).status_code == 304


def test_a_large_module_goes_over_the_wire_compressed(data_dir: Path) -> None:
    client = make_client(data_dir)
    module = data_dir.parent / "page" / "src" / "main.js"
    module.write_text("export const a = 1;\n" * 1000)
    packed = client.get("/src/main.js", headers={"Accept-Encoding": "gzip"})
    plain = client.get("/src/main.js", headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < 1000
    assert packed.content == plain.content == module.read_bytes()
    assert "content-encoding" not in plain.headers


def test_a_bug_is_a_json_error_without_details(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: object) -> None:
        raise ZeroDivisionError("inner detail")

    monkeypatch.setattr(graphs.GraphFolder, "listing", broken)
    reply = make_client(data_dir).get("/api/graphs")
    assert reply.status_code == 500
    assert set(reply.json()) == {"error", "hint"}
    assert "detail" not in reply.json()["error"]
