"""What a newcomer reads: places that aren't cut, labels that agree, tooltips beside what they are about."""

from __future__ import annotations

import json

import pytest

from .conftest import Viewer
from .graphs import demo, feature, graph

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)

LONG = "is, after Amarillo, before Austin and whatever else a label may say"


def add(viewer: Viewer, document: dict[str, object], slug: str) -> None:
    (viewer.folder / f"{slug}.json").write_text(json.dumps(document))


def test_places_stay_whole_where_labels_are_long(viewer: Viewer) -> None:
    document = demo()
    document["metadata"]["slug"] = "long"
    for node in document["nodes"]:
        if node["feature_type"] == "cross layer transcoder":
            node["clerp"] = LONG
    add(viewer, document, "long")
    viewer.open("long", clickedId="4_50_2")
    viewer.page.locator(".panel-connections").get_by_role("button", name="1 error").click()
    cut = """() => [...document.querySelectorAll(".panel-connections .node-place")]
      .filter((place) => place.scrollWidth > place.clientWidth).length"""
    expect(viewer.page.locator(".panel-connections .node-place")).to_have_count(4)
    assert viewer.page.evaluate(cut) == 0
    name = viewer.page.locator(".panel-connections .node-row .node-name", has_text=LONG[:20]).first
    assert name.get_attribute("title") == LONG
    places = viewer.page.locator(".panel-connections .node-place").all()
    assert all(place.get_attribute("title") for place in places)


@pytest.mark.parametrize(
    ("tokens", "flat"),
    [(["a", "b", "c"], True), (["a", "internationalisation-and-more" * 3, "c"], False)],
)
def test_tokens_are_all_level_or_all_slanted(viewer: Viewer, tokens: list[str], flat: bool) -> None:
    nodes = [feature(layer, 10 + layer, position) for layer in range(3) for position in range(3)]
    nodes += [feature(1, 100 + i, 2) for i in range(30)]
    add(viewer, graph("axis", tokens, nodes, []), "axis")
    viewer.page.goto(f"{viewer.server.url}?slug=axis")
    labels = viewer.page.locator(".plot-labels .token-label")
    expect(labels).to_have_count(3)
    expect(viewer.page.locator(".plot-labels .token-label.flat")).to_have_count(3 if flat else 0)


def test_the_tooltip_leaves_the_row_of_its_node_in_sight(viewer: Viewer) -> None:
    viewer.open(clickedId="4_50_2")
    for label in ("Texas", "Dallas"):
        viewer.page.locator(".panel-connections .node-row", has_text=label).first.hover()
        tooltip = viewer.page.locator(".panel-link-graph .tooltip")
        expect(tooltip).to_contain_text(label)
        box = tooltip.bounding_box()
        rows = viewer.page.locator(".plot-labels .row-label", has_text="L2" if label == "Texas" else "L1")
        row = rows.bounding_box()
        assert box is not None
        assert row is not None
        middle = row["y"] + row["height"] / 2
        assert not box["y"] < middle < box["y"] + box["height"]


def test_the_hint_on_grouping_stands_beside_the_title(viewer: Viewer) -> None:
    viewer.open(pinnedIds="1_10_1")
    viewer.page.keyboard.down("g")
    hint = viewer.page.locator(".grouping-hint")
    expect(hint).to_contain_text("Click nodes")
    place, plot = hint.bounding_box(), viewer.page.locator(".subgraph-plot").bounding_box()
    assert place is not None
    assert plot is not None
    assert place["y"] + place["height"] <= plot["y"]


def test_the_prune_button_says_where_its_sliders_end(viewer: Viewer) -> None:
    viewer.open()
    title = viewer.page.locator(".prune-toggle").get_attribute("title") or ""
    assert "pruned at 0.8" in title
    assert "circuit-tracer export GRAPH --node-threshold" in title
    viewer.page.keyboard.press("r")
    expect(viewer.page.locator(".prune-about")).to_contain_text("circuit-tracer export GRAPH")


def test_a_graph_whose_file_is_gone_leaves_the_list(viewer: Viewer) -> None:
    listed = {"graphs": [{"slug": name, "prompt": "p"} for name in ("gone", "demo")]}
    (viewer.folder / "graph-metadata.json").write_text(json.dumps(listed))
    viewer.open()
    options = viewer.page.locator(".picker option")
    expect(options.filter(has_text="demo").first).to_be_attached()
    expect(options.filter(has_text="gone")).to_have_count(0)
    expect(options.filter(has_text="broken")).to_have_count(1)


def test_an_output_shows_what_the_model_predicts_and_its_strongest_inputs(viewer: Viewer) -> None:
    document = demo()
    document["metadata"] |= {
        "slug": "predicted",
        "top_predictions": [
            {"token": " Austin", "id": 50, "probability": 0.6},
            {"token": " Houston", "id": 9, "probability": 0.2},
        ],
    }
    add(viewer, document, "predicted")
    viewer.open("predicted", clickedId="4_50_2")
    panel = viewer.page.locator(".panel-feature")
    expect(panel.locator(".next-tokens tr td:first-child")).to_have_text(["Austin", "Houston", "Dallas"])
    expect(panel.locator(".next-tokens tr").nth(1)).to_contain_text("20 %")
    expect(panel.locator(".next-tokens tr").nth(1)).to_contain_text("not in the graph")
    expect(panel.locator(".summary .node-name")).to_have_text(
        ["Texas", "say a capital", "Error · is", "Feature 22"]
    )
    panel.locator(".summary .node-row").first.hover()
    expect(panel.locator(".detail-label")).to_have_text("Austin")
    panel.get_by_role("button", name="Dallas", exact=True).click()
    assert viewer.selected() == "4_51_2"
    viewer.open("predicted", clickedId="E_7_1")
    expect(panel.locator(".summary h3")).to_have_text("Strongest outputs")


def test_on_a_phone_inputs_stand_above_outputs(viewer: Viewer) -> None:
    viewer.page.set_viewport_size({"width": 390, "height": 844})
    viewer.open(clickedId="2_20_2")
    inputs, outputs = (
        viewer.page.locator(f'.panel-connections [data-direction="{name}"]').bounding_box()
        for name in ("input", "output")
    )
    assert inputs is not None
    assert outputs is not None
    assert inputs["x"] == outputs["x"]
    assert inputs["y"] + inputs["height"] <= outputs["y"] + 1
    places = viewer.page.locator(".panel-connections .node-place").all()
    assert all(place.evaluate("(e) => e.scrollWidth <= e.clientWidth") for place in places)


def test_usual_drivers_stand_beside_the_links_of_this_graph(viewer: Viewer) -> None:
    from circuit_tracer_cli.features.packed import DRIVERS, write_json

    drivers = {"1/10": [[0, 3, 0.5, 0.25], [0, 4, -0.125, 1.0]]}
    write_json(viewer.folder.parent / "features" / DRIVERS, {"drivers": drivers})
    viewer.open(clickedId="1_10_1")
    viewer.page.get_by_role("tab", name="Feature").first.click()
    rows = viewer.page.get_by_role("table", name="Usual drivers").locator("tbody tr")
    expect(rows).to_have_text(["L0 · Feature 30.525 %–", "L0 · Feature 4-0.125100 %–"])
