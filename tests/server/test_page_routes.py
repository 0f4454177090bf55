"""GET /api/graphs/{slug}/page: a graph with its annotations as one page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from circuit_tracer_cli.viewer_files import static_folder

from .builders import make_client, write_graph


@pytest.fixture
def client(data_dir: Path) -> TestClient:
    return make_client(data_dir, static_dir=static_folder())


def carried(text: str) -> dict[str, object]:
    """What the page holds."""
    start = text.index('id="embedded-graph">') + len('id="embedded-graph">')
    content: dict[str, object] = json.loads(text[start : text.index("</script>", start)])
    return content


def test_the_page_holds_the_graph_as_it_was_saved(data_dir: Path, client: TestClient) -> None:
    tag = client.get("/api/graphs/demo").headers["etag"]
    note = {"notes": {"graph": "</script><b>", "nodes": {}}}
    saved = client.put("/api/graphs/demo/annotations", json=note, headers={"If-Match": tag})
    assert saved.status_code == 200
    reply = client.get("/api/graphs/demo/page")
    assert reply.headers["content-disposition"] == "attachment; filename*=UTF-8''demo.html"
    assert reply.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in reply.text
    assert "</script><b>" not in reply.text
    content = carried(reply.text)
    assert content["graph"] == json.loads((data_dir / "demo.json").read_text())
    assert content["features"] is None
    assert content["labels"] == {}


def test_a_name_of_other_letters_stays(data_dir: Path, client: TestClient) -> None:
    write_graph(data_dir, "früher")
    reply = client.get("/api/graphs/früher/page")
    assert reply.headers["content-disposition"] == "attachment; filename*=UTF-8''fr%C3%BCher.html"


def test_what_is_no_graph_is_refused(data_dir: Path, client: TestClient) -> None:
    assert client.get("/api/graphs/nothing/page").status_code == 404
    assert client.get("/api/graphs/..%2Fsecret/page").status_code in (404, 422)
    (data_dir / "cut.json").write_text('{"metadata": {}, "nodes": [], "links": [')
    assert client.get("/api/graphs/cut/page").status_code == 422
    (data_dir / "odd.json").write_text(
        '{"metadata": {"slug": "odd"}, "nodes": [1, {"feature": "x"}], "links": []}'
    )
    assert client.get("/api/graphs/odd/page").status_code in (200, 422)
