"""The exported page, opened as a file by a browser that may ask nobody for anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from circuit_tracer_cli.cli.summary import GraphSummary
from circuit_tracer_cli.demo import transcoder_dir
from circuit_tracer_cli.export import Destination
from circuit_tracer_cli.export.html import export
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.pipeline import trace
from circuit_tracer_cli.prepare import prepare
from circuit_tracer_cli.request import TraceRequest
from circuit_tracer_cli.types import SilentProgress

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from circuit_tracer_cli.graph.graph import Graph

PROMPT = "Fact: the capital of the state containing Dallas is"


@pytest.fixture(scope="module")
def graph() -> Graph:
    return trace(prepare(TraceRequest(prompt=PROMPT)), SilentProgress())


@pytest.fixture(scope="module")
def page_file(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    to = Destination("dallas", folder, transcoder_dir("clt") / "features")
    (path,) = export(pruned_graph(graph), to)
    return path


@pytest.mark.core
def test_it_reads_edits_and_remembers(browser: Browser, page_file: Path) -> None:
    assert page_file.stat().st_size < 2_000_000
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1440, "height": 900}, offline=True)
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: line.type == "error" and complaints.append(line.text))
    page.on(
        "request",
        lambda request: request.url.startswith(("file:", "data:", "blob:")) or complaints.append(request.url),
    )
    page.goto(page_file.as_uri())
    page.locator(".plot-labels .token-label").first.wait_for()
    assert "containing Dallas is" in page.title()
    page.locator(".panel-connections .node-row", has_text="Dallas").first.click()
    page.keyboard.press("p")
    page.wait_for_selector('.save-state[data-kind="saved"]')
    pinned = page.locator(".panel-subgraph .box").count()
    assert pinned == 1
    page.locator(".panel-connections .node-row").first.click()
    page.reload()
    page.locator(".panel-subgraph .box").first.wait_for()
    assert page.locator(".panel-subgraph .box").count() == pinned
    context.close()
    assert complaints == []


def test_influence_is_what_show_says(browser: Browser, page_file: Path, graph: Graph) -> None:
    shown = {node["node_id"]: node["influence"] for node in GraphSummary(graph).to_dict()["strongest_nodes"]}
    context = browser.new_context(viewport={"width": 1440, "height": 900}, offline=True)
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.get_by_role("tab", name="Nodes").click()
    found = 0
    for node_id, share in shown.items():
        row = page.locator(f'.panel-nodes [data-node="{node_id}"] .node-amount')
        if not row.count():
            continue
        amount = float(row.inner_text().removeprefix("≤ ").removesuffix(" %"))
        assert amount == pytest.approx(share * 100, rel=0.01 if share >= 0.1 else 0.06)
        assert "cumulative influence" in (row.get_attribute("title") or "")
        found += 1
    assert found >= 8
    row = page.locator(".panel-nodes .node-row:has(.glyph-feature)").first
    listed = row.locator(".node-amount").inner_text()
    row.click()
    fact = page.locator(".panel-feature .facts div", has_text="Influence").locator("dd")
    fact.wait_for()
    assert fact.inner_text() == listed
    context.close()


def test_a_copy_holds_the_annotations_and_nothing_that_the_viewer_drew(
    browser: Browser, page_file: Path, tmp_path: Path
) -> None:
    context = browser.new_context(
        viewport={"width": 1440, "height": 900}, offline=True, accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(20_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(page_file.as_uri())
    page.locator(".plot-labels .token-label").first.wait_for()
    page.keyboard.press("p")
    state = page.locator('.save-state[data-kind="saved"]')
    state.wait_for()
    assert state.inner_text() == "Kept in this browser"
    assert "Save a copy" in (state.get_attribute("title") or "")
    page.click("#tab-notes")
    page.get_by_label("Notes on this graph").fill("</script><b>mine</b>")
    page.get_by_role("button", name="Graph menu").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Save a copy with annotations").click()
    copy = tmp_path / "copy.html"
    download.value.save_as(copy)
    context.close()
    text = copy.read_text(encoding="utf-8")
    assert "token-label" not in text.split('id="embedded-graph"')[0].split("</style>")[1]
    assert "default-src 'none'" in text
    assert "</script><b>" not in text
    other = browser.new_context(viewport={"width": 1440, "height": 900}, offline=True)
    page = other.new_page()
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(copy.as_uri())
    page.locator(".panel-subgraph .box").wait_for()
    page.click("#tab-notes")
    assert page.get_by_label("Notes on this graph").input_value() == "</script><b>mine</b>"
    other.close()
    assert complaints == []
    assert abs(len(text) - len(page_file.read_text(encoding="utf-8"))) < 4000


def test_a_proposed_label_leads_to_how_labels_are_made(browser: Browser, page_file: Path) -> None:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, offline=True)
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(page_file.as_uri())
    page.click("#tab-nodes")
    page.click(".panel-nodes .node-row:has(.glyph-feature)")
    page.get_by_role("button", name="proposed label").click()
    assert page.locator("dialog.help").is_visible()
    heading = page.get_by_role("heading", name="How labels are made").bounding_box()
    assert heading is not None
    assert 0 <= heading["y"] < 900
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    page.locator(".panel-feature .edit-field").fill("mine")
    page.keyboard.press("Enter")
    page.locator(".panel-feature .detail-label", has_text="mine").wait_for()
    assert page.get_by_role("button", name="proposed label").count() == 0
    context.close()


def test_it_shows_examples(browser: Browser, page_file: Path) -> None:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, offline=True)
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(page_file.as_uri())
    page.locator(".panel-connections .node-row", has_text="L0").first.click()
    page.mouse.move(
        5, 5
    )  # the rows have changed below the pointer, and a hovered node comes before the selected one
    page.locator(".panel-feature .example").first.wait_for()
    context.close()
