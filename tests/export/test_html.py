from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from circuit_tracer_cli.demo import transcoder_dir
from circuit_tracer_cli.errors import InvalidValue, MissingFile
from circuit_tracer_cli.export import Destination
from circuit_tracer_cli.export.html import export
from circuit_tracer_cli.export.viewer import create_graph_files
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.types import LogitTarget
from circuit_tracer_cli.viewer_files import static_folder
from tests.graph.builders import worked_example

HOSTILE = '</script><script>alert("x")</script><!-- <script>'
SHEETS = ("style.css", "panels.css", "dialogs.css")


class Page(HTMLParser):
    """The script elements of a page, and every address that it names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.addresses: list[str] = []
        self._open: dict[str, str | None] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "script":
            self._open = dict(attrs)
            self.scripts.append((self._open, ""))

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.scripts[-1] = (self._open, self.scripts[-1][1] + data)

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def of_type(self, kind: str) -> list[str]:
        return [text for attrs, text in self.scripts if attrs.get("type") == kind]


def written(graph: Graph, folder: Path, **arguments: Any) -> Page:
    (path,) = export(pruned_graph(graph), Destination("page", folder, **arguments))
    assert path == folder / "page.html"
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_carries_the_graph_file(tmp_path: Path) -> None:
    create_graph_files(worked_example(), "page", tmp_path, stability=True)
    (text,) = written(worked_example(), tmp_path).of_type("application/json")
    carried = json.loads(text)
    assert carried["graph"] == json.loads((tmp_path / "page.json").read_bytes())
    assert carried["features"] is None
    assert carried["labels"] == {}


def test_annotations_of_the_file_beside_it_come_along(tmp_path: Path) -> None:
    path, _ = create_graph_files(worked_example(), "page", tmp_path)
    values = json.loads(path.read_bytes())
    values["qParams"]["pinnedIds"] = [values["nodes"][0]["node_id"]]
    path.write_text(json.dumps(values), encoding="utf-8")
    (text,) = written(worked_example(), tmp_path).of_type("application/json")
    assert json.loads(text)["graph"]["qParams"]["pinnedIds"] == [values["nodes"][0]["node_id"]]


def test_nothing_points_away_and_nothing_else_runs(tmp_path: Path) -> None:
    graph = worked_example()
    graph.input_string = HOSTILE
    graph.logit_targets[0] = LogitTarget(HOSTILE, graph.logit_targets[0].vocab_idx)
    page = written(graph, tmp_path)
    assert all(address.startswith("data:") for address in page.addresses)
    kinds = sorted(str(attrs.get("type")) for attrs, _ in page.scripts)
    assert kinds == ["application/json", "importmap", "module"]
    (text,) = page.of_type("application/json")
    assert json.loads(text)["graph"]["metadata"]["prompt"] == HOSTILE


def test_every_module_is_in_the_map_and_imports_only_from_it(tmp_path: Path) -> None:
    (text,) = written(worked_example(), tmp_path).of_type("importmap")
    modules = json.loads(text)["imports"]
    names = {path.relative_to(static_folder()).as_posix() for path in static_folder().rglob("*.js")}
    reached = {name.removeprefix("viewer/") for name in modules}
    assert reached <= names
    assert {"main.js", "src/graph.js", "src/panels/link-graph.js"} <= reached
    for address in modules.values():
        source = base64.b64decode(address.removeprefix("data:text/javascript;base64,")).decode()
        assert set(re.findall(r'^import [^"]*"([^"]+)";$', source, re.MULTILINE)) <= set(modules)
        assert not re.search(r'(from|import)\s*\(?\s*"\.', source)


def test_every_style_sheet_is_in_the_page_in_the_order_of_the_viewer(tmp_path: Path) -> None:
    graph = worked_example()
    (path,) = export(pruned_graph(graph), Destination("g", tmp_path))
    text = path.read_text(encoding="utf-8")
    places = [
        text.index(sheet.read_text(encoding="utf-8")) for sheet in map(static_folder().joinpath, SHEETS)
    ]
    assert places == sorted(places)
    assert {path.name for path in static_folder().glob("*.css")} == set(SHEETS)


def test_examples_of_the_features_shown(tmp_path: Path) -> None:
    graph = worked_example()
    folder = transcoder_dir("clt") / "features"
    (text,) = written(graph, tmp_path, features_dir=folder).of_type("application/json")
    carried = json.loads(text)
    codes = {str(n["feature"]) for n in carried["graph"]["nodes"] if "transcoder" in n["feature_type"]}
    assert codes
    assert set(carried["features"]) <= codes
    assert set(carried["labels"]) <= codes


def test_wrong_folders_and_names(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no feature examples"):
        written(worked_example(), tmp_path / "out", features_dir=tmp_path)
    with pytest.raises(InvalidValue):
        export(pruned_graph(worked_example()), Destination("../x", tmp_path))
    assert list(tmp_path.rglob("*.html")) == []
