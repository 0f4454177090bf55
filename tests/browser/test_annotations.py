"""Notes, annotation files, links to a view: what is kept where, and what undo brings back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from circuit_tracer_cli.export.report import save_report

from .conftest import Viewer
from .graphs import SCRIPT, demo

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)


def params(viewer: Viewer) -> dict[str, Any]:
    return json.loads((viewer.folder / "demo.json").read_text())["qParams"]


def choose(viewer: Viewer, path: Path) -> None:
    """Imports a file through the menu."""
    with viewer.page.expect_file_chooser() as chooser:
        viewer.page.get_by_role("button", name="Graph menu").click()
        viewer.page.get_by_role("menuitem", name="Import annotations").click()
    chooser.value.set_files(path)


def test_notes_are_saved_undone_in_one_go_and_found(viewer: Viewer) -> None:
    viewer.open(clickedId="2_20_2")
    viewer.page.get_by_role("tab", name="Notes").click()
    graph = viewer.page.get_by_label("Notes on this graph")
    graph.press_sequentially("Texas first?")
    node = viewer.page.get_by_label("Note on the selected node")
    node.press_sequentially(SCRIPT)
    viewer.saved()
    expect(viewer.page.locator(".note-text")).to_have_text(SCRIPT)
    viewer.page.wait_for_function(
        "async () => (await (await fetch('api/graphs/demo')).json()).qParams.notes?.nodes['2_20_2'] !== undefined"
    )
    assert params(viewer)["notes"] == {"graph": "Texas first?", "nodes": {"2_20_2": SCRIPT}}
    assert viewer.page.evaluate("window.hacked") is None
    viewer.open(clickedId="2_20_2", panel="notes")
    expect(graph).to_have_value("Texas first?")
    graph.press_sequentially(" Yes.")
    viewer.page.get_by_role("button", name="Undo").click()
    expect(graph).to_have_value("Texas first?")
    viewer.page.keyboard.press("/")
    viewer.page.locator("#node-search").fill("onerror")
    expect(viewer.page.locator(".panel-nodes .node-name")).to_have_text(["Texas"])
    viewer.page.locator("#node-search").fill("")
    viewer.page.get_by_role("button", name="Noted").click()
    expect(viewer.page.locator(".panel-nodes .node-name")).to_have_text(["Texas"])


def test_annotations_travel_in_a_file(viewer: Viewer, tmp_path: Path) -> None:
    viewer.open(clickedId="2_20_2")
    viewer.page.keyboard.press("p")
    viewer.page.get_by_role("button", name="Graph menu").click()
    with viewer.page.expect_download() as download:
        viewer.page.get_by_role("menuitem", name="Export annotations").click()
    assert download.value.suggested_filename == "demo.annotations.json"
    kept = tmp_path / "kept.json"
    download.value.save_as(kept)
    document = json.loads(kept.read_text())
    assert document["format"] == "circuit-tracer-annotations"
    assert document["qParams"]["pinnedIds"] == ["2_20_2"]
    document["qParams"]["pinnedIds"] += ["1_10_1", "9_9_9"]
    document["qParams"]["supernodes"] = [["place", "2_20_2", "1_10_1"]]
    kept.write_text(json.dumps(document))
    choose(viewer, kept)
    expect(viewer.page.locator(".notice")).to_contain_text("1 node isn't in this graph")
    expect(viewer.page.locator(".box.group .box-name")).to_have_text("place")
    viewer.page.keyboard.press("u")
    expect(viewer.page.locator(".box-name")).to_have_text(["Texas"])
    viewer.page.keyboard.press("Control+Shift+z")
    expect(viewer.page.locator(".box.group")).to_have_count(1)
    viewer.saved()


def test_a_file_without_annotations_is_refused_in_words(viewer: Viewer, tmp_path: Path) -> None:
    viewer.open()
    for text, words in (("{", "isn't JSON"), ('{"nodes": []}', "no annotations")):
        path = tmp_path / "other.json"
        path.write_text(text)
        choose(viewer, path)
        expect(viewer.page.locator(".notice")).to_contain_text(words)
    assert viewer.page.locator(".box").count() == 0


def test_a_link_holds_the_view_and_stays_short(viewer: Viewer) -> None:
    viewer.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    viewer.open(clickedId="2_20_2", sign="negative", panel="scatter")
    viewer.page.keyboard.press("p")
    viewer.page.get_by_role("button", name="Copy a link").click()
    expect(viewer.page.locator(".notice")).to_have_text("Link copied.")
    link = viewer.page.evaluate("navigator.clipboard.readText()")
    asked = parse_qs(urlsplit(link).query)
    assert asked["sign"] == ["negative"]
    assert asked["panel"] == ["scatter"]
    assert asked["pinnedIds"] == ["2_20_2"]
    viewer.page.goto(link)
    expect(viewer.page.locator(".segment", has_text="Suppressing")).to_have_attribute("aria-pressed", "true")
    expect(viewer.page.get_by_role("tab", name="Scatter")).to_have_attribute("aria-selected", "true")
    document = demo()
    document["qParams"]["clerps"] = [["273", "long " * 450]]
    (viewer.folder / "next").write_text(json.dumps(document))
    (viewer.folder / "next").replace(viewer.folder / "demo.json")  # the open page may read at any moment
    viewer.open()
    viewer.page.get_by_role("button", name="Copy a link").click()
    expect(viewer.page.locator(".notice")).to_contain_text("too many pins and labels")
    link = viewer.page.evaluate("navigator.clipboard.readText()")
    assert len(link) < 500
    assert "pinnedIds" not in link


def test_annotations_of_a_link_survive_a_reload_until_they_are_edited(viewer: Viewer) -> None:
    viewer.open(pinnedIds="2_20_2,1_10_1")
    expect(viewer.page.locator(".box")).to_have_count(2)
    viewer.page.reload()
    expect(viewer.page.locator(".box")).to_have_count(2)
    viewer.page.keyboard.press("Escape")
    viewer.page.locator(".box", has_text="Texas").click()
    viewer.page.keyboard.press("p")
    viewer.saved()
    assert params(viewer)["pinnedIds"] == ["1_10_1"]
    assert "pinnedIds" not in viewer.page.url
    viewer.page.reload()
    expect(viewer.page.locator(".box-name")).to_have_text(["Dallas"])


def test_the_file_says_how_it_was_made(viewer: Viewer) -> None:
    document = demo()
    document["metadata"] |= {
        "info": {"description": SCRIPT, "generator": {"name": "circuit-tracer-cli", "version": "1.2.3"}},
        "generation_settings": {"max_feature_nodes": 7500},
        "replacement_score": 0.75,
    }
    (viewer.folder / "demo.json").write_text(json.dumps(document))
    viewer.open()
    viewer.page.get_by_role("button", name="Graph menu").click()
    viewer.page.get_by_role("menuitem", name="About this graph").click()
    dialog = viewer.page.locator("dialog.info")
    expect(dialog).to_contain_text("circuit-tracer-cli 1.2.3")
    expect(dialog).to_contain_text("max feature nodes7500")
    expect(dialog).to_contain_text("Replacement0.75")
    expect(dialog).to_contain_text(SCRIPT)
    assert viewer.page.evaluate("window.hacked") is None
    viewer.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_a_report_put_into_the_file_is_no_conflict(viewer: Viewer) -> None:
    report = {"version": 1, "date": "2026-01-02T03:04:05+00:00", "checks": []}
    viewer.open(clickedId="2_20_2")
    with viewer.page.expect_response("**/api/graphs/demo/view"):
        viewer.page.evaluate("() => window.dispatchEvent(new Event('focus'))")
    save_report(viewer.folder / "demo.json", report)
    viewer.page.keyboard.press("p")
    viewer.saved()
    written = json.loads((viewer.folder / "demo.json").read_text())
    assert written["metadata"]["validation"] == report
    assert written["qParams"]["pinnedIds"] == ["2_20_2"]
    viewer.expect_complaint("412")


def test_the_served_page_is_downloaded_as_one_file(viewer: Viewer, tmp_path: Path) -> None:
    viewer.open(clickedId="2_20_2")
    viewer.page.keyboard.press("p")
    viewer.page.get_by_role("button", name="Graph menu").click()
    with viewer.page.expect_download() as download:
        viewer.page.get_by_role("menuitem", name="Download as one page").click()
    assert download.value.suggested_filename == "demo.html"
    copy = tmp_path / "demo.html"
    download.value.save_as(copy)
    viewer.saved()
    page = viewer.page.context.browser.new_context(offline=True).new_page()
    page.set_default_timeout(20_000)
    page.goto(copy.as_uri())
    page.locator(".panel-subgraph .box", has_text="Texas").wait_for()
    page.click("#tab-nodes")
    page.locator('.panel-nodes [data-node="1_10_1"]').click()
    page.locator(".panel-feature .example").first.wait_for()
    page.context.close()
