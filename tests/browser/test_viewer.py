"""The viewer in a real browser, over the real server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Viewer
from .graphs import LONG, RIGHT_TO_LEFT, SCRIPT, demo, graph

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)

_SCAN = """(label) => {
  const plot = document.querySelector(".panel-link-graph .plot");
  const box = plot.getBoundingClientRect();
  for (let y = box.top; y < box.bottom; y += 12) {
    for (let x = box.left; x < box.right; x += 12) {
      plot.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y }));
      const tooltip = plot.querySelector(".tooltip:not([hidden]) strong");
      if (tooltip?.textContent === label) return [x, y];
    }
  }
  return null;
}"""


def params(viewer: Viewer, slug: str = "demo") -> dict[str, Any]:
    return json.loads((viewer.folder / f"{slug}.json").read_text())["qParams"]


def names(viewer: Viewer, selector: str) -> list[str]:
    return viewer.page.locator(f"{selector} .node-name").all_inner_texts()


def point_at(viewer: Viewer, label: str) -> tuple[float, float]:
    """Where in the link graph the pointer meets the node of that label."""
    found = viewer.page.evaluate(_SCAN, label)
    assert found, f"no node {label!r} under the pointer anywhere"
    viewer.page.mouse.move(*found)
    return found[0], found[1]


@pytest.mark.core
def test_the_first_view(viewer: Viewer) -> None:
    viewer.open()
    assert viewer.page.locator(".prompt").inner_text() == "<bos> Dallas is"
    assert viewer.selected() == "4_50_2"
    assert names(viewer, '[data-direction="input"]') == ["Texas", "say a capital", "Feature 22", "1 error"]
    amounts = viewer.page.locator('[data-direction="input"] .node-amount').all_inner_texts()
    assert amounts == ["+46 %", "+31 %", "−7.7 %", "−15 %"]
    assert viewer.page.locator(".token-label").all_inner_texts() == ["Dallas", "is"]


def test_click_selects_and_a_click_beside_clears(viewer: Viewer) -> None:
    viewer.open()
    x, y = point_at(viewer, "Texas")
    viewer.page.mouse.click(x, y)
    assert viewer.selected() == "2_20_2"
    assert names(viewer, '[data-direction="input"]') == ["Dallas", "is"]
    assert sorted(names(viewer, '[data-direction="output"]')) == ["Austin", "Dallas"]
    box = viewer.page.locator(".panel-link-graph .plot").bounding_box()
    assert box is not None
    viewer.page.mouse.click(box["x"] + 4, box["y"] + 4)
    assert viewer.selected() is None


def test_rows_lead_on(viewer: Viewer) -> None:
    viewer.open()
    viewer.page.locator('[data-direction="input"] .node-row', has_text="Texas").click()
    viewer.page.locator('[data-direction="input"] .node-row', has_text="Dallas").click()
    assert viewer.selected() == "1_10_1"


@pytest.mark.core
def test_pins_survive_a_reload(viewer: Viewer) -> None:
    viewer.open()
    x, y = point_at(viewer, "Texas")
    viewer.page.mouse.move(x, y)
    viewer.page.keyboard.down("Control")
    viewer.page.mouse.click(x, y)
    viewer.page.keyboard.up("Control")
    viewer.page.locator(".box", has_text="Texas").wait_for()
    viewer.saved()
    assert params(viewer)["pinnedIds"] == ["2_20_2"]
    assert params(viewer)["linkType"] == "both"
    viewer.open()
    assert viewer.page.locator(".box-name").all_inner_texts() == ["Texas"]


@pytest.mark.core
def test_keys_walk_pin_undo_and_redo(viewer: Viewer) -> None:
    viewer.open()
    press = viewer.page.keyboard.press
    press("ArrowDown")
    assert viewer.selected() == "2_20_2"
    press("ArrowRight")
    assert viewer.selected() == "2_21_2"
    press("ArrowLeft")
    press("p")
    press("ArrowUp")
    press("p")
    assert viewer.page.locator(".box").count() == 2
    press("u")
    assert viewer.page.locator(".box").count() == 1
    press("Shift+U")
    assert viewer.page.locator(".box").count() == 2
    press("Control+z")
    assert viewer.page.locator(".box").count() == 1
    viewer.saved()
    assert params(viewer)["pinnedIds"] == ["2_20_2"]
    press("Escape")
    assert viewer.selected() is None
    press("?")
    assert viewer.page.locator("dialog.help").is_visible()
    assert viewer.page.evaluate("() => document.querySelector('dialog.help').scrollTop") < 40
    press("Escape")
    assert not viewer.page.locator("dialog.help").is_visible()


def test_search(viewer: Viewer) -> None:
    viewer.open()
    viewer.page.keyboard.press("/")
    viewer.page.keyboard.type("capital")
    assert names(viewer, ".panel-nodes") == ["say a capital"]
    viewer.page.keyboard.press("Enter")
    assert viewer.selected() == "2_21_2"
    viewer.page.locator("#node-search").fill("nothing like this")
    assert viewer.page.get_by_text("Nothing matches.").is_visible()


@pytest.mark.core
def test_the_slider_prunes_and_shows_all_at_its_end(viewer: Viewer) -> None:
    viewer.open()
    viewer.page.get_by_role("tab", name="Nodes").click()
    assert len(names(viewer, ".panel-nodes")) == 9
    viewer.page.locator(".prune-toggle").click()
    viewer.page.get_by_role("slider", name="Node threshold").fill("0.5")
    # Texas crosses the threshold and stays; what comes after it goes, tokens and outputs never do.
    expect(viewer.page.locator(".panel-nodes .node-row")).to_have_count(6)
    assert "say a capital" not in names(viewer, ".panel-nodes")
    viewer.page.get_by_role("slider", name="Node threshold").fill("0.8")
    expect(viewer.page.locator(".panel-nodes .node-row")).to_have_count(9)


def test_holding_g_groups(viewer: Viewer) -> None:
    viewer.open()
    for label in ("Texas", "say a capital"):
        viewer.page.locator('[data-direction="input"] .node-row', has_text=label).click(modifiers=["Control"])
    viewer.page.keyboard.down("g")
    for label in ("Texas", "say a capital"):
        viewer.page.locator(".box", has_text=label).click()
    viewer.page.keyboard.up("g")
    viewer.page.keyboard.press("Escape")
    assert viewer.page.locator(".box.group .box-name").all_inner_texts() == ["Texas"]
    viewer.page.locator(".box.group .box-name").dblclick()
    viewer.page.locator(".edit-field").fill("state & capital")
    viewer.page.locator(".edit-field").press("Enter")
    assert viewer.page.locator(".box.group .box-name").all_inner_texts() == ["state & capital"]
    viewer.saved()
    viewer.page.wait_for_timeout(700)
    assert params(viewer)["supernodes"] == [["state & capital", "2_20_2", "2_21_2"]]
    viewer.page.locator(".box.group").hover()
    viewer.page.locator(".dissolve").click()
    assert viewer.page.locator(".box").count() == 2


def test_boxes_can_be_dragged_and_stay(viewer: Viewer) -> None:
    viewer.open()
    viewer.page.keyboard.press("p")
    viewer.page.keyboard.press("ArrowDown")
    viewer.page.keyboard.press("p")

    def apart() -> tuple[float, float]:
        """From the second box to the first, in the drawing's own lengths."""
        zoom = float(viewer.page.locator(".subgraph-plot").get_attribute("data-zoom") or 0)
        first, second = (viewer.page.locator(".box").nth(i).bounding_box() for i in (0, 1))
        assert first is not None
        assert second is not None
        return (first["x"] - second["x"]) / zoom, (first["y"] - second["y"]) / zoom

    box = viewer.page.locator(".box").first.bounding_box()
    other = viewer.page.locator(".box").nth(1).bounding_box()
    assert box is not None
    viewer.page.mouse.move(box["x"] + 10, box["y"] + 10)
    viewer.page.mouse.down()
    viewer.page.mouse.move(box["x"] - 190, box["y"] - 30, steps=4)
    viewer.page.mouse.up()
    dropped = viewer.page.locator(".box").first.bounding_box()
    assert dropped is not None
    assert (dropped["x"], dropped["y"]) == pytest.approx((box["x"] - 200, box["y"] - 40), abs=3)
    assert viewer.page.locator(".box").nth(1).bounding_box() == pytest.approx(other, abs=1)
    left = apart()
    viewer.saved()
    viewer.open()
    assert apart() == pytest.approx(left, abs=3)


@pytest.mark.core
def test_labels_are_edited_saved_and_undone(viewer: Viewer) -> None:
    viewer.open(clickedId="2_20_2")
    viewer.page.keyboard.press("e")
    field = viewer.page.locator(".panel-feature .edit-field")
    field.fill("the state of Texas")
    field.press("Enter")
    assert viewer.page.locator(".selection-title strong").inner_text() == "the state of Texas"
    viewer.saved()
    assert params(viewer)["clerps"] == [["273", "the state of Texas"]]
    viewer.open(clickedId="2_20_2")
    assert viewer.page.locator(".selection-title strong").inner_text() == "the state of Texas"


def test_a_label_being_typed_survives_what_arrives_meanwhile(viewer: Viewer) -> None:
    waiting: list[Any] = []
    viewer.page.route("**/api/graphs/*/features/**", lambda route: waiting.append(route))
    with viewer.page.expect_request("**/api/graphs/*/features/**"):
        viewer.open(clickedId="1_10_1")
    viewer.page.keyboard.press("e")
    field = viewer.page.locator(".panel-feature .edit-field")
    field.fill("half typ")
    for route in waiting:
        route.continue_()
    viewer.page.locator(".panel-feature .example").first.wait_for()
    viewer.page.locator(".node-row").first.hover()
    viewer.page.wait_for_timeout(400)  # longer than the delay before a hovered node is shown
    assert field.input_value() == "half typ"
    field.press("Enter")
    assert viewer.page.locator(".selection-title strong").inner_text() == "half typ"


def test_examples_of_a_feature(viewer: Viewer) -> None:
    viewer.open(clickedId="1_10_1")
    detail = viewer.page.locator(".panel-feature")
    detail.locator(".example").first.wait_for()
    assert detail.locator(".example").count() == 2
    assert detail.locator(".example .centre").first.inner_text() == " Dallas"
    assert detail.locator(".token-chip").all_inner_texts() == [" Austin", SCRIPT, " Paris"]
    assert "0.21 %" in detail.locator(".facts").inner_text()
    assert detail.locator(".bin").count() == 4


def test_a_feature_without_examples_says_so(viewer: Viewer) -> None:
    viewer.open(clickedId="2_20_2")
    viewer.page.get_by_text("No examples for this feature.").wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_hostile_texts_are_only_texts(viewer: Viewer, theme: str) -> None:
    viewer.open("hostile", clickedId="3_50_3")
    if theme == "dark":
        viewer.page.keyboard.press("t")
    shown = names(viewer, '[data-direction="input"]')
    assert shown == [SCRIPT, LONG, RIGHT_TO_LEFT]
    assert viewer.page.locator(".box.group .box-name").inner_text() == SCRIPT
    viewer.page.get_by_role("tab", name="Nodes").click()
    point_at(viewer, SCRIPT)
    assert viewer.page.evaluate("window.hacked") is None
    assert viewer.page.locator("img, script:not([src='main.js'])").count() == 0
    width = viewer.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0


def test_links_with_annotations_are_text_too(viewer: Viewer) -> None:
    viewer.page.goto(
        f"{viewer.server.url}?slug=demo&pinnedIds=1_10_1,2_20_2&supernodes="
        + json.dumps([[SCRIPT, "1_10_1"]])
    )
    viewer.page.locator(".box.group").wait_for()
    assert viewer.page.locator(".box.group .box-name").inner_text() == SCRIPT
    assert viewer.page.evaluate("window.hacked") is None
    assert params(viewer)["pinnedIds"] == []


def test_files_of_the_reference_page_keep_their_groups(viewer: Viewer) -> None:
    viewer.open("von%20fr%C3%BCher")
    assert viewer.page.locator(".box").count() == 2
    assert viewer.page.locator(".box.group .box-name").inner_text() == "place"
    viewer.page.keyboard.press("p")
    viewer.saved()
    assert params(viewer, "von früher")["supernodes"] == [["place", "1_10_1", "2_20_2"]]


def test_two_windows_cannot_overwrite_each_other(viewer: Viewer) -> None:
    viewer.open()
    other = viewer.page.context.new_page()
    other.goto(f"{viewer.server.url}?slug=demo")
    other.wait_for_selector(".selection-head")
    viewer.page.keyboard.press("p")
    viewer.saved()
    other.keyboard.press("ArrowDown")
    other.keyboard.press("p")
    other.wait_for_selector('.save-state[data-kind="conflict"]')
    assert params(viewer)["pinnedIds"] == ["4_50_2"]
    other.get_by_role("button", name="Keep mine").click()
    other.wait_for_selector('.save-state[data-kind="saved"]')
    assert params(viewer)["pinnedIds"] == ["2_20_2"]
    viewer.page.keyboard.press("ArrowDown")
    viewer.page.keyboard.press("p")
    viewer.page.get_by_role("button", name="Load theirs").click()
    expect(viewer.page.locator(".box-name")).to_have_text(["Texas"])
    viewer.expect_complaint("412")


def test_the_picker_lists_new_graphs_and_names_broken_ones(viewer: Viewer) -> None:
    viewer.open()
    (viewer.folder / "later.json").write_text(
        json.dumps(graph("later", ["x", " y", " z"], demo()["nodes"], []))
    )
    viewer.page.locator(".picker").focus()
    expect(viewer.page.locator(".picker option[value=later]")).to_have_count(1)
    broken = viewer.page.locator(".picker option[disabled]").all_inner_texts()
    assert len(broken) == 1
    assert broken[0].startswith("broken")
    viewer.page.locator(".picker").select_option("later")
    expect(viewer.page.locator(".prompt")).to_have_text("x y z")


def test_an_empty_folder_says_what_to_do(viewer: Viewer) -> None:
    for path in viewer.folder.iterdir():
        path.unlink()
    viewer.page.goto(viewer.server.url)
    viewer.page.get_by_text("circuit-tracer attribute").first.wait_for()


@pytest.mark.parametrize("size", [(1280, 720), (1440, 900), (3840, 2160)])
def test_nothing_is_cut_off(viewer: Viewer, size: tuple[int, int]) -> None:
    viewer.page.set_viewport_size({"width": size[0], "height": size[1]})
    viewer.open()
    for selector in (".icon", ".segment", ".tab", ".prune-toggle"):
        for element in viewer.page.locator(selector).all():
            box = element.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= size[0]
    assert viewer.page.evaluate("document.documentElement.scrollHeight <= window.innerHeight")


def test_it_works_below_another_path(viewer: Viewer) -> None:
    """As behind a notebook's proxy, which puts a path in front of every address."""
    prefix = f"{viewer.server.url}proxy/8041/"

    def strip(route: Any) -> None:
        route.continue_(url=route.request.url.replace("/proxy/8041/", "/"))

    viewer.page.route("**/proxy/8041/**", strip)
    viewer.page.goto(f"{prefix}?slug=demo")
    viewer.page.wait_for_selector(".selection-head")
    viewer.page.keyboard.press("p")
    viewer.saved()
    assert params(viewer)["pinnedIds"] == ["4_50_2"]


def test_a_supernode_is_selected_as_a_whole(viewer: Viewer) -> None:
    viewer.open("von%20fr%C3%BCher")
    viewer.page.locator(".box.group").click()
    expect(viewer.page.locator(".selection-title strong")).to_have_text("place")
    assert names(viewer, '[data-direction="input"]') == ["Dallas", "is"]
    assert sorted(names(viewer, '[data-direction="output"]')) == ["Austin", "Dallas", "Feature 22"]
    viewer.page.locator(".dot").last.click()
    expect(viewer.page.locator(".selection-title strong")).to_have_text("Texas")


def test_the_node_list_is_walked_with_arrows(viewer: Viewer) -> None:
    viewer.open()
    viewer.page.keyboard.press("/")
    viewer.page.keyboard.press("ArrowDown")
    viewer.page.keyboard.press("ArrowDown")
    viewer.page.keyboard.press("Enter")
    second = viewer.page.locator(".panel-nodes .node-row").nth(1)
    assert second.get_attribute("data-node") == viewer.selected()
    viewer.page.keyboard.press("ArrowUp")
    viewer.page.keyboard.press("ArrowUp")
    expect(viewer.page.locator("#node-search")).to_be_focused()


@pytest.mark.core
def test_a_broken_graph_is_explained_and_another_can_be_chosen(viewer: Viewer) -> None:
    viewer.page.goto(f"{viewer.server.url}?slug=broken")
    expect(viewer.page.locator(".message strong")).to_contain_text("not valid JSON")
    viewer.page.locator(".picker").select_option("demo")
    expect(viewer.page.locator(".message")).to_be_hidden()
    assert viewer.selected() == "4_50_2"
    viewer.expect_complaint("422")


def test_edits_wait_for_a_server_that_is_away(viewer: Viewer) -> None:
    viewer.open()
    viewer.page.route("**/annotations", lambda route: route.abort())
    viewer.page.keyboard.press("p")
    viewer.page.wait_for_selector('.save-state[data-kind="failed"]')
    viewer.page.unroute("**/annotations")
    viewer.page.evaluate("window.dispatchEvent(new Event('online'))")
    viewer.saved()
    assert params(viewer)["pinnedIds"] == ["4_50_2"]
    viewer.expect_complaint("ERR_FAILED")


def test_graphs_that_appear_are_listed_and_the_first_one_is_opened(viewer: Viewer) -> None:
    for path in viewer.folder.iterdir():
        path.unlink()
    viewer.page.goto(viewer.server.url)
    expect(viewer.page.locator(".message")).to_contain_text("no graphs in this folder yet")
    (viewer.folder / "demo.json").write_text(json.dumps(demo()))
    expect(viewer.page.locator(".message")).to_be_hidden()
    expect(viewer.page.locator(".prompt")).to_have_text("<bos> Dallas is")
    other = demo()
    other["metadata"]["slug"] = "other"
    (viewer.folder / "other.json").write_text(json.dumps(other))
    expect(viewer.page.locator(".picker option")).to_have_count(2)


def test_two_windows_follow_each_other_if_both_want_to(viewer: Viewer) -> None:
    viewer.open()
    second = viewer.page.context.new_page()
    second.goto(f"{viewer.server.url}?slug=demo&clickedId=1_10_1")
    second.wait_for_selector(".plot-labels .token-label")
    for page in (viewer.page, second):
        page.get_by_role("button", name="Graph menu").click()
        page.get_by_role("menuitemcheckbox", name="Follow other windows").click()
    viewer.page.keyboard.press("ArrowDown")
    expect(second.locator(".selection-title strong")).to_have_text("Texas")
    second.keyboard.press("r")
    second.get_by_role("slider", name="Link threshold").fill("0.9")
    expect(viewer.page.locator(".prune-toggle")).to_contain_text("0.90")
    second.keyboard.press("Escape")
    second.get_by_role("button", name="A − B").click()
    expect(viewer.page.locator(".selection-title strong")).to_have_text("Austin − Dallas")
    second.close()
