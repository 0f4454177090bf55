"""Labels and tokens as nasty as they get: the layout holds, nothing becomes markup, everything can still be read."""

from __future__ import annotations

import pytest

from .conftest import Viewer
from .graphs import LONG, SCRIPT

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)

_OVERFLOWING = """() => [...document.querySelectorAll(".panel")].flatMap((panel) => {
  const frame = panel.getBoundingClientRect();
  return [...panel.querySelectorAll("button, input, select, h2, .box")].filter((element) => {
    const box = element.getBoundingClientRect();
    if (box.width === 0 || element.closest(".scroll, .subgraph-plot.scrolls")) return false;
    return box.right > frame.right + 1 || box.left < frame.left - 1;
  }).map((element) => `${element.tagName}.${element.className} in ${panel.dataset.names}`);
})"""


@pytest.mark.parametrize("size", [(1280, 720), (844, 390)])
@pytest.mark.parametrize("panel", ["connections", "nodes", "scatter", "compare", "notes", "feature"])
def test_the_layout_holds(viewer: Viewer, size: tuple[int, int], panel: str) -> None:
    viewer.page.set_viewport_size({"width": size[0], "height": size[1]})
    viewer.open("hostile", clickedId="1_12_2", panel=panel)
    assert viewer.page.evaluate(_OVERFLOWING) == []
    assert viewer.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert viewer.page.evaluate("document.documentElement.scrollHeight <= window.innerHeight")
    assert viewer.page.evaluate("window.hacked") is None


def test_long_names_are_cut_for_the_eye_and_whole_on_asking(viewer: Viewer) -> None:
    viewer.open("hostile", clickedId="3_50_3")
    name = viewer.page.locator(".panel-connections .node-name", has_text="very").first
    assert name.get_attribute("title") == LONG
    row = name.locator("xpath=..").bounding_box()
    assert row is not None
    assert row["height"] < 40
    box = viewer.page.locator(".box", has_text="very").first
    size = box.bounding_box()
    assert size is not None
    assert size["height"] < 70
    assert box.locator(".box-name").get_attribute("title") == LONG


def test_right_to_left_text_turns_nothing_around_it(viewer: Viewer) -> None:
    viewer.open("hostile", clickedId="3_50_3")
    row = viewer.page.locator(".panel-connections .node-row", has_text="مرحبا").first
    parts = [row.locator(part).bounding_box() for part in (".glyph", ".node-name", ".node-amount")]
    lefts = [part["x"] for part in parts if part is not None]
    assert len(lefts) == 3
    assert lefts == sorted(lefts)


@pytest.mark.core
def test_menus_dialogs_and_messages_show_text_alone(viewer: Viewer) -> None:
    viewer.open("hostile")
    viewer.page.get_by_role("button", name="Graph menu").click()
    viewer.page.get_by_role("menuitem", name="About this graph").click()
    expect(viewer.page.locator("dialog.info")).to_contain_text(SCRIPT)
    box = viewer.page.locator("dialog.info").bounding_box()
    assert box is not None
    assert box["width"] <= 800
    assert viewer.page.evaluate("window.hacked") is None
    assert viewer.page.locator("img").count() == 0
