"""Pictures of the graph and the subgraph as files."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .conftest import Viewer
from .graphs import SCRIPT

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)

_SVG = "{http://www.w3.org/2000/svg}"


def save(viewer: Viewer, panel: str, kind: str, folder: Path) -> tuple[str, bytes]:
    """The suggested name and the content of a panel's picture."""
    viewer.page.locator(f'[data-handle="{panel}"]').click()
    with viewer.page.expect_download() as download:
        viewer.page.get_by_role("menuitem", name=f"Save as {kind}").click()
    path = folder / "figure"
    download.value.save_as(path)
    return download.value.suggested_filename, path.read_bytes()


def texts(document: ElementTree.Element) -> list[str]:
    return ["".join(element.itertext()) for element in document.iter(f"{_SVG}text")]


def test_the_link_graph_as_svg(viewer: Viewer, tmp_path: Path) -> None:
    viewer.open(clickedId="2_20_2")
    name, body = save(viewer, "link-graph", "SVG", tmp_path)
    assert name == "demo-link-graph.svg"
    document = ElementTree.fromstring(body)
    assert document.find(f"{_SVG}title") is not None
    shown = texts(document)
    assert {"Emb", "Logits", "L2", "Dallas", "is", "Austin"} <= set(shown)
    assert len(list(document.iter(f"{_SVG}circle"))) >= 4
    curves = [path for path in document.iter(f"{_SVG}path") if "C" in (path.get("d") or "")]
    assert len(curves) == 4
    box = viewer.page.locator(".panel-link-graph .plot").bounding_box()
    assert box is not None
    assert float(document.get("width") or 0) == pytest.approx(box["width"], abs=1)
    assert b"rgb(" not in body
    assert b"foreignObject" not in body


def test_the_subgraph_as_svg_with_whole_names(viewer: Viewer, tmp_path: Path) -> None:
    viewer.open("von%20fr%C3%BCher")
    name, body = save(viewer, "subgraph", "SVG", tmp_path)
    assert name == "von-früher-subgraph.svg"
    document = ElementTree.fromstring(body)
    assert texts(document)[:4] == ["place", "2 nodes", "say a capital", "L2 · is"]
    assert "suppresses" in texts(document)
    assert body.count(b"@font-face") == 2
    assert len(list(document.iter(f"{_SVG}rect"))) == 5


@pytest.mark.parametrize("panel", ["link-graph", "subgraph"])
def test_pictures_as_png(viewer: Viewer, tmp_path: Path, panel: str) -> None:
    viewer.open(pinnedIds="1_10_1,2_20_2")
    name, body = save(viewer, panel, "PNG", tmp_path)
    assert name == f"demo-{panel}.png"
    assert body.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", body[16:24])
    box = viewer.page.locator(f".panel-{panel} .plot").bounding_box()
    assert box is not None
    if panel == "link-graph":
        assert (width, height) == pytest.approx((2 * box["width"], 2 * box["height"]), abs=4)
    assert len(body) > 4000


@pytest.mark.parametrize("panel", ["link-graph", "subgraph"])
def test_hostile_texts_are_texts_in_pictures_too(viewer: Viewer, tmp_path: Path, panel: str) -> None:
    viewer.open("hostile")
    _, body = save(viewer, panel, "SVG", tmp_path)
    document = ElementTree.fromstring(body)
    tags = {element.tag.removeprefix(_SVG) for element in document.iter()}
    assert tags <= {"svg", "title", "rect", "circle", "path", "text", "g", "clipPath", "defs", "style"}
    assert any(SCRIPT[:8] in text for text in texts(document))


def test_an_empty_subgraph_says_so(viewer: Viewer) -> None:
    viewer.open()
    viewer.page.locator('[data-handle="subgraph"]').click()
    viewer.page.get_by_role("menuitem", name="Save as SVG").click()
    expect(viewer.page.locator(".notice")).to_have_text("There is nothing to save yet.")


def test_a_figure_for_a_paper_has_its_width_and_fonts(viewer: Viewer, tmp_path: Path) -> None:
    viewer.open(pinnedIds="1_10_1,2_20_2")
    for kind in ("svg", "pdf"):
        viewer.page.locator('[data-handle="subgraph"]').click()
        viewer.page.get_by_role("menuitem", name="Save for a paper").click()
        viewer.page.get_by_label("File", exact=True).select_option(kind)
        viewer.page.get_by_label("Width on paper").select_option("114")
        with viewer.page.expect_download() as download:
            viewer.page.get_by_role("button", name="Save", exact=True).click()
        path = tmp_path / kind
        download.value.save_as(path)
        body = path.read_bytes()
        if kind == "svg":
            assert b'width="114mm"' in body
        else:
            assert body.startswith(b"%PDF-")
            assert b"/FontFile2" in body
            box = re.search(rb"/MediaBox \[0 0 ([\d.]+)", body)
            assert box
            assert float(box[1]) == pytest.approx(114 * 72 / 25.4, abs=0.5)
