"""The page during a trace: progress, a graph that grows, and its end, good or bad."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from circuit_tracer_cli.server.live import LiveTrace
from circuit_tracer_cli.server.serve import Server, serve
from tests.server.builders import free_port

from .graphs import demo, write_graphs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)


def document(names: set[str] | None = None, **params: Any) -> dict[str, Any]:
    """The demo's graph under the slug `growing`, or the part of it that has these nodes."""
    graph = demo()
    graph["metadata"]["slug"] = "growing"
    graph["qParams"].update(params)
    if names is not None:
        graph["metadata"]["partial"] = True
        graph["nodes"] = [node for node in graph["nodes"] if node["node_id"] in names]
        graph["links"] = [link for link in graph["links"] if {link["source"], link["target"]} <= names]
    return graph


FIRST = {"E_7_1", "E_8_2", "4_50_2", "4_51_2", "1_-1_2"}
SECOND = {*FIRST, "2_20_2", "2_21_2"}


class Trace:
    """A trace that goes on when the test says so, and a page that follows it."""

    def __init__(self, page: Page, server: Server, live: LiveTrace, folder: Path) -> None:
        self.page, self.server, self.live, self.folder = page, server, live, folder
        self.complaints: list[str] = []
        self.is_over = False

    def publish(self, names: set[str]) -> None:
        self.live.publish(json.dumps(document(names)).encode())

    def finish(self, **params: Any) -> None:
        (self.folder / "growing.json").write_text(json.dumps(document(**params)))
        self.live.finish()

    def sees(self, count: int) -> None:
        """Waits until the list of nodes counts so many."""
        self.page.wait_for_function(
            "count => document.querySelectorAll('.panel-nodes .node-row').length === count", arg=count
        )


@pytest.fixture
def trace(browser: Browser, tmp_path: Path) -> Iterator[Trace]:
    folder = tmp_path / "graphs"
    folder.mkdir()
    write_graphs(folder)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    live = LiveTrace("growing", "<bos> Dallas is")
    with serve(folder, port=free_port(), live=live, labels_dir=tmp_path / "labels") as server:
        shown = Trace(page, server, live, folder)
        page.on("pageerror", lambda error: shown.complaints.append(str(error)))
        page.on("console", lambda line: line.type == "error" and shown.complaints.append(line.text))
        yield shown
        context.close()
    assert shown.is_over or shown.complaints == []


def test_the_graph_grows_and_the_selection_stays(trace: Trace) -> None:
    page = trace.page
    page.goto(trace.server.url)
    strip = page.locator(".live")
    expect(strip).to_contain_text("Starting")
    trace.live.phase("feature rows", 40)
    trace.live.advance(10)
    expect(strip).to_contain_text("Feature rows")
    expect(strip).to_contain_text("10 of 40")
    assert strip.locator("progress").evaluate("bar => bar.value") == 0.25
    trace.publish(FIRST)
    expect(strip).to_contain_text("Partial graph")
    page.get_by_role("tab", name="Nodes").click()
    trace.sees(5)
    trace.publish(SECOND)
    trace.sees(7)
    page.locator(".panel-nodes .node-row", has_text="Texas").click()
    page.keyboard.press("p")
    expect(page.locator(".panel-subgraph .box")).to_have_count(1)
    trace.publish({*SECOND, "1_10_1"})
    trace.sees(8)
    trace.finish(pinnedIds=["4_50_2"])
    expect(strip).to_be_hidden()
    trace.sees(9)
    assert "clickedId=2_20_2" in page.url
    page.wait_for_selector('.save-state[data-kind="saved"]')
    saved = json.loads((trace.folder / "growing.json").read_text())["qParams"]
    assert saved["pinnedIds"] == ["4_50_2", "2_20_2"]


def test_without_edits_the_finished_file_is_simply_opened(trace: Trace) -> None:
    trace.page.goto(trace.server.url)
    trace.publish(FIRST)
    trace.page.wait_for_selector(".plot-labels .token-label")
    trace.finish(pinnedIds=["2_20_2"])
    expect(trace.page.locator(".panel-subgraph .box")).to_have_count(1)
    expect(trace.page.locator(".picker option", has_text="growing")).to_have_count(1)


def test_an_empty_folder_lists_the_graph_that_is_being_traced(trace: Trace) -> None:
    for path in trace.folder.iterdir():
        path.unlink()
    trace.page.goto(trace.server.url)
    picker = trace.page.locator(".picker")
    expect(picker.locator("option")).to_have_text(["growing — <bos> Dallas is · being traced"])
    expect(picker).to_have_value("growing")
    expect(trace.page.locator(".message")).to_be_hidden()
    trace.publish(FIRST)
    trace.page.wait_for_selector(".plot-labels .token-label")
    expect(picker.locator("option")).to_have_count(1)
    trace.finish()
    expect(picker.locator("option")).to_have_text(["growing — <bos> Dallas is"])


def test_another_graph_and_the_traced_one_are_both_in_the_picker(trace: Trace) -> None:
    trace.page.goto(f"{trace.server.url}?slug=demo")
    trace.page.wait_for_selector(".plot-labels .token-label")
    picker = trace.page.locator(".picker")
    picker.select_option("growing")
    expect(trace.page.locator(".notice")).to_contain_text("as soon as the first rows are traced")
    expect(picker).to_have_value("demo")
    trace.publish(FIRST)
    expect(trace.page.get_by_role("button", name="Show its graph")).to_be_visible()
    trace.page.wait_for_timeout(1000)
    picker.select_option("growing")
    trace.page.wait_for_function("() => location.search.includes('slug=growing')")
    trace.finish()
    expect(trace.page.locator(".live")).to_be_hidden()


def test_another_graph_can_be_read_meanwhile(trace: Trace) -> None:
    trace.page.goto(f"{trace.server.url}?slug=demo")
    trace.page.wait_for_selector(".plot-labels .token-label")
    trace.publish(FIRST)
    trace.page.get_by_role("button", name="Show its graph").click()
    trace.page.wait_for_function("() => location.search.includes('slug=growing')")
    trace.finish()
    expect(trace.page.locator(".live")).to_be_hidden()


def test_a_failure_is_told_and_stays(trace: Trace) -> None:
    trace.page.goto(trace.server.url)
    expect(trace.page.locator(".live")).to_be_visible()
    trace.live.fail("not enough memory for this", "try a smaller --max-feature-nodes")
    strip = trace.page.locator(".live")
    expect(strip).to_contain_text("not enough memory")
    expect(strip).to_contain_text("--max-feature-nodes")
    assert strip.get_attribute("role") == "alert"


def test_a_server_that_goes_away_is_noticed(trace: Trace) -> None:
    trace.page.goto(trace.server.url)
    trace.publish(FIRST)
    trace.page.wait_for_selector(".plot-labels .token-label")
    trace.is_over = True  # from now on the browser complains of the silence
    trace.server.stop()
    expect(trace.page.locator(".live")).to_contain_text("ended early", timeout=60_000)
