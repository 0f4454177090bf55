"""The subgraph: layouts, many pins, groups by keyboard, boxes moved by keys."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from circuit_tracer_cli.export.graph_json import read_graph_json
from circuit_tracer_cli.export.groups import group_file

from .conftest import Viewer
from .graphs import feature, graph, node

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)

PINS = "1_10_1,2_20_2,2_21_2,4_50_2"
_CENTRES = """() => Object.fromEntries([...document.querySelectorAll(".box")].map((box) =>
  [box.dataset.node, [Number.parseFloat(box.style.left), Number.parseFloat(box.style.top)]]))"""


def centres(viewer: Viewer) -> dict[str, list[float]]:
    return viewer.page.evaluate(_CENTRES)


def params(viewer: Viewer) -> dict[str, Any]:
    return json.loads((viewer.folder / "demo.json").read_text())["qParams"]


_SIGHT = """() => {
  const panel = document.querySelector('[data-panel="subgraph"]').getBoundingClientRect();
  const all = [...document.querySelectorAll("[data-box]")];
  const boxes = all.map((box) => [box.dataset.box.split(" "), box.getBoundingClientRect()]);
  const inside = (a) => a.left >= panel.left && a.right <= panel.right && a.top >= panel.top && a.bottom <= panel.bottom;
  const meet = (a, b) => a.left < b.right - 0.1 && b.left < a.right - 0.1 && a.top < b.bottom - 0.1 && b.top < a.bottom - 0.1;
  const layer = (id) => (id.startsWith("E") ? -1 : Number.parseInt(id, 10));
  const [low, high] = [(ids) => Math.min(...ids.map(layer)), (ids) => Math.max(...ids.map(layer))];
  return {
    count: boxes.length,
    outside: boxes.filter(([, a]) => !inside(a)).length,
    overlapping: boxes.filter(([, a], i) => boxes.some(([, b], j) => j > i && meet(a, b))).length,
    below: boxes.filter(([ids, a]) => boxes.some(([others, b]) => low(ids) > high(others) && a.top > b.top + 0.5)).length,
  };
}"""


def sight(viewer: Viewer) -> dict[str, int]:
    return viewer.page.evaluate(_SIGHT)


def write_random(viewer: Viewer, seed: int) -> int:
    """A graph `random` with many pins, some of them in groups; returns how many boxes it has."""
    source = random.Random(seed)
    nodes = [
        feature(source.randrange(26), 100 + i, source.randrange(3), influence=0.1)
        for i in range(8 + 12 * seed)
    ]
    ids = [entry["node_id"] for entry in nodes]
    layers = [int(entry["layer"]) for entry in nodes]
    links = [
        (ids[i], ids[j], source.gauss(0, 1))
        for i in range(len(ids))
        for j in range(len(ids))
        if layers[i] < layers[j] and source.random() < 0.3
    ]
    document = graph("random", ["a", " b", " c"], nodes, links)
    document["qParams"]["pinnedIds"] = ids
    document["qParams"]["supernodes"] = [["one", *ids[:3]], ["two", *ids[3:5]]]
    (viewer.folder / "random.json").write_text(json.dumps(document))
    return len(ids) - 3


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_all_boxes_are_in_sight_apart_and_in_the_order_of_layers(viewer: Viewer, seed: int) -> None:
    count = write_random(viewer, seed)
    viewer.open("random")
    fine = {"count": count, "outside": 0, "overlapping": 0, "below": 0}
    assert sight(viewer) == fine
    viewer.page.set_viewport_size({"width": 900, "height": 700})
    viewer.page.wait_for_timeout(200)
    assert sight(viewer) == fine
    viewer.page.reload()
    viewer.page.locator(".box").first.wait_for()
    assert sight(viewer) == fine


def test_what_was_dragged_is_saved_and_comes_back_as_it_was(viewer: Viewer) -> None:
    write_random(viewer, 2)
    viewer.open("random")
    box = viewer.page.locator(".box").nth(7)
    at = box.bounding_box()
    assert at is not None
    viewer.page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    viewer.page.mouse.down()
    viewer.page.mouse.move(at["x"] + at["width"] / 2 + 9, at["y"] + 12, steps=3)
    viewer.page.mouse.up()
    viewer.saved()
    places = centres(viewer)
    size = json.loads((viewer.folder / "random.json").read_text())["qParams"]["sg_size"].split()
    viewer.page.set_viewport_size({"width": 1100, "height": 640})
    viewer.page.reload()
    viewer.page.locator(".box").first.wait_for()
    again = centres(viewer)
    for name, (x, y) in places.items():
        assert again[name] == pytest.approx([x, y], abs=0.002 * max(map(float, size)))
    assert sight(viewer)["outside"] == 0


def test_boxes_are_moved_with_keys_and_arranged_again(viewer: Viewer) -> None:
    viewer.open(pinnedIds=PINS)
    before = centres(viewer)
    viewer.page.locator('.box[data-node="2_20_2"]').focus()
    for _ in range(3):
        viewer.page.keyboard.press("Shift+ArrowLeft")
    after = centres(viewer)
    apart = {name: after[name][0] - after["1_10_1"][0] for name in after}
    assert before["2_20_2"][0] - before["1_10_1"][0] - apart["2_20_2"] == pytest.approx(36, abs=2)
    assert apart["4_50_2"] == pytest.approx(before["4_50_2"][0] - before["1_10_1"][0], abs=2)
    expect(viewer.page.locator('.box[data-node="2_20_2"]')).to_be_focused()
    viewer.saved()
    assert params(viewer)["sg_pos"] != ""
    viewer.page.get_by_role("button", name="Undo").click()
    assert centres(viewer) == before
    viewer.page.get_by_role("button", name="Redo").click()
    viewer.page.locator("[data-names='subgraph']").get_by_role("button", name="View", exact=True).click()
    viewer.page.get_by_role("menuitem", name="Arrange").click()
    assert centres(viewer) == before


def test_one_tab_stop_and_arrow_keys_from_box_to_box(viewer: Viewer) -> None:
    viewer.open(pinnedIds=PINS)
    assert viewer.page.locator('.panel-subgraph [tabindex="0"]').count() == 1
    viewer.page.locator('.box[data-node="1_10_1"]').focus()
    viewer.page.keyboard.press("ArrowUp")
    assert viewer.page.evaluate("document.activeElement.dataset.node") in ("2_20_2", "2_21_2")
    viewer.page.keyboard.press("ArrowUp")
    expect(viewer.page.locator('.box[data-node="4_50_2"]')).to_be_focused()


def test_wheel_drag_pinch_and_double_click(viewer: Viewer) -> None:
    viewer.open(pinnedIds=PINS)
    drawing = viewer.page.locator(".subgraph-plot")

    def zoom() -> float:
        return float(drawing.get_attribute("data-zoom") or 0)

    def until(check: Callable[[float], bool]) -> None:
        for _ in range(100):
            if check(zoom()):
                return
            viewer.page.wait_for_timeout(50)
        raise AssertionError(f"zoom stays at {zoom()}")

    plot = viewer.page.locator(".subgraph-plot").bounding_box()
    assert plot is not None
    whole = zoom()
    viewer.page.mouse.move(plot["x"] + 30, plot["y"] + 30)
    viewer.page.mouse.wheel(0, -300)
    until(lambda now: now > 1.2 * whole)
    before = viewer.page.locator(".box").first.bounding_box()
    viewer.page.mouse.down()
    viewer.page.mouse.move(plot["x"] + 70, plot["y"] + 50, steps=4)
    viewer.page.mouse.up()
    after = viewer.page.locator(".box").first.bounding_box()
    assert before is not None
    assert after is not None
    assert (after["x"] - before["x"], after["y"] - before["y"]) == pytest.approx((40, 20), abs=2)
    viewer.page.mouse.dblclick(plot["x"] + 30, plot["y"] + 30)
    until(lambda now: abs(now - whole) < 0.01)
    touch = viewer.page.context.new_cdp_session(viewer.page)
    x, y = plot["x"] + 60, plot["y"] + 60

    def fingers(kind: str, apart: float) -> None:
        points = [] if apart == 0 else [{"x": x - apart, "y": y}, {"x": x + apart, "y": y}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", 20)
    fingers("touchMove", 30)
    fingers("touchMove", 50)
    fingers("touchEnd", 0)
    until(lambda now: now > 1.5 * whole)
    viewer.page.get_by_role("button", name="Show the whole subgraph").click()
    until(lambda now: abs(now - whole) < 0.01)


def test_a_group_opens_in_its_place_and_closes_again(viewer: Viewer) -> None:
    viewer.open("von%20fr%C3%BCher")
    boxes = viewer.page.locator("[data-box]")
    expect(boxes).to_have_count(2)
    viewer.page.locator(".box.group").hover()
    viewer.page.get_by_role("button", name="Expand place").click()
    expect(boxes).to_have_count(3)
    expect(viewer.page.locator(".frame .frame-name")).to_have_text("place")
    assert sight(viewer) == {"count": 3, "outside": 0, "overlapping": 0, "below": 0}
    viewer.saved()
    viewer.page.reload()
    expect(boxes).to_have_count(3)
    viewer.page.get_by_role("button", name="Collapse place").click()
    expect(boxes).to_have_count(2)


def test_a_link_between_boxes_is_selected_and_explained(viewer: Viewer) -> None:
    viewer.open(pinnedIds=PINS)
    viewer.page.keyboard.press("Escape")
    line = viewer.page.locator(".flow-line .flow-reach").last
    line.dispatch_event("click")
    expect(viewer.page.locator(".flow-line.is-selected")).to_have_count(1)
    expect(viewer.page.locator(".selection-title strong")).to_contain_text("→")
    expect(viewer.page.locator(".flow-members tbody tr")).to_have_count(1)
    expect(viewer.page.locator(".flow-weight")).to_have_count(1)
    viewer.page.get_by_role("button", name="View", exact=True).click()
    viewer.page.get_by_role("menuitemcheckbox", name="Weights as text").click()
    assert viewer.page.locator(".flow-weight").count() >= 3


def test_several_subgraphs_are_kept_by_name(viewer: Viewer) -> None:
    viewer.open(pinnedIds=PINS)
    names = viewer.page.get_by_title("Subgraphs of this graph")

    def do(entry: str) -> None:
        names.click()
        viewer.page.locator(".menu").get_by_text(entry, exact=True).click()

    do("New subgraph")
    expect(viewer.page.locator(".box")).to_have_count(0)
    do("Subgraph 1")
    expect(viewer.page.locator(".box")).to_have_count(4)
    do("Duplicate")
    do("Rename …")
    viewer.page.get_by_label("Name of the subgraph").fill("for the paper")
    viewer.page.keyboard.press("Enter")
    expect(names).to_contain_text("for the paper")
    viewer.saved()
    assert [entry["name"] for entry in params(viewer)["subgraphs"]] == [
        "Subgraph 1",
        "Subgraph 2",
        "for the paper",
    ]
    viewer.page.reload()
    expect(names).to_contain_text("for the paper")
    do("Delete")
    expect(names).to_contain_text("Subgraph 2")


@pytest.mark.core
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
    assert sight(viewer) == {"count": 300, "outside": 0, "overlapping": 0, "below": 0}
    last = viewer.page.locator(".box").last
    last.click()
    assert viewer.selected() == nodes[-1]["node_id"]


def write_roles(viewer: Viewer) -> dict[str, Any]:
    """A graph `roles` whose features have few inputs and outputs, with a group made by hand; returns its file's content."""
    source = random.Random(4)
    nodes = [feature(source.randrange(4), 100 + i, source.randrange(1, 4), influence=0.1) for i in range(40)]
    tokens = [node(f"E_{position}_{position}", "embedding", "E", position) for position in range(1, 4)]
    output = node("9_50_3", "logit", "9", 3, clerp='Output " x" (p=0.600)', token_prob=0.6, influence=None)
    links = [(entry["node_id"], "9_50_3", source.uniform(-1, 3)) for entry in nodes if source.random() < 0.5]
    for entry in nodes:
        place = entry["ctx_idx"]
        token = source.randrange(1, place + 1)
        links.append((f"E_{token}_{token}", entry["node_id"], 1.0))
        below = [n for n in nodes if int(n["layer"]) < int(entry["layer"]) and n["ctx_idx"] <= place]
        chosen = source.sample(below, min(3, len(below)))
        links += [(one["node_id"], entry["node_id"], source.uniform(-1, 2)) for one in chosen]
    content = graph("roles", ["<bos>", " a", " b", " c"], [*nodes, *tokens, output], links)
    mine = [entry["node_id"] for entry in nodes if entry["ctx_idx"] == 2][:2]
    content["qParams"] |= {"pinnedIds": mine, "supernodes": [["mine", *mine]]}
    (viewer.folder / "roles.json").write_text(json.dumps(content))
    return content


def test_groups_are_proposed_as_the_command_makes_them_and_undone_in_one_step(viewer: Viewer) -> None:
    content = write_roles(viewer)
    file = read_graph_json(json.dumps(content).encode(), "roles")
    viewer.open("roles")
    page = viewer.page
    panel = page.locator('[data-panel="subgraph"]')
    page.get_by_role("button", name="Propose").click()
    page.get_by_role("slider", name="Level: least similarity in a group").fill("0.5")
    expect(panel.locator(".draft-bar output")).to_have_text("0.50")
    expect(panel.locator(".box.draft").first).to_be_visible()
    _, grouping = group_file(file, 0.5, across_positions=False, keep=True)
    changed = [group for group in grouping.groups if group.name != "mine" or len(group.nodes) > 2]
    expect(panel.locator(".box.draft")).to_have_count(len(changed))
    assert sight(viewer)["overlapping"] == 0
    panel.get_by_role("button", name="Accept all").click()
    viewer.saved()
    stored = json.loads((viewer.folder / "roles.json").read_text())["qParams"]
    assert [[name, *sorted(ids)] for name, *ids in stored["supernodes"]] == [
        [group.name, *sorted(group.nodes)] for group in grouping.groups
    ]
    assert len(grouping.groups) > 3
    page.keyboard.press("u")
    expect(panel.locator(".box")).to_have_count(1)
