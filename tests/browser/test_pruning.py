"""Both thresholds set in the page, against `prune` in Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from circuit_tracer_cli.export.viewer import create_graph_files
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import compute_graph_scores
from circuit_tracer_cli.graph.prune import prune_graph
from tests.graph.builders import random_graph

from .conftest import Viewer

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)

THRESHOLDS = [(0.8, 0.98), (0.9, 0.7), (1.0, 0.9), (0.6, 1.0), (0.5, 0.5), (0.0, 0.0)]

_PRUNE = """async ([slug, thresholds]) => {
  const [{ parseGraph }, { createPruner, pruningInput }] = await Promise.all([
    import(new URL("src/graph.js", document.baseURI)), import(new URL("src/pruning.js", document.baseURI)),
  ]);
  const graph = parseGraph(await (await fetch(`api/graphs/${slug}`)).json());
  const pruner = createPruner(pruningInput(graph));
  return thresholds.map(([nodes, links]) => {
    const { kept, alive, point } = pruner.prune(nodes, links);
    const { source, target } = graph.links;
    const pairs = [...kept.keys()].filter((k) => kept[k]).map((k) => [graph.nodes[source[k]].id, graph.nodes[target[k]].id]);
    return { pairs, nodes: graph.nodes.filter((node) => alive[node.index]).map((node) => node.id), point };
  });
}"""


def whole_graph(folder: Path) -> Graph:
    """A random graph, all of it in the file `whole`."""
    graph = random_graph(seed=7, n_layers=4, n_pos=4, n_features=3)
    create_graph_files(graph, "whole", folder, node_threshold=1.0, edge_threshold=1.0)
    return graph


def pruned_by_python(graph: Graph, folder: Path, nodes: float, links: float) -> dict[str, Any]:
    """The file that Python writes with these thresholds, and the scores of the links that it keeps."""
    slug = f"pruned-{nodes:g}-{links:g}"
    create_graph_files(graph, slug, folder, node_threshold=nodes, edge_threshold=links)
    document = json.loads((folder / f"{slug}.json").read_text())
    keep = prune_graph(graph, nodes, links).edge_keep
    left = random_graph(seed=7, n_layers=4, n_pos=4, n_features=3)
    left = Graph(
        **{
            name: getattr(left, name)
            for name in (
                "input_string", "input_tokens", "active_features", "cfg", "selected_features", "activation_values",
                "logit_targets", "logit_probabilities", "scan", "vocab_size", "metadata",
            )
        },
        adjacency_matrix=graph.edges.select(keep),
    )  # fmt: skip
    return {
        "pairs": {(link["source"], link["target"]) for link in document["links"]},
        "nodes": {node["node_id"] for node in document["nodes"]},
        "scores": compute_graph_scores(left),
    }


def test_the_page_keeps_the_links_that_python_keeps(viewer: Viewer, tmp_path: Path) -> None:
    graph = whole_graph(viewer.folder)
    viewer.open("whole")
    found = viewer.page.evaluate(_PRUNE, ["whole", THRESHOLDS])
    sizes = set()
    for (nodes, links), ours in zip(THRESHOLDS, found, strict=True):
        theirs = pruned_by_python(graph, tmp_path / "python", nodes, links)
        assert {tuple(pair) for pair in ours["pairs"]} == theirs["pairs"], (nodes, links)
        assert set(ours["nodes"]) == theirs["nodes"], (nodes, links)
        scores = [ours["point"]["replacement"], ours["point"]["completeness"]]
        assert scores == pytest.approx(theirs["scores"], abs=1e-6)
        sizes.add(len(ours["pairs"]))
    assert len(sizes) > 4


def test_the_scores_of_the_whole_file_are_those_of_the_whole_graph(viewer: Viewer) -> None:
    graph = whole_graph(viewer.folder)
    viewer.open("whole")
    [whole] = viewer.page.evaluate(_PRUNE, ["whole", [(1.0, 1.0)]])
    scores = [whole["point"]["replacement"], whole["point"]["completeness"]]
    assert scores == pytest.approx(compute_graph_scores(graph), abs=1e-6)
    assert whole["point"]["explained"] == pytest.approx(scores[0], abs=1e-9)


def test_sliders_prune_with_curves_and_the_address_keeps_both(viewer: Viewer) -> None:
    graph = whole_graph(viewer.folder)
    theirs = pruned_by_python(graph, viewer.folder, 0.8, 0.9)
    viewer.open("whole")
    viewer.page.keyboard.press("r")
    strip = viewer.page.locator(".prune")
    nodes, links = (
        strip.get_by_role("slider", name="Node threshold"),
        strip.get_by_role("slider", name="Link threshold"),
    )
    expect(nodes).to_be_focused()
    nodes.fill("0.8")
    links.fill("0.9")
    fact = strip.locator('[data-fact="links"]')
    expect(fact).to_contain_text(f"{len(theirs['pairs'])} of ")
    expect(strip.locator('[data-fact="nodes"]')).to_contain_text(f"{len(theirs['nodes'])} of ")
    expect(strip.locator('[data-fact="replacement"]')).to_have_text(f"{theirs['scores'][0]:.3g}")
    expect(viewer.page.locator(".counts")).to_contain_text(f"{len(theirs['pairs'])} of ")
    expect(strip).to_contain_text("The file has the full graph")
    for axis in ("nodes", "links"):
        viewer.page.wait_for_function(
            """(axis) => document.querySelector(`[data-axis="${axis}"] path.curve-explained`)
              .getAttribute("d").split("L").length === 33""",
            arg=axis,
        )
    assert "pruningThreshold=0.8" in viewer.page.url
    assert "edgeThreshold=0.9" in viewer.page.url
    viewer.page.reload()
    expect(viewer.page.locator(".counts")).to_contain_text(f"{len(theirs['pairs'])} of ")
    expect(viewer.page.locator(".prune-toggle")).to_contain_text("0.80 · 0.90")
    viewer.page.locator(".prune-toggle").click()
    viewer.page.get_by_role("button", name="Show everything").click()
    expect(viewer.page.locator(".counts")).not_to_contain_text(" of ")
    expect(viewer.page.locator(".prune-toggle")).to_have_text("Prune")


def test_arrow_keys_move_the_sliders_and_escape_closes_the_strip(viewer: Viewer) -> None:
    whole_graph(viewer.folder)
    viewer.open("whole")
    selected = viewer.selected()
    viewer.page.keyboard.press("r")
    viewer.page.keyboard.press("ArrowLeft")
    viewer.page.keyboard.press("Shift+ArrowLeft")
    expect(viewer.page.locator(".prune-toggle")).to_contain_text("0.989 · all")
    viewer.page.keyboard.press("Tab")
    viewer.page.keyboard.press("PageDown")
    expect(viewer.page.locator(".prune-toggle")).to_contain_text("0.989 · 0.90")
    assert viewer.selected() == selected
    viewer.page.keyboard.press("Escape")
    expect(viewer.page.locator(".prune")).to_be_hidden()
    expect(viewer.page.locator(".prune-toggle")).to_be_focused()


def test_a_file_that_was_pruned_says_so_and_a_saved_threshold_comes_back(viewer: Viewer) -> None:
    viewer.open()
    viewer.page.keyboard.press("r")
    expect(viewer.page.locator(".prune-about")).to_contain_text("The file was pruned with 0.8 for nodes")
    viewer.page.get_by_role("slider", name="Link threshold").fill("0.5")
    viewer.page.locator(".panel-connections").get_by_role("button", name="Pin", exact=True).click()
    viewer.saved()
    assert json.loads((viewer.folder / "demo.json").read_text())["qParams"]["edgeThreshold"] == 0.5
    viewer.open()
    expect(viewer.page.locator(".prune-toggle")).to_contain_text("all · 0.50")


def test_links_in_a_circle_are_shown_and_cannot_be_pruned(viewer: Viewer) -> None:
    document = json.loads((viewer.folder / "demo.json").read_text())
    document["metadata"]["slug"] = "circle"
    document["links"].append({"source": "2_20_2", "target": "1_10_1", "weight": 1.0})
    (viewer.folder / "circle.json").write_text(json.dumps(document))
    viewer.open("circle")
    viewer.page.keyboard.press("r")
    expect(viewer.page.locator(".prune-about")).to_contain_text("form a cycle")
    expect(viewer.page.get_by_role("slider", name="Link threshold")).to_be_disabled()


def test_a_large_graph_is_pruned_in_a_worker(viewer: Viewer) -> None:
    graph = random_graph(seed=3, n_layers=4, n_pos=16, n_features=9, density=0.5)
    assert graph.edges.nnz > 20_000
    create_graph_files(graph, "large", viewer.folder, node_threshold=1.0, edge_threshold=1.0)
    create_graph_files(graph, "cut", viewer.folder, node_threshold=0.7, edge_threshold=0.8)
    theirs = json.loads((viewer.folder / "cut.json").read_text())
    with viewer.page.expect_worker(lambda worker: "pruning-worker" in worker.url):
        viewer.open("large", pruningThreshold="0.7", edgeThreshold="0.8")
    expect(viewer.page.locator(".counts")).to_contain_text(f"{len(theirs['links']):,} of ")


def test_escape_closes_the_strip_wherever_the_focus_is(viewer: Viewer) -> None:
    """Showing everything disables the button that has the focus."""
    viewer.open()
    selected = viewer.selected()
    viewer.page.keyboard.press("r")
    viewer.page.keyboard.press("PageDown")
    viewer.page.get_by_role("button", name="Show everything").click()
    viewer.page.keyboard.press("Escape")
    expect(viewer.page.locator("#prune")).to_be_hidden()
    assert viewer.selected() == selected
