"""Heads of links and the reasons of a look, on the embedded model and from what a file keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from circuit_tracer_cli import ReplacementModel, attribute, create_graph_files
from circuit_tracer_cli.attention.prompt import freeze
from circuit_tracer_cli.attention.stored import add_heads
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.server.serve import serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
PROMPT = "Fact: the capital of the state containing Dallas is"


@pytest.fixture(scope="module")
def graph(model: ReplacementModel) -> Graph:
    """The demo's graph, all of it."""
    return attribute(PROMPT, model)


@pytest.fixture(scope="module")
def graphs(graph: Graph, model: ReplacementModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same graph without heads, and with those that `heads --all` keeps."""
    folder = tmp_path_factory.mktemp("graphs")
    create_graph_files(graph, "plain", folder)
    add_heads(freeze(graph, model))
    create_graph_files(graph, "headed", folder)
    return folder


@pytest.fixture(scope="module", params=["plain", "headed"])
def page(
    request: pytest.FixtureRequest, browser: Browser, graphs: Path, model: ReplacementModel
) -> Iterator[Page]:
    """The Heads panel: of the plain graph on a server with a model, of the other without one."""
    asks = request.param == "plain"
    with serve(graphs, port=0, model=model if asks else None) as server:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        page.set_default_timeout(30_000)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{server.url}?slug={request.param}")
        page.wait_for_selector(".plot-labels .token-label")
        page.click("#tab-heads")
        page.wait_for_selector(".head-chip")
        yield page
        context.close()
        assert complaints == []


def test_chips_and_the_filter_by_head(page: Page) -> None:
    first = page.locator(".head-link").first
    assert "Dallas" in first.inner_text()
    assert "%" in first.locator(".head-chip").first.inner_text()
    every = page.locator(".head-link").count()
    cell = page.locator(".head-cell[data-head=L3H2]")
    cell.click()
    assert cell.get_attribute("aria-pressed") == "true"
    through = page.locator(".head-link")
    assert 0 < through.count() < every
    assert all("L3H2" in text for text in through.all_inner_texts())
    assert "Links through L3H2" in page.inner_text(".heads")
    page.click("text=All heads")
    assert page.locator(".head-link").count() == every


@pytest.mark.parametrize("page", ["plain"], indirect=True)
def test_a_look_is_explained_and_compared(page: Page) -> None:
    page.locator(".head-link .head-chip[data-head=L3H2]").first.click()
    page.wait_for_selector(".look-pair")
    assert page.locator(".look-bar[data-role=key] .look-token").inner_text() == "Dallas"
    title = page.inner_text(".look-title")
    assert "L3H2" in title
    page.click(".look-bar[data-position='2']", modifiers=["Shift"])
    page.wait_for_selector("text=Difference of scores")
    assert page.locator(".look-bar[data-role=against]").get_attribute("data-position") == "2"
    rings = "document.querySelector('.panel-link-graph canvas:last-of-type').hidden"
    page.mouse.move(5, 5)
    page.hover(".look-pair >> nth=0")
    assert page.evaluate(rings) is False
    page.click("text=Against the rest")
    page.wait_for_selector(".look-title:has-text('against the rest')")
    page.click(".look-title >> text=Close")
    assert page.locator(".look-title").count() == 0


def test_the_other_side_of_a_node(page: Page) -> None:
    page.click(".head-link .node-row >> nth=0")
    page.wait_for_function("document.querySelector('.heads-head strong').textContent !== 'Austin'")
    page.click(".heads-head >> text=Outputs")
    page.wait_for_selector(".head-link .node-row:has-text('Austin')")


def test_a_link_of_the_subgraph(page: Page) -> None:
    for name in ("Dallas", "Austin"):
        page.click("#tab-nodes")
        page.fill("#node-search", name)
        page.click(".panel-nodes .node-row >> nth=0")
        page.keyboard.press("p")
    page.fill("#node-search", "")
    page.wait_for_selector(".box >> nth=1")
    page.locator(".flow-reach").first.dispatch_event("click")
    page.click("#tab-heads")
    page.wait_for_function("document.querySelector('.heads-head strong')?.textContent.includes('→')")
    assert page.locator(".head-link").count() == 1
    assert "→" in page.inner_text(".head-chips")


@pytest.mark.parametrize("page", ["plain"], indirect=True)
def test_hidden_inputs_are_listed_on_demand(page: Page) -> None:
    page.goto(page.url.partition("?")[0] + "?slug=plain")
    page.wait_for_selector(".plot-labels .token-label")
    page.click("#tab-connections")
    page.locator(".panel-connections button:has-text('What is hidden here?')").click()
    page.wait_for_selector(".panel-connections section.hidden-inputs")
    text = page.inner_text(".panel-connections section.hidden-inputs")
    assert "of what feeds this node comes from" in text
    shown = set(
        page.evaluate(
            "() => fetch('api/graphs/plain').then((r) => r.json()).then((g) => g.nodes.map((n) => n.node_id))"
        )
    )
    sources = [row.get_attribute("data-source") for row in page.locator(".hidden-input").all()]
    assert sources
    assert not shown & set(sources)
    selected = page.evaluate("() => new URLSearchParams(location.search).get('clickedId')")
    assert f"--inputs-of {selected}" in text


_LINKS = """async (id) => {
  const graph = await (await fetch("api/graphs/plain")).json();
  return (graph.qParams.added?.links ?? []).filter(({ source, target }) => source === id || target === id);
}"""


@pytest.mark.parametrize("page", ["plain"], indirect=True)
def test_a_hidden_input_is_added_by_a_click_and_undone_in_one_step(page: Page, graph: Graph) -> None:
    page.goto(page.url.partition("?")[0] + "?slug=plain")
    page.wait_for_selector(".plot-labels .token-label")
    page.click("#tab-connections")
    before = int(page.inner_text(".counts").split()[0])
    page.locator(".panel-connections button:has-text('What is hidden here?')").click()
    row = page.locator(".hidden-input").first
    added, selected = row.get_attribute("data-source"), page.url
    row.get_by_role("button").click()
    counts = page.locator(".counts")
    one_more = re.compile(f"^{before + 1} nodes")
    expect(counts).to_have_text(one_more)
    assert page.url == selected
    assert page.locator(".hidden-input").first.locator("button").count() == 0
    page.wait_for_selector('.save-state[data-kind="saved"]')
    names = graph.node_ids()
    weights = {
        (names[source], names[target]): weight
        for block in graph.edges.blocks()
        for source, target, weight in block.triples()
    }
    links = page.evaluate(_LINKS, added)
    assert links
    for link in links:
        assert link["weight"] == pytest.approx(weights[link["source"], link["target"]], abs=1e-5)
    page.reload()
    expect(counts).to_have_text(one_more)
    page.locator(".panel-connections button:has-text('What is hidden here?')").click()
    page.locator(".hidden-inputs button:has-text('Add all')").click()
    expect(counts).not_to_have_text(one_more)
    page.keyboard.press("Control+z")
    expect(counts).to_have_text(one_more)
    page.keyboard.press("Control+Shift+z")
    page.keyboard.press("Control+z")
    expect(counts).to_have_text(one_more)
