"""The difference of two outputs as a node of its own."""

from __future__ import annotations

import json

import pytest

from circuit_tracer_cli.export.viewer import create_graph_files
from circuit_tracer_cli.graph.contrast import why_not
from tests.graph.builders import random_graph

from .conftest import Viewer
from .graphs import demo

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)


def names(viewer: Viewer, selector: str) -> list[str]:
    return viewer.page.locator(f"{selector} .node-name").all_inner_texts()


def test_two_outputs_make_a_node_with_what_tells_them_apart(viewer: Viewer) -> None:
    viewer.open()
    viewer.page.get_by_role("button", name="A − B").click()
    expect(viewer.page.locator(".selection-title strong")).to_have_text("Austin − Dallas")
    # Texas raises Austin by 3 and lowers Dallas by 2.
    assert names(viewer, '[data-direction="input"]') == ["Texas", "say a capital", "Feature 22", "1 error"]
    amounts = viewer.page.locator('[data-direction="input"] .node-amount').all_inner_texts()
    assert amounts == ["+59 %", "+24 %", "−5.9 %", "−12 %"]
    expect(viewer.page.locator(".plot-labels .logit-label", has_text="−")).to_have_count(1)
    assert viewer.selected() == "virtual-diff- Austin-vs- Dallas"


_WHY_NOT = """async (ids) => {
  const [{ parseGraph }, { whyNot }] = await Promise.all(
    ["graph", "why-not"].map((name) => import(new URL(`src/${name}.js`, document.baseURI))),
  );
  const graph = parseGraph(await (await fetch("api/graphs/whole")).json());
  const [a, b] = ids.map((id) => graph.node(id));
  const { difference, lists, rest } = whyNot(graph, { a, b }, 5);
  const told = ({ sum, count, strongest }) => [sum, count, strongest.map(({ index, value }) => [graph.nodes[index].id, value])];
  return { difference, rest, lists: Object.values(lists).map(told) };
}"""


def test_why_one_and_not_the_other_is_what_the_command_says(viewer: Viewer) -> None:
    graph = random_graph(seed=7, n_layers=4, n_pos=4, n_features=3)
    create_graph_files(graph, "whole", viewer.folder, node_threshold=1.0, edge_threshold=1.0)
    found = why_not(graph, 1, 0, n=5)
    viewer.open("whole")
    ours = viewer.page.evaluate(_WHY_NOT, [graph.node_id(found.answer), graph.node_id(found.other)])
    assert ours["difference"] == pytest.approx(found.difference, abs=1e-6)
    assert ours["rest"] == pytest.approx(found.rest, abs=1e-5)
    for (total, count, strongest), name in zip(ours["lists"], found.lists, strict=True):
        assert (total, count) == (pytest.approx(found.sums[name], abs=1e-5), found.counts[name])
        theirs = [
            [graph.node_id(push.node), pytest.approx(push.value, abs=1e-6)] for push in found.lists[name]
        ]
        assert strongest == theirs
    viewer.open()
    viewer.page.get_by_role("button", name="A − B").click()
    holds = viewer.page.get_by_role("region", name="Holds “Dallas” down")
    expect(holds.locator(".node-name")).to_have_text(["Texas"])
    expect(holds.locator(".node-amount")).to_have_text(["+2.000"])
    expect(viewer.page.locator(".why-not-rest")).to_be_visible()


def test_it_is_pinned_saved_and_comes_back_with_the_address(viewer: Viewer) -> None:
    viewer.open(pinnedIds="2_20_2", logitDiff="Austin__vs__Dallas")
    viewer.page.locator(".plot-labels .logit-label", has_text="−").wait_for()
    viewer.page.keyboard.press("Escape")
    viewer.page.get_by_role("tab", name="Nodes").click()
    viewer.page.locator(".panel-nodes .node-row", has_text="Austin − Dallas").click(modifiers=["Control"])
    expect(viewer.page.locator(".box-name")).to_have_text(["Texas", "Austin − Dallas"])
    expect(viewer.page.locator(".flow")).to_have_count(1)
    viewer.saved()
    params = json.loads((viewer.folder / "demo.json").read_text())["qParams"]
    assert params["logitDiff"] == "Austin__vs__Dallas"
    viewer.open()
    expect(viewer.page.locator(".box-name")).to_have_text(["Texas", "Austin − Dallas"])
    viewer.page.get_by_role("button", name="Remove the difference").click()
    expect(viewer.page.locator(".box-name")).to_have_text(["Texas"])
    assert "logitDiff" not in viewer.page.url


def test_the_sides_change_places_and_paths_end_there(viewer: Viewer) -> None:
    viewer.open(panel="paths")
    viewer.page.get_by_role("button", name="A − B").click()
    viewer.page.get_by_label("First output").select_option("4_51_2")
    expect(viewer.page.get_by_label("Output to take away")).to_have_value("4_50_2")
    expect(viewer.page.locator(".detail-label")).to_have_text("Dallas − Austin")
    viewer.page.get_by_role("button", name="Through the selection").click()
    last = viewer.page.locator(".path-row").first.locator(".path-step").last
    expect(last).to_have_text("Dallas − Austin")
    viewer.page.reload()
    expect(viewer.page.get_by_label("First output")).to_have_value("4_51_2")


def test_outputs_of_equal_text_are_told_apart(viewer: Viewer) -> None:
    document = demo()
    document["metadata"]["slug"] = "equal"
    document["nodes"][-1]["clerp"] = 'Output " Austin" (p=0.100)'
    (viewer.folder / "equal.json").write_text(json.dumps(document))
    viewer.open("equal")
    viewer.page.get_by_role("button", name="A − B").click()
    expect(viewer.page.locator(".selection-title strong")).to_have_text("Austin (60 %) − Austin (10 %)")
    assert "logitDiff=4_50_2__vs__4_51_2" in viewer.page.url
    viewer.page.reload()
    expect(viewer.page.locator(".selection-title strong")).to_have_text("Austin (60 %) − Austin (10 %)")


def test_pruning_and_the_difference_go_together(viewer: Viewer) -> None:
    viewer.open(
        logitDiff="Austin__vs__Dallas", pruningThreshold="0.5", clickedId="virtual-diff- Austin-vs- Dallas"
    )
    expect(viewer.page.locator('[data-direction="input"] .node-name')).to_have_text(["Texas"])


def test_one_output_has_no_difference(viewer: Viewer) -> None:
    viewer.open("hostile")
    expect(viewer.page.get_by_role("button", name="A − B")).to_be_hidden()
