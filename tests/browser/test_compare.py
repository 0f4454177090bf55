"""Two graphs of the folder compared and merged from the page."""

from __future__ import annotations

import json

import pytest

from .conftest import Viewer
from .graphs import demo, feature
from .test_accessibility import findings

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)


@pytest.fixture
def pair(viewer: Viewer) -> Viewer:
    """The demo and a variant of the same prompt: another feature in the place of Texas, a weaker link."""
    for path in viewer.folder.glob("*.json"):
        if path.stem != "demo":
            path.unlink()
    document = demo()
    document["metadata"]["slug"] = "other"
    document["nodes"] = [
        feature(2, 25, 2, clerp="California", influence=0.5) if node["node_id"] == "2_20_2" else node
        for node in document["nodes"]
    ]
    document["links"] = [
        {name: "2_25_2" if value == "2_20_2" else value for name, value in link.items()}
        for link in document["links"]
    ]
    (viewer.folder / "other.json").write_text(json.dumps(document))
    return viewer


def test_two_graphs_become_one_with_what_differs(pair: Viewer) -> None:
    pair.open()
    pair.page.get_by_role("tab", name="Compare").click()
    pair.page.get_by_label("with", exact=True).select_option("other")
    pair.page.get_by_role("button", name="Compare", exact=True).click()
    expect(pair.page.locator(".compare-names strong")).to_have_text(["demo", "other"])
    assert "slug=demo-vs-other" in pair.page.url
    expect(pair.page.locator(".compare-sides .segment")).to_have_text(
        ["All 10", "Only A 1", "Shared 8", "Only B 1"]
    )
    rows = pair.page.locator(".compare-changes tbody tr")
    texts = [text.split("\t") for text in rows.all_inner_texts()]
    by_name = {row[0].split(" ")[0]: row[1:] for row in texts}
    assert by_name["Texas"] == ["3", "0", "−3.000", "0"]
    assert by_name["California"] == ["0", "3", "+3.000", "0"]
    expect(pair.page.get_by_role("heading", name="Why “Austin” differs: B − A = +0.000")).to_be_visible()
    moved = pair.page.locator(".compare-move .node-name")
    expect(moved).to_have_count(2)
    pair.page.emulate_media(reduced_motion="reduce")
    for theme in ("dark", "light"):
        pair.page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        pair.page.wait_for_timeout(500)  # colours change over some frames
        assert findings(pair) == []
    pair.page.get_by_role("button", name="Only B 1").click()
    expect(pair.page.locator(".compare-sides [aria-pressed=true]")).to_have_text("Only B 1")
    pair.page.get_by_role("tab", name="Nodes").click()
    expect(pair.page.locator(".panel-nodes .node-name")).to_have_text(["California"])


def test_a_merged_graph_has_a_slider_for_its_frequency(pair: Viewer) -> None:
    pair.open()
    pair.page.get_by_role("tab", name="Compare").click()
    pair.page.get_by_role("button", name="Merge 2 graphs").click()
    slider = pair.page.get_by_label("Hide nodes that fewer prompts have")
    expect(slider).to_have_value("0")
    expect(pair.page.locator(".compare [role=status]")).to_have_text("All nodes are shown.")
    amounts = pair.page.locator(".compare-shares").all_inner_texts()
    assert sorted(set(amounts)) == ["1 of 2", "2 of 2"]
    slider.focus()
    pair.page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("1")
    pair.page.keyboard.press("ArrowRight")
    expect(pair.page.locator(".compare [role=status]")).to_have_text(
        "At least 2 of 2 prompts (100 %): 8 nodes of 10."
    )
    assert set(pair.page.locator(".compare-shares").all_inner_texts()) == {"2 of 2"}
    assert json.loads((pair.folder / "merged.json").read_text())["metadata"]["merged"]["n"] == 2
