"""Another node explained in the page, against `--from` in Python."""

from __future__ import annotations

import json

import pytest

from circuit_tracer_cli.export import Destination
from circuit_tracer_cli.export.viewer import create_graph_files, export
from tests.graph.builders import random_graph

from .conftest import Viewer

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)

_BOTH = """async ([file, exported, id, thresholds]) => {
  const [{ parseGraph }, { rootedGraph }, { createPruner, pruningInput }] = await Promise.all(
    ["graph", "rooted", "pruning"].map((name) => import(new URL(`src/${name}.js`, document.baseURI))),
  );
  const [ours, theirs] = [rootedGraph(parseGraph(file), id), parseGraph(exported)];
  const inside = (graph) => graph.nodes.filter(({ index, kind }) => graph.inside?.[index] ?? true);
  const seen = (graph) => ({
    ids: inside(graph).map(({ id }) => id),
    ranks: inside(graph)
      .filter(({ index, kind }) => kind !== "token" || graph.outputs(index).length > 0)
      .map(({ influence }) => influence),
    links: [...graph.links.strongest].map((k) => [graph.nodes[graph.links.source[k]].id, graph.nodes[graph.links.target[k]].id]),
    scores: [graph.metadata.replacement_score, graph.metadata.completeness_score],
    pruned: thresholds.map(([nodes, links]) => {
      const { kept, alive, point } = createPruner(pruningInput(graph)).prune(nodes, links);
      const count = [...kept.keys()].filter((k) => kept[k]).length;
      return { alive: inside(graph).filter(({ index }) => alive[index]).map(({ id }) => id), count, point };
    }),
  });
  return [seen(ours), seen(theirs)];
}"""


def test_a_root_in_the_page_is_that_of_the_command_line(viewer: Viewer) -> None:
    graph = random_graph(seed=7, n_layers=4, n_pos=4, n_features=3)
    pruned = graph.prune(0.95, 0.99)
    create_graph_files(pruned, "file", viewer.folder)
    kept = pruned.pruning.node_mask.nonzero().flatten().tolist() if pruned.pruning else []
    roots = [node for node in kept if node < graph.layout.n_features and pruned.edges.row(node)[0].numel()]
    viewer.open("file")
    for node in (roots[-1], roots[len(roots) // 2], graph.layout.logit_offset):
        name = graph.node_id(node)
        export(pruned.rooted(node), Destination("rooted", viewer.folder))
        files = [json.loads((viewer.folder / f"{slug}.json").read_text()) for slug in ("file", "rooted")]
        ours, theirs = viewer.page.evaluate(_BOTH, [*files, name, [(0.7, 0.9), (0.5, 1.0), (0.9, 0.98)]])
        assert set(ours["ids"]) == set(theirs["ids"])
        assert {tuple(link) for link in ours["links"]} == {tuple(link) for link in theirs["links"]}
        assert [one or 0 for one in ours["ranks"]] == pytest.approx(
            [one or 0 for one in theirs["ranks"]], abs=1e-6
        )
        assert ours["scores"] == pytest.approx(theirs["scores"], abs=1e-6)
        for mine, other in zip(ours["pruned"], theirs["pruned"], strict=True):
            assert (set(mine["alive"]), mine["count"]) == (set(other["alive"]), other["count"])
            assert mine["point"]["replacement"] == pytest.approx(other["point"]["replacement"], abs=1e-9)


def test_a_node_is_explained_by_a_click_and_undone_in_one_step(viewer: Viewer) -> None:
    viewer.open(clickedId="2_20_2", pinnedIds="2_20_2,4_50_2")
    counts = viewer.page.locator(".counts")
    before = counts.inner_text()
    viewer.page.get_by_role("tab", name="Feature").first.click()
    viewer.page.get_by_role("button", name="Explain this node").click()
    crumb = viewer.page.get_by_role("group", name="Explained node")
    expect(crumb).to_contain_text("Texas")
    expect(counts).not_to_have_text(before)
    assert "root=2_20_2" in viewer.page.url
    assert viewer.selected() == "2_20_2"
    viewer.page.reload()
    expect(crumb).to_contain_text("Texas")
    crumb.get_by_role("button").click()
    expect(crumb).to_be_hidden()
    expect(counts).to_have_text(before)
    viewer.page.keyboard.press("Control+z")
    expect(crumb).to_contain_text("Texas")
    expect(viewer.page.locator(".box-name")).to_have_text(["Texas", "Austin"])
