"""What the file says about a node, in tooltip, feature panel and scatter plot; also where the page reads the compact form."""

from __future__ import annotations

import json

import pytest

from .conftest import Viewer
from .graphs import demo
from .test_viewer import point_at

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)


@pytest.fixture
def scored(viewer: Viewer) -> Viewer:
    """The demo with two keys of its own on every node."""
    document = demo()
    document["metadata"]["slug"] = "scored"
    for i, node in enumerate(document["nodes"]):
        node |= {"my_score": i * i + 0.5, "remark": f"<b>{i}</b>", "list": [1], "nothing": None}
    (viewer.folder / "scored.json").write_text(json.dumps(document))
    return viewer


def test_the_tooltip_tells_everything_while_meta_is_held(scored: Viewer) -> None:
    scored.open("scored")
    point_at(scored, "Texas")
    tooltip = scored.page.locator(".tooltip")
    expect(tooltip.locator(".attributes")).to_have_count(0)
    scored.page.keyboard.down("Meta")
    table = tooltip.locator(".attributes")
    expect(table).to_contain_text("2_20_2")
    keys = table.locator("dt").all_inner_texts()
    assert {"node_id", "feature_type", "ctx_idx", "influence", "my_score", "remark"} <= set(keys)
    assert not {"list", "nothing"} & set(keys)
    expect(table).to_contain_text("<b>1</b>")
    scored.page.keyboard.up("Meta")
    expect(tooltip.locator(".attributes")).to_have_count(0)
    scored.page.keyboard.press("i")
    expect(tooltip.locator(".attributes")).to_contain_text("my_score")


def test_the_feature_panel_has_them_for_those_without_a_pointer(scored: Viewer) -> None:
    scored.open("scored", clickedId="2_21_2")
    summary = scored.page.locator(".all-attributes summary")
    summary.focus()
    scored.page.keyboard.press("Enter")
    expect(scored.page.locator(".all-attributes .attributes")).to_contain_text("4.5")
    scored.page.locator(".node-row", has_text="Austin").first.click()
    expect(scored.page.locator(".panel-feature strong").first).to_have_text("Austin")
    scored.page.locator(".all-attributes summary").click()
    expect(scored.page.locator(".all-attributes .attributes")).to_contain_text("token_prob")


def test_the_scatter_plot_has_the_files_own_numbers(scored: Viewer) -> None:
    scored.open("scored", panel="scatter", feature_scatter_x="my_score", feature_scatter_y="ctx_idx")
    expect(scored.page.get_by_label("Horizontal axis")).to_have_value("my_score")
    expect(scored.page.get_by_label("Vertical axis")).to_have_value("position")
    expect(scored.page.locator(".panel-scatter .count")).to_have_text("9 nodes")


def test_the_copied_link_has_every_part_of_the_view(viewer: Viewer) -> None:
    viewer.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    viewer.open(
        clickedId="null", pinnedIds="1_10_1,2_20_2", linkType="input", hiddenIds="2_22_1", logitDiff="Austin__vs__Dallas",
        pruningThreshold="0.7", edgeThreshold="0.95", sign="positive", boxes="layers", panel="scatter",
        feature_scatter_x="layer", feature_scatter_y="influence", clerps='[["76","a label"]]',
        supernodes='[["both","1_10_1","2_20_2"]]', sg_pos="250 750", gridsnap="link-graph00000816_connections08000616",
    )  # fmt: skip
    viewer.page.get_by_role("button", name="Copy a link").click()
    expect(viewer.page.locator(".notice")).to_contain_text("Link copied")
    link = viewer.page.evaluate("() => navigator.clipboard.readText()")
    read = """(link) => Object.fromEntries(new URL(link).searchParams)"""
    found = viewer.page.evaluate(read, link)
    assert found["linkType"] == "input"
    assert found["logitDiff"] == "Austin__vs__Dallas"
    assert (found["pruningThreshold"], found["edgeThreshold"]) == ("0.7", "0.95")
    assert found["pinnedIds"] == "1_10_1,2_20_2"
    assert found["hiddenIds"] == "2_22_1"
    assert json.loads(found["supernodes"]) == [["both", "1_10_1", "2_20_2"]]
    assert json.loads(found["clerps"]) == [["76", "a label"]]
    assert found["sg_pos"] == "250 750"
    assert "boxes" not in found, "the arrangement of older links is read by nobody now"
    assert (found["sign"], found["panel"]) == ("positive", "scatter")
    assert (found["feature_scatter_x"], found["feature_scatter_y"]) == ("layer", "influence")
    viewer.page.goto(link)
    viewer.page.wait_for_selector(".plot-labels .token-label")
    expect(viewer.page.get_by_label("Links of pinned nodes")).to_have_value("input")
    viewer.page.get_by_role("button", name="Copy a link").click()
    expect(viewer.page.locator(".notice")).to_contain_text("Link copied")
    again = viewer.page.evaluate(read, viewer.page.evaluate("() => navigator.clipboard.readText()"))
    assert again == found
