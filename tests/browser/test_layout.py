"""Panels moved, resized, put behind tabs and enlarged, by pointer and by keys, and where the layout is kept."""

from __future__ import annotations

import json

import pytest

from .conftest import Viewer

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)

_LAYOUT = """() => Object.fromEntries([...document.querySelectorAll(".panel")].map((panel) => {
  const box = panel.getBoundingClientRect();
  const all = document.querySelector("#panels").getBoundingClientRect();
  const part = (value, size, count) => Math.round((value / size) * count);
  return [panel.dataset.names, [
    part(box.left - all.left, all.width, 14), part(box.top - all.top, all.height, 16),
    part(box.width, all.width, 14), part(box.height, all.height, 16),
  ]];
}))"""


def layout(viewer: Viewer) -> dict[str, list[int]]:
    """Areas by their panels' names, as x, y, width and height in grid units."""
    return viewer.page.evaluate(_LAYOUT)


def area_of(viewer: Viewer, name: str) -> list[int]:
    return next(place for names, place in layout(viewer).items() if name in names.split())


def tiles(viewer: Viewer) -> None:
    """Areas cover the window without overlapping."""
    assert sum(w * h for _, _, w, h in layout(viewer).values()) == 14 * 16


def drag(viewer: Viewer, selector: str, to: tuple[float, float]) -> None:
    box = viewer.page.locator(selector).first.bounding_box()
    assert box is not None
    viewer.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    viewer.page.mouse.down()
    viewer.page.mouse.move(*to, steps=6)
    viewer.page.mouse.up()


def test_a_border_is_dragged_along_the_grid_and_remembered(viewer: Viewer) -> None:
    viewer.open()
    assert area_of(viewer, "link-graph") == [0, 0, 8, 9]
    drag(viewer, ".splitter.upright", (1440 * 5 / 14, 300))
    expect(viewer.page.locator(".splitter.dragged")).to_have_count(0)
    assert area_of(viewer, "link-graph")[2] == 5
    assert area_of(viewer, "feature") == [5, 8, 9, 8]
    tiles(viewer)
    viewer.open()
    assert area_of(viewer, "link-graph")[2] == 5
    viewer.page.locator('[data-handle="feature"]').click()
    viewer.page.get_by_role("menuitem", name="Reset the layout").click()
    assert area_of(viewer, "link-graph") == [0, 0, 8, 9]
    viewer.open()
    assert area_of(viewer, "link-graph") == [0, 0, 8, 9]


def test_a_border_is_moved_with_keys(viewer: Viewer) -> None:
    viewer.open()
    viewer.page.locator(".splitter.upright").focus()
    for _ in range(2):
        viewer.page.keyboard.press("ArrowRight")
    assert area_of(viewer, "link-graph")[2] == 10
    assert viewer.page.locator(".splitter.upright").get_attribute("aria-valuenow") == "10"
    assert viewer.selected() == "4_50_2"


def test_a_panel_is_dragged_to_a_half_to_tabs_and_back(viewer: Viewer) -> None:
    viewer.open()
    feature = viewer.page.locator(".panel-feature").bounding_box()
    assert feature is not None
    drag(viewer, '[data-names="subgraph"] h2', (feature["x"] + 20, feature["y"] + feature["height"] / 2))
    assert area_of(viewer, "subgraph") == [8, 8, 3, 8]
    assert area_of(viewer, "link-graph") == [0, 0, 8, 16]
    tiles(viewer)
    drag(viewer, '[data-names="subgraph"] h2', (feature["x"] + feature["width"] - 150, feature["y"] - 18))
    expect(viewer.page.get_by_role("tab", name="Subgraph")).to_be_visible()
    viewer.page.get_by_role("tab", name="Subgraph").click()
    expect(viewer.page.locator(".subgraph-plot")).to_be_visible()
    tiles(viewer)


def test_escape_stops_a_drag(viewer: Viewer) -> None:
    viewer.open()
    before = layout(viewer)
    handle = viewer.page.locator('[data-handle="feature"]').bounding_box()
    assert handle is not None
    viewer.page.mouse.move(handle["x"] + 8, handle["y"] + 8)
    viewer.page.mouse.down()
    viewer.page.mouse.move(400, 300, steps=5)
    expect(viewer.page.locator(".dock-preview")).to_be_visible()
    viewer.page.keyboard.press("Escape")
    expect(viewer.page.locator(".dock-preview")).to_be_hidden()
    viewer.page.mouse.up()
    assert layout(viewer) == before
    assert viewer.selected() == "4_50_2"


def test_the_handle_moves_and_resizes_with_arrows_and_opens_a_menu(viewer: Viewer) -> None:
    viewer.open()
    handle = viewer.page.locator('[data-handle="link-graph"]')
    handle.focus()
    viewer.page.keyboard.press("ArrowDown")
    assert area_of(viewer, "link-graph") == [0, 9, 8, 7]
    expect(handle).to_be_focused()
    viewer.page.keyboard.press("Shift+ArrowLeft")
    assert area_of(viewer, "link-graph") == [0, 9, 7, 7]
    viewer.page.keyboard.press("Enter")
    expect(viewer.page.get_by_role("menu")).to_be_visible()
    viewer.page.keyboard.press("Escape")
    expect(viewer.page.get_by_role("menu")).to_have_count(0)
    expect(handle).to_be_focused()
    tiles(viewer)


def test_a_tab_becomes_a_panel_of_its_own(viewer: Viewer) -> None:
    viewer.open()
    viewer.page.get_by_role("tab", name="Nodes").click()
    viewer.page.locator('[data-handle="connections"]').click()
    viewer.page.get_by_role("menuitem", name="out of the tabs").click()
    expect(viewer.page.locator('[data-names="nodes"] h2')).to_have_text("Nodes")
    expect(viewer.page.locator(".panel-nodes .node-row").first).to_be_visible()
    expect(viewer.page.locator(".panel-connections")).to_be_visible()
    tiles(viewer)


def test_a_panel_is_enlarged_and_restored(viewer: Viewer) -> None:
    viewer.open()
    head = viewer.page.locator('[data-names="link-graph"] .panel-head h2')
    head.dblclick()
    expect(viewer.page.locator(".panel-feature")).to_be_hidden()
    assert area_of(viewer, "link-graph") == [0, 0, 14, 16]
    head.dblclick()
    expect(viewer.page.locator(".panel-feature")).to_be_visible()


def test_a_layout_in_the_graphs_file_is_used_and_kept_there(viewer: Viewer) -> None:
    path = viewer.folder / "demo.json"
    document = json.loads(path.read_text())
    document["qParams"]["gridsnap"] = (
        "subgraph00000608_link-graph00080608_node-connections06000808_feature-detail06080808"
    )
    path.write_text(json.dumps(document))
    viewer.open()
    assert area_of(viewer, "subgraph") == [0, 0, 6, 8]
    assert area_of(viewer, "nodes") == [6, 0, 8, 8]
    viewer.page.locator(".splitter.upright").first.focus()
    viewer.page.keyboard.press("ArrowLeft")
    viewer.saved()
    assert "subgraph00000508" in json.loads(path.read_text())["qParams"]["gridsnap"]
    viewer.page.set_viewport_size({"width": 844, "height": 390})
    expect(viewer.page.locator(".panel")).to_have_count(2)


@pytest.mark.parametrize(
    ("size", "count"), [((844, 390), 2), ((390, 844), 2), ((1280, 720), 4), ((3840, 2160), 4)]
)
def test_every_window_gets_a_layout_that_suits_it(viewer: Viewer, size: tuple[int, int], count: int) -> None:
    viewer.page.set_viewport_size({"width": size[0], "height": size[1]})
    viewer.open()
    expect(viewer.page.locator(".panel")).to_have_count(count)
    tiles(viewer)
    assert viewer.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert viewer.page.evaluate("document.documentElement.scrollHeight <= window.innerHeight")
    for element in viewer.page.locator(
        ".tab:visible, .handle:visible, .segment:visible, .topbar .icon"
    ).all():
        box = element.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size[0]
