"""No URL leads to a file outside the folders that are served."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from circuit_tracer_cli.errors import InvalidValue, MissingFile
from circuit_tracer_cli.server.graphs import check_slug, graph_path
from circuit_tracer_cli.server.replies import contained

from .builders import make_client, write_features

ATTEMPTS = [
    "../secret.json",
    "..%2fsecret.json",
    "%2e%2e/secret.json",
    "%2e%2e%2fsecret.json",
    "%252e%252e/secret.json",
    "..\\secret.json",
    "..%5csecret.json",
    "/etc/passwd",
    "//etc/passwd",
    "%2fetc%2fpasswd",
    "./../secret.json",
    "demo.json/../../secret.json",
    "demo.json/",
    "sub/../../secret.json",
    "linked.json",
    "linked-folder/secret.json",
    "demo.json%00",
    "demo%00.json",
    ".hidden.json",
    "sub/.hidden.json",
    "",
    "sub",
    "%ff%fe.json",
    "a" * 5000,
]


@pytest.fixture
def trap(data_dir: Path) -> Path:
    (data_dir / "sub").mkdir()
    (data_dir / ".hidden.json").write_text('{"secret": 1}')
    (data_dir / "sub" / ".hidden.json").write_text('{"secret": 1}')
    (data_dir / "linked.json").symlink_to(data_dir.parent / "secret.json")
    (data_dir / "linked-folder").symlink_to(data_dir.parent)
    return data_dir


@pytest.mark.parametrize("route", ["data", "graph_data", "features", "api/graphs"])
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_traversal_is_refused(trap: Path, route: str, attempt: str) -> None:
    write_features(trap, {})
    client = make_client(trap, features_dir=trap)
    reply = client.get(f"/{route}/{attempt}")
    assert "secret" not in reply.text or "secret.json" in reply.json()["error"]
    assert "root:" not in reply.text
    if attempt or route != "api/graphs":
        assert reply.status_code in (404, 422)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_saving_never_leaves_the_folder(trap: Path, attempt: str) -> None:
    client = make_client(trap)
    reply = client.post(f"/save_graph/x/{attempt}", json={"qParams": {}})
    assert reply.status_code in (404, 422)
    assert (trap.parent / "secret.json").read_text() == '{"secret": true}'


def test_the_static_folder_is_confined_too(client: TestClient) -> None:
    assert client.get("/src/main.js").status_code == 200
    for attempt in ("/../graphs/demo.json", "/%2e%2e/graphs/demo.json", "//etc/passwd", "/src", "/src/"):
        assert client.get(attempt).status_code == 404


def test_a_link_inside_the_folder_is_followed(data_dir: Path) -> None:
    (data_dir / "alias.json").symlink_to(data_dir / "demo.json")
    assert contained(data_dir, "alias.json") == (data_dir / "demo.json").resolve()
    assert {graph["slug"] for graph in make_client(data_dir).get("/api/graphs").json()["graphs"]} == {
        "alias",
        "demo",
    }


def test_a_linked_root_is_served(data_dir: Path) -> None:
    root = data_dir.parent / "alias"
    root.symlink_to(data_dir)
    assert contained(root, "demo.json").is_file()


@pytest.mark.parametrize("slug", ["", ".x", "a/b", "a\\b", "a\0b", "graph-metadata"])
def test_impossible_slugs(slug: str) -> None:
    with pytest.raises(InvalidValue):
        check_slug(slug)


@pytest.mark.parametrize(
    "slug", ["demo", "two words", "Zürich – 東京", "100%", "a.b", "emoji 🧠", "a+b&c=d#e?"]
)
def test_any_other_slug_works_over_http(data_dir: Path, slug: str) -> None:
    (data_dir / f"{slug}.json").write_bytes((data_dir / "demo.json").read_bytes())
    client = make_client(data_dir)
    reply = client.get(f"/api/graphs/{quote(slug, safe='')}")
    assert reply.status_code == 200
    saved = client.put(
        f"/api/graphs/{quote(slug, safe='')}/annotations",
        json={"pinnedIds": ["1_7_0"]},
        headers={"If-Match": reply.headers["etag"]},
    )
    assert saved.status_code == 200
    assert client.get(f"/data/{quote(slug, safe='')}.json").json()["qParams"] == {"pinnedIds": ["1_7_0"]}


def test_a_missing_graph_is_named(data_dir: Path) -> None:
    with pytest.raises(MissingFile, match="'nope'"):
        graph_path(data_dir, "nope")
