"""The strongest paths: listed as `show` finds them, drawn under the pointer, pinned as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit_tracer_cli.export import Destination
from circuit_tracer_cli.export.viewer import export
from circuit_tracer_cli.graph.paths import strongest_paths
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.pipeline import trace
from circuit_tracer_cli.prepare import prepare
from circuit_tracer_cli.request import TraceRequest
from circuit_tracer_cli.types import SilentProgress

from .conftest import Viewer
from .test_painting import lose_webgl

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect

PROMPT = "Fact: the capital of the state containing Dallas is"


def open_paths(viewer: Viewer, slug: str = "demo") -> None:
    viewer.open(slug)
    viewer.page.get_by_role("tab", name="Paths").click()
    viewer.page.locator(".path-row").first.wait_for()


def steps(viewer: Viewer, row: int) -> list[str | None]:
    """The node ids of a listed path."""
    places = viewer.page.locator(".path-row").nth(row).locator(".path-step").all()
    return [place.get_attribute("data-node") for place in places]


def test_they_are_those_of_show(viewer: Viewer) -> None:
    graph = pruned_graph(trace(prepare(TraceRequest(prompt=PROMPT)), SilentProgress()), None, None)
    export(graph, Destination("traced", Path(viewer.folder)))
    names = graph.node_ids()
    expected = [[names[node] for node in path.nodes] for path in strongest_paths(graph, k=6)]
    open_paths(viewer, "traced")
    assert [steps(viewer, row) for row in range(6)] == expected
    expect(viewer.page.locator(".path-note")).to_contain_text("of the shown graph")


def test_one_is_drawn_and_pinned(viewer: Viewer) -> None:
    open_paths(viewer)
    lose_webgl(viewer)  # what WebGL has painted can't be read back later; the 2D canvas shows the same plan
    picture = "document.querySelector('.panel-link-graph canvas').toDataURL()"
    before = viewer.page.evaluate(picture)
    row = viewer.page.locator(".path-row").first
    row.locator(".path-strength").hover()
    viewer.page.wait_for_function(f"before => {picture} !== before", arg=before)
    nodes = steps(viewer, 0)
    row.locator(".path-pin").click()
    viewer.saved()
    expect(viewer.page.locator(".panel-subgraph .box")).to_have_count(len(nodes))


def test_through_the_selection(viewer: Viewer) -> None:
    open_paths(viewer)
    node = steps(viewer, 0)[1]
    viewer.page.locator(".path-row").first.locator(".path-step").nth(1).click()
    viewer.page.get_by_role("tab", name="Paths").click()
    viewer.page.get_by_role("button", name="Through the selection").click()
    count = viewer.page.locator(".path-row").count()
    assert count >= 1
    assert all(node in steps(viewer, row) for row in range(count))
