"""Every interaction on graphs of 100,000 and (in the long suite) 1,000,000 links, painted with WebGL, in a page opened once."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from benchmarks.large_graph import synthetic_graph
from benchmarks.viewer import FLAGS

from circuit_tracer_cli.server.serve import serve
from tests.server.builders import free_port

from .conftest import CHROMIUM, Viewer, watch
from .test_painting import lose_webgl

if TYPE_CHECKING:
    from playwright.sync_api import Playwright

SIZES = {"100,000": (2_000, 100_000), "1,000,000": (10_000, 1_000_000)}
_READ_GRAPH = """async () => {
  const [graphs, loading, api] = await Promise.all(
    ['graph', 'load', 'api'].map((name) => import(`${document.baseURI.split('?')[0]}src/${name}.js`)));
  const { graph } = await loading.loadGraph(api.createApi(document.baseURI), 'large');
  window.truth = { graph, top: graphs.topLogit(graph) };
}"""
_PLACE_NODES = """async (zooms) => {
  const at = (path) => import(`${document.baseURI.split('?')[0]}src/${path}.js`);
  const [panel, layouts, viewports] = [await at('panels/link-graph'), await at('layout'), await at('viewport')];
  const { graph } = window.truth;
  const plot = document.querySelector('.plot');
  const visible = new Uint8Array(graph.nodes.length).fill(1);
  const viewport = viewports.createViewport();
  viewport.setFrame(panel.frameFor(graph, visible, { width: plot.clientWidth, height: plot.clientHeight }));
  const { width, height } = viewport.frame();
  const layout = layouts.layoutGraph(graph, visible, width, height);
  for (const [x, y, factor] of zooms) viewport.zoomAt(x, y, factor);
  window.truth.places = graph.nodes.map((node) => viewport.project(layout.x[node.index], layout.y[node.index]));
}"""
_HOVER_ALL = """async (count) => {
  const plot = document.querySelector('.plot'), box = plot.getBoundingClientRect(), wrong = [];
  const { graph, places } = window.truth;
  let hit = 0;
  for (let i = 0; i < count; i += 1) {
    const [x, y] = [box.width * (0.08 + 0.84 * ((i * 0.618034) % 1)), box.height * (0.12 + 0.7 * ((i * 0.414214) % 1))];
    plot.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + x, clientY: box.top + y, bubbles: true }));
    const away = places.map(([px, py]) => Math.hypot(px - x, py - y));
    const least = Math.min(...away);
    const tooltip = plot.querySelector('.tooltip');
    const shown = tooltip.hidden ? null : tooltip.querySelector('strong').textContent;
    const nearest = graph.nodes.filter((node) => away[node.index] < least + 0.001);
    const names = nearest.map((node) => (node.kind === 'feature' ? `Feature ${node.feature}` : null));
    const right = least < 29.9 ? names.includes(shown) || names.includes(null) : least < 30.1 || shown === null;
    if (!right) wrong.push([x, y, shown, names, least]);
    hit += shown?.startsWith('Feature') ? 1 : 0;
  }
  return { wrong, hit };
}"""
_COUNT_INK = """async (png) => {
  const bytes = Uint8Array.from(atob(png), (character) => character.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes], { type: 'image/png' }));
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  let dark = 0;
  for (let i = 0; i < data.length; i += 4) dark += data[i + 1] < 170 ? 1 : 0;
  return dark / (data.length / 4);
}"""


@pytest.fixture(
    scope="module",
    params=["100,000", pytest.param("1,000,000", marks=pytest.mark.long)],
    ids=lambda name: name,
)
def large(
    request: pytest.FixtureRequest, playwright: Playwright, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Viewer]:
    """One page with a large graph. It may ask nobody else for anything, and log no error."""
    folder = tmp_path_factory.mktemp("large")
    graph = synthetic_graph(*SIZES[request.param])
    (folder / "large.json").write_text(json.dumps(graph, separators=(",", ":")))
    del graph
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIRCUIT_TRACER_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(60_000)
        with serve(folder, port=free_port(), labels_dir=folder / "labels") as server:
            viewer = Viewer(page, server, folder)
            watch(viewer)
            page.goto(f"{server.url}?slug=large")
            counted = f"() => document.querySelector('.counts').textContent.includes('{request.param} links')"
            page.wait_for_function(counted)
            page.evaluate(_READ_GRAPH)
            yield viewer
            page.close()
            browser.close()
    assert viewer.complaints == []


def in_page(viewer: Viewer, expression: str) -> Any:
    """A value made of `graph`, the graph as the page's own modules read it, and `top`, its most likely output."""
    return viewer.page.evaluate(f"() => {{ const {{ graph, top }} = window.truth; return {expression}; }}")


def ink(viewer: Viewer) -> float:
    """The share of the plot's pixels that are dark."""
    viewer.page.mouse.move(1400, 880)
    png = viewer.page.locator(".plot").first.screenshot()
    return float(viewer.page.evaluate(_COUNT_INK, base64.b64encode(png).decode()))


def plot_box(viewer: Viewer) -> tuple[float, float, float, float]:
    """Left, top, width and height of the plot."""
    box = viewer.page.locator(".plot").first.bounding_box()
    assert box is not None
    return box["x"], box["y"], box["width"], box["height"]


def point_of(viewer: Viewer, chosen: str) -> tuple[float, float]:
    """Where a node, given by an expression, is on the page."""
    viewer.page.evaluate(_PLACE_NODES, [])
    within = f"() => {{ const {{ graph, places }} = window.truth; return places[{chosen}.index]; }}"
    x, y = viewer.page.evaluate(within)
    left, top, _, _ = plot_box(viewer)
    return left + x, top + y


def wait_for_selection(viewer: Viewer, node_id: str) -> None:
    viewer.page.wait_for_function(
        "(id) => new URLSearchParams(location.search).get('clickedId') === id", arg=node_id
    )


def test_it_is_painted_with_webgl_and_has_all_links(large: Viewer) -> None:
    assert large.page.locator("[data-painter]").get_attribute("data-painter") == "webgl"
    assert 0.02 < ink(large) < 0.6
    head = large.page.locator('[data-direction="input"] h3').inner_text()
    assert head == f"Inputs {in_page(large, 'graph.inputs(top.index).length')}"


def test_the_hovered_node_is_the_nearest(large: Viewer) -> None:
    large.page.evaluate(_PLACE_NODES, [])
    found = large.page.evaluate(_HOVER_ALL, 120)
    assert found["wrong"] == []
    assert found["hit"] > 100


def test_it_is_the_nearest_in_a_part_that_was_zoomed_and_moved(large: Viewer) -> None:
    left, top, width, height = plot_box(large)
    at_x, at_y = int(left + 0.6 * width), int(top + 0.5 * height)  # wheel events come at whole pixels
    before = ink(large)
    labels = "() => document.querySelector('.row-label').style.top"
    start = large.page.evaluate(labels)
    large.page.mouse.move(at_x, at_y)
    for _ in range(4):
        large.page.mouse.wheel(0, -150)
    large.page.wait_for_timeout(500)
    large.page.evaluate(_PLACE_NODES, [[at_x - left, at_y - top, math.exp(150 * 0.0022)]] * 4)
    found = large.page.evaluate(_HOVER_ALL, 120)
    assert found["wrong"] == []
    assert found["hit"] > 20
    assert ink(large) != before
    place = large.page.evaluate(labels)
    large.page.mouse.move(at_x, at_y)
    large.page.mouse.down()
    large.page.mouse.move(at_x - 40, at_y + 45, steps=6)
    large.page.locator(".plot .tooltip").first.wait_for(state="hidden")
    large.page.mouse.up()
    moved = "(place) => document.querySelector('.row-label').style.top !== place"
    large.page.wait_for_function(moved, arg=place)
    large.page.wait_for_timeout(400)
    assert large.page.evaluate(_HOVER_ALL, 120)["wrong"] != []  # what was true has moved away
    large.page.mouse.dblclick(left + 4, top + 4)
    large.page.wait_for_function(
        "(start) => document.querySelector('.row-label').style.top === start", arg=start
    )
    large.page.wait_for_timeout(400)
    large.page.evaluate(_PLACE_NODES, [])
    assert large.page.evaluate(_HOVER_ALL, 60)["wrong"] == []


def test_a_click_selects_and_shows_every_connection(large: Viewer) -> None:
    chosen = "graph.nodes.find((node) => node.kind === 'feature' && node.layer === 9)"
    x, y = point_of(large, chosen)
    large.page.mouse.click(x, y)
    wait_for_selection(large, in_page(large, f"{chosen}.id"))
    for direction, name in (("input", "Inputs"), ("output", "Outputs")):
        count = in_page(large, f"graph.{direction}s({chosen}.index).length")
        large.page.locator(f'[data-direction="{direction}"] h3', has_text=f"{name} {count}").wait_for()


def test_search_selects_and_keys_follow_the_strongest_link(large: Viewer) -> None:
    wanted = "graph.nodes.find((node) => node.feature === 1234)"
    large.page.keyboard.press("/")
    large.page.locator("#node-search").fill("1234")
    large.page.wait_for_function("() => document.querySelectorAll('.panel-nodes .node-row').length < 30")
    large.page.locator(f'.panel-nodes [data-node="{in_page(large, wanted + ".id")}"]').click()
    wait_for_selection(large, in_page(large, f"{wanted}.id"))
    large.page.locator("#node-search").fill("")
    large.page.locator("#node-search").press("Escape")
    large.page.keyboard.press("ArrowDown")
    wait_for_selection(
        large, in_page(large, f"graph.nodes[graph.links.source[graph.inputs({wanted}.index)[0]]].id")
    )
    large.page.keyboard.press("ArrowUp")
    large.page.keyboard.press("Escape")
    large.page.wait_for_function("() => !new URLSearchParams(location.search).get('clickedId')")
    assert 0.02 < ink(large) < 0.6


def test_a_pin_is_saved_and_undone(large: Viewer) -> None:
    chosen = "graph.nodes.find((node) => node.kind === 'feature' && node.layer === 12)"
    x, y = point_of(large, chosen)
    large.page.keyboard.down("Control")
    large.page.mouse.click(x, y)
    large.page.keyboard.up("Control")
    large.page.locator(".box").wait_for()
    large.saved()
    with (large.folder / "large.json").open() as file:
        assert in_page(large, f"{chosen}.id") in file.read(4000)
    large.page.keyboard.press("u")
    large.page.locator(".box").wait_for(state="detached")
    large.saved()


def test_paths_and_the_sliders(large: Viewer) -> None:
    large.page.get_by_role("tab", name="Paths").click()
    row = large.page.locator(".path-row").first
    row.hover()
    assert large.page.locator(".path-row").count() == 12
    assert 0.005 < ink(large) < 0.6
    large.page.get_by_role("tab", name="Connections").click()
    large.page.locator(".prune-toggle").click()
    large.page.get_by_role("slider", name="Node threshold").fill("0.3")
    total = in_page(large, "graph.nodes.length")
    large.page.wait_for_function(
        "(total) => Number.parseInt(document.querySelector('.counts').textContent.replaceAll(',', ''), 10) < total",
        arg=total,
    )
    large.page.get_by_role("slider", name="Node threshold").fill("0.8")
    large.page.wait_for_function(
        "(total) => Number.parseInt(document.querySelector('.counts').textContent.replaceAll(',', ''), 10) === total",
        arg=total,
    )
    large.page.locator(".prune-toggle").click()


def test_the_canvas_takes_over_when_the_context_is_lost(large: Viewer) -> None:
    before = ink(large)
    lose_webgl(large)
    large.page.wait_for_timeout(300)
    assert ink(large) == pytest.approx(before, rel=0.35)
