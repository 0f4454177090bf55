"""The folder's graphs in the page, what a missing graph looks like, and what helps in the first ten seconds."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from .conftest import Viewer
from .graphs import demo, feature, graph, node

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)


def test_graphs_are_found_copied_renamed_deleted_and_brought_back(viewer: Viewer) -> None:
    viewer.open()
    viewer.page.keyboard.press("o")
    dialog = viewer.page.locator("dialog.library")
    rows = dialog.locator(".library-open strong")
    expect(rows).to_have_count(3)
    dialog.get_by_label("Search graphs").fill("dallas is")
    expect(rows).to_have_count(2)
    dialog.get_by_label("Duplicate demo", exact=True).click()
    expect(rows.get_by_text("demo-copy", exact=True)).to_be_visible()
    dialog.get_by_label("Rename demo-copy").click()
    dialog.get_by_label("Name of the graph").fill("another")
    viewer.page.keyboard.press("Enter")
    expect(rows.get_by_text("another", exact=True)).to_be_visible()
    assert (viewer.folder / "another.json").is_file()
    dialog.get_by_label("Delete another").click()
    expect(rows.get_by_text("another", exact=True)).to_have_count(0)
    dialog.get_by_role("button", name="Undo").click()
    expect(rows.get_by_text("another", exact=True)).to_be_visible()
    dialog.get_by_label("Open another").click()
    expect(dialog).to_be_hidden()
    viewer.page.wait_for_function("() => location.search.includes('slug=another')")


def test_a_dropped_file_is_added_and_opened_and_a_bad_one_refused(viewer: Viewer) -> None:
    viewer.open()
    document = demo()
    document["metadata"]["slug"] = "dropped"
    drop = """([text, name]) => {
      const data = new DataTransfer();
      data.items.add(new File([text], name, { type: "application/json" }));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    }"""
    viewer.page.evaluate(drop, [json.dumps(document), "dropped.json"])
    viewer.page.wait_for_function("() => location.search.includes('slug=dropped')")
    viewer.page.evaluate(drop, ["{}", "nothing.json"])
    expect(viewer.page.locator(".library-status")).not_to_be_empty()
    viewer.expect_complaint("422")


def test_a_missing_graph_offers_those_that_are_there(viewer: Viewer) -> None:
    viewer.page.goto(f"{viewer.server.url}?slug=nowhere")
    expect(viewer.page.locator(".message strong")).to_have_text("This graph isn't in the folder.")
    viewer.page.locator(".message").get_by_role("button", name="demo", exact=True).click()
    expect(viewer.page.locator(".message")).to_be_hidden()
    viewer.page.wait_for_selector(".plot-labels .token-label")
    viewer.expect_complaint("404")


def test_a_slow_line_shows_that_the_graph_is_being_read(viewer: Viewer) -> None:
    held: list[Any] = []
    slow = True
    viewer.page.route("**/api/graphs/demo**", lambda route: held.append(route) if slow else route.continue_())
    viewer.page.goto(f"{viewer.server.url}?slug=demo")
    expect(viewer.page.locator(".waiting")).to_be_visible()
    slow = False
    for route in held:
        route.continue_()
    expect(viewer.page.locator(".waiting")).to_be_hidden()


def test_a_tour_that_can_be_left(viewer: Viewer) -> None:
    viewer.open()
    button = viewer.page.locator(".tour-button")
    button.click()
    card = viewer.page.get_by_role("dialog", name="Tour")
    expect(card).to_contain_text("1 of 4")
    card.get_by_role("button", name="Next").click()
    expect(card).to_contain_text("2 of 4")
    card.get_by_role("button", name="Skip").click()
    expect(card).to_be_hidden()
    viewer.page.reload()
    viewer.page.wait_for_selector(".plot-labels .token-label")
    expect(button).to_be_hidden()


def test_ten_outputs_have_ten_labels_in_their_order(viewer: Viewer) -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    outputs = [
        node(
            f"4_{i}_1",
            "logit",
            "4",
            1,
            clerp=f'Output " {word}" (p={0.3 / (i + 1):.3f})',
            token_prob=0.3 / (i + 1),
            influence=None,
        )
        for i, word in enumerate(words)
    ]
    crowd = [feature(1, 100 + i, 0) for i in range(40)]
    document = graph("ten", ["a", " b"], [*crowd, feature(1, 10, 1), *outputs], [("1_10_1", "4_0_1", 1.0)])
    (viewer.folder / "ten.json").write_text(json.dumps(document))
    viewer.page.set_viewport_size({"width": 900, "height": 700})
    viewer.open("ten")
    shown = viewer.page.evaluate(
        """() => [...document.querySelectorAll(".logit-label")]
          .map((label) => [Number.parseFloat(label.style.left), label.textContent])
          .sort((a, b) => b[0] - a[0])"""
    )
    assert [text for _, text in shown] == words
    lefts = [left for left, _ in shown]
    assert min(a - b for a, b in pairwise(lefts)) > 13


def test_errors_are_one_line_that_opens(viewer: Viewer) -> None:
    viewer.open()
    fold = viewer.page.locator(".fold")
    expect(fold).to_contain_text("1 error")
    fold.click()
    expect(viewer.page.locator(".column .node-row", has_text="Error")).to_be_visible()


def test_a_page_inside_another_has_no_top_bar(viewer: Viewer) -> None:
    viewer.page.goto(f"{viewer.server.url}?embed&slug=demo")
    viewer.page.wait_for_selector(".plot-labels .token-label")
    expect(viewer.page.locator(".topbar")).to_be_hidden()
    assert "embed" in viewer.page.url
