"""The subgraph: layouts, many pins, groups by keyboard, boxes moved by keys."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Viewer
from .graphs import feature, graph

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)

PINS = "1_10_1,2_20_2,2_21_2,4_50_2"
_CENTRES = """() => Object.fromEntries([...document.querySelectorAll(".box")].map((box) =>
  [box.dataset.node, [Number.parseFloat(box.style.left), Number.parseFloat(box.style.top)]]))"""


def centres(viewer: Viewer) -> dict[str, list[float]]:
    return viewer.page.evaluate(_CENTRES)


def params(viewer: Viewer) -> dict[str, Any]:
    return json.loads((viewer.folder / "demo.json").read_text())["qParams"]


@pytest.mark.parametrize("kind", ["place", "layers", "force"])
def test_layouts_run_upwards_and_keep_boxes_apart(viewer: Viewer, kind: str) -> None:
    viewer.open(pinnedIds=PINS)
    viewer.page.get_by_label("Layout of the subgraph").select_option(kind)
    places = centres(viewer)
    assert places["1_10_1"][1] > places["2_20_2"][1] > places["4_50_2"][1]
    boxes = [box.bounding_box() for box in viewer.page.locator(".box").all()]
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a is not None
            assert b is not None
            apart_x = a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]
            apart_y = a["y"] + a["height"] <= b["y"] or b["y"] + b["height"] <= a["y"]
            assert apart_x or apart_y
    if kind != "place":
        assert f"boxes={kind}" in viewer.page.url
        viewer.page.reload()
        viewer.page.locator(".box").first.wait_for()
        assert centres(viewer) == places


def test_boxes_are_moved_with_keys_and_freed_by_sticky(viewer: Viewer) -> None:
    viewer.open(pinnedIds=PINS)
    before = centres(viewer)
    viewer.page.locator('.box[data-node="2_20_2"]').focus()
    for _ in range(3):
        viewer.page.keyboard.press("Shift+ArrowLeft")
    after = centres(viewer)
    assert after["2_20_2"][0] == pytest.approx(before["2_20_2"][0] - 36, abs=2)
    assert after["1_10_1"] == pytest.approx(before["1_10_1"], abs=2)
    expect(viewer.page.locator('.box[data-node="2_20_2"]')).to_be_focused()
    viewer.saved()
    assert params(viewer)["sg_pos"] != ""
    viewer.page.get_by_role("button", name="Undo").click()
    assert centres(viewer) == before
    viewer.page.get_by_role("button", name="Redo").click()
    assert centres(viewer)["2_20_2"] == pytest.approx(after["2_20_2"], abs=2)
    viewer.page.get_by_label("sticky").uncheck()
    assert centres(viewer) == before


def test_groups_are_made_named_and_dissolved_with_keys_alone(viewer: Viewer) -> None:
    viewer.open(pinnedIds=PINS, clickedId="4_50_2")
    press = viewer.page.keyboard.press
    press("ArrowDown")
    press("g")
    expect(viewer.page.locator(".box.is-marked")).to_have_count(1)
    press("ArrowRight")
    assert viewer.selected() == "2_21_2"
    press("Enter")
    expect(viewer.page.locator(".box.is-marked")).to_have_count(2)
    press("g")
    expect(viewer.page.locator(".box.group")).to_have_count(1)
    press("Escape")
    viewer.page.locator(".box.group").focus()
    press("Enter")
    expect(viewer.page.locator(".selection-title strong")).to_have_text("Texas")
    press("e")
    viewer.page.locator(".box .edit-field").fill("state, capital")
    press("Enter")
    expect(viewer.page.locator(".box.group .box-name")).to_have_text("state, capital")
    viewer.saved()
    viewer.page.locator(".box.group").focus()
    press("Delete")
    expect(viewer.page.locator(".box")).to_have_count(4)


@pytest.mark.parametrize("way", ["hold", "tap", "button"])
def test_what_is_typed_after_grouping_is_the_name(viewer: Viewer, way: str) -> None:
    viewer.open(pinnedIds=PINS, clickedId="1_10_1")
    press = viewer.page.keyboard.press
    if way == "hold":
        viewer.page.keyboard.down("g")
    elif way == "tap":
        press("g")
        press("Enter")
    else:
        viewer.page.get_by_role("button", name="Group", exact=True).click()
    for label in ("Texas", "say a capital"):
        viewer.page.locator(".box", has_text=label).click()
    if way == "hold":
        viewer.page.keyboard.up("g")
    elif way == "tap":
        press("g")
    else:
        viewer.page.get_by_role("button", name="Merge").click()
    name = viewer.page.get_by_label("Name of the supernode")
    expect(name).to_be_focused()
    expect(name).to_have_value("Texas")
    viewer.page.set_viewport_size({"width": 1400, "height": 880})
    viewer.page.keyboard.type("Texas cities, e p u")
    press("Enter")
    expect(viewer.page.locator(".box.group .box-name")).to_have_text("Texas cities, e p u")
    expect(viewer.page.locator(".edit-field")).to_have_count(0)
    viewer.saved()
    assert "clerps" not in params(viewer)
    press("u")
    expect(viewer.page.locator(".box")).to_have_count(4)
    expect(viewer.page.locator(".box.group")).to_have_count(0)


def test_escape_keeps_the_name_that_was_proposed(viewer: Viewer) -> None:
    viewer.open(pinnedIds=PINS, clickedId="1_10_1")
    viewer.page.keyboard.down("g")
    for label in ("Texas", "say a capital"):
        viewer.page.locator(".box", has_text=label).click()
    viewer.page.keyboard.up("g")
    viewer.page.keyboard.type("something")
    viewer.page.keyboard.press("Escape")
    expect(viewer.page.locator(".box.group .box-name")).to_have_text("Texas")


def test_members_have_the_colour_of_their_link_with_the_selection(viewer: Viewer) -> None:
    viewer.open(pinnedIds=PINS, clickedId="4_50_2")
    colour = """(id) => document.querySelector(`.box[data-node="${id}"] .glyph`).style.background"""
    red, green, blue = (
        int(part)
        for part in viewer.page.evaluate(colour, "2_20_2").removeprefix("rgb(").removesuffix(")").split(",")
    )
    assert green > red
    assert green > blue
    assert viewer.page.evaluate(colour, "1_10_1") == ""


def test_three_hundred_pins_are_all_shown(viewer: Viewer) -> None:
    nodes = [feature(i % 12, 100 + i, i % 3, influence=0.1) for i in range(300)]
    document = graph("many", ["a", " b", " c"], nodes, [])
    document["qParams"]["pinnedIds"] = [entry["node_id"] for entry in nodes]
    (viewer.folder / "many.json").write_text(json.dumps(document))
    viewer.page.goto(f"{viewer.server.url}?slug=many")
    expect(viewer.page.locator(".box")).to_have_count(300)
    size = viewer.page.evaluate(
        "(() => { const p = document.querySelector('.subgraph-plot'); return [p.scrollWidth, p.clientWidth]; })()"
    )
    assert size[0] > size[1]
    last = viewer.page.locator(".box").last
    last.scroll_into_view_if_needed()
    last.click()
    assert viewer.selected() == nodes[-1]["node_id"]
