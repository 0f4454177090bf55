"""The list of nodes with its filters, and the scatter plot."""

from __future__ import annotations

import pytest

from .conftest import Viewer

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)


def test_filters_by_number_narrow_the_list_and_pin_it(viewer: Viewer) -> None:
    viewer.open(panel="nodes")
    rows = viewer.page.locator(".panel-nodes .node-name")
    expect(rows).to_have_count(9)
    viewer.page.get_by_role("button", name="Filters").click()
    viewer.page.get_by_label("Layer from").fill("2")
    viewer.page.get_by_label("Layer to").fill("2")
    expect(rows).to_have_text(["Texas", "say a capital", "Feature 22"])
    viewer.page.get_by_label("Influence (%) from", exact=True).fill("8")
    expect(rows).to_have_text(["Texas", "say a capital"])
    expect(viewer.page.get_by_role("button", name="Filters · 2")).to_be_visible()
    viewer.page.get_by_role("button", name="Pin 2").click()
    expect(viewer.page.locator(".box-name")).to_have_text(["Texas", "say a capital"])
    viewer.page.get_by_role("button", name="Undo").click()
    expect(viewer.page.locator(".box")).to_have_count(0)
    viewer.page.get_by_role("button", name="Clear", exact=True).click()
    viewer.page.get_by_label("Position to").fill("1")
    viewer.page.get_by_role("button", name="Features").click()
    expect(rows).to_have_text(["Dallas", "Feature 22"])
    viewer.page.get_by_label("Activation from").fill("3")
    expect(viewer.page.get_by_text("Nothing matches. Some filters are on.")).to_be_visible()


def test_the_order_of_the_list_can_be_chosen(viewer: Viewer) -> None:
    viewer.open(panel="nodes")
    viewer.page.get_by_role("button", name="Features").click()
    rows = viewer.page.locator(".panel-nodes .node-name")
    expect(rows).to_have_text(["Dallas", "Texas", "say a capital", "Feature 22"])
    viewer.page.get_by_label("Order", exact=True).select_option("layer")
    expect(rows).to_have_text(["Feature 22", "Texas", "say a capital", "Dallas"])


def test_the_scatter_plot_marks_pins_and_selects(viewer: Viewer) -> None:
    viewer.open(panel="scatter")
    viewer.page.get_by_label("Horizontal axis").select_option("layer")
    viewer.page.get_by_label("Vertical axis").select_option("influence")
    expect(viewer.page.locator(".panel-scatter .count")).to_have_text("7 nodes")
    assert "feature_scatter_x=layer" in viewer.page.url
    box = viewer.page.locator(".scatter-plot").bounding_box()
    assert box is not None
    # Layer 2 is right of the middle: the right half of the plot holds its three features.
    left, right = box["x"] + box["width"] * 0.75, box["x"] + box["width"] - 4
    top, bottom = box["y"] + 4, box["y"] + box["height"] - 4
    viewer.page.mouse.move(left, top)
    viewer.page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 4)):
        viewer.page.mouse.move(x, y, steps=3)
    viewer.page.mouse.up()
    expect(viewer.page.locator(".panel-scatter .count")).to_have_text("3 marked")
    viewer.page.get_by_role("button", name="Pin 3").click()
    expect(viewer.page.locator(".box")).to_have_count(3)
    viewer.page.reload()
    expect(viewer.page.get_by_label("Horizontal axis")).to_have_value("layer")
