"""What a screen reader, a keyboard and weak eyes meet: axe-core's rules, names, focus, contrast, motion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Viewer
from .graphs import demo

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe-playwright-python isn't installed"
)

PINS = "1_10_1,2_20_2,2_21_2"


def findings(viewer: Viewer) -> list[str]:
    """Every finding of axe-core that is serious or critical, with where it is."""
    results = axe.Axe().run(viewer.page).response
    return [
        f"{found['id']}: {' '.join(node['target'])} {node.get('failureSummary', '')}"
        for found in results["violations"]
        for node in found["nodes"]
        if found["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("panel", ["connections", "nodes", "scatter", "compare", "notes"])
def test_axe_finds_nothing_serious(viewer: Viewer, theme: str, panel: str) -> None:
    viewer.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    viewer.open(clickedId="1_10_1", pinnedIds=PINS, panel=panel)
    expect(viewer.page.locator("html")).to_have_attribute("data-theme", theme)
    if panel == "connections":
        viewer.page.locator(".example").first.wait_for()
    if panel == "nodes":
        viewer.page.get_by_role("button", name="Filters").click()
    assert findings(viewer) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_dialogs_and_menus(viewer: Viewer, theme: str) -> None:
    viewer.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    viewer.open("hostile")
    viewer.page.locator('[data-handle="link-graph"]').click()
    assert findings(viewer) == []
    viewer.page.keyboard.press("Escape")
    viewer.page.keyboard.press("?")
    assert findings(viewer) == []
    viewer.page.keyboard.press("Escape")
    viewer.page.get_by_role("button", name="Graph menu").click()
    viewer.page.get_by_role("menuitem", name="About this graph").click()
    assert findings(viewer) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_while_pruning_comparing_and_importing(
    viewer: Viewer, tmp_path: Path, theme: str
) -> None:
    document = demo()
    checks = [
        {"name": word, "label": word, "value": 0.5, "verdict": word}
        for word in ("pass", "warn", "fail", "info")
    ]
    document["metadata"] |= {"slug": "checked", "validation": {"version": 1, "date": None, "checks": checks}}
    (viewer.folder / "checked.json").write_text(json.dumps(document))
    viewer.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    viewer.open("checked", pinnedIds=PINS, logitDiff="Austin__vs__Dallas")
    viewer.page.keyboard.press("r")
    viewer.page.get_by_role("slider", name="Link threshold").fill("0.9")
    viewer.page.locator(".all-attributes summary").click()
    viewer.page.locator(".all-attributes .attributes").wait_for()
    assert findings(viewer) == []
    viewer.page.locator(".validation-badge").click()
    viewer.page.locator(".validation tbody tr").first.wait_for()
    assert findings(viewer) == []
    viewer.page.keyboard.press("Escape")
    viewer.page.evaluate(
        "() => fetch('api/graphs/checked/labels/shared', {method: 'POST', body: '{\"labels\": {\"76\": \"mine\"}}'})"
    )
    theirs = tmp_path / "labels.json"
    theirs.write_text('{"labels": {"76": "theirs", "x": "?"}, "set": "another"}')
    viewer.page.get_by_role("button", name="Graph menu").click()
    with viewer.page.expect_file_chooser() as chooser:
        viewer.page.get_by_role("menuitem", name="Import shared labels").click()
    chooser.value.set_files(theirs)
    viewer.page.locator(".label-import tbody tr").wait_for()
    assert findings(viewer) == []


def test_axe_finds_nothing_serious_on_a_phone(viewer: Viewer) -> None:
    viewer.page.set_viewport_size({"width": 844, "height": 390})
    viewer.open(pinnedIds=PINS)
    viewer.page.get_by_role("tab", name="Subgraph").click()
    assert findings(viewer) == []


@pytest.mark.core
def test_every_control_has_a_name_and_shows_the_focus(viewer: Viewer) -> None:
    viewer.open(clickedId="1_10_1", pinnedIds=PINS)
    viewer.page.locator(".example").first.wait_for()
    seen: list[str] = []
    for _ in range(120):
        viewer.page.keyboard.press("Tab")
        found = viewer.page.evaluate(
            """() => {
              const element = document.activeElement;
              if (element === document.body) return null;
              const style = getComputedStyle(element);
              const name = element.getAttribute("aria-label") || element.textContent.trim() || element.labels?.[0]?.textContent;
              const width = style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
              return [element.tagName + "." + element.className, name, width];
            }"""
        )
        if found is None:
            break
        where, name, outline = found
        assert name, f"{where} has no name"
        assert outline >= 1, f"{where} doesn't show the focus"
        seen.append(where)
    assert len(seen) > 30
    assert any("splitter" in where for where in seen)
    assert any("box" in where for where in seen)
    assert any("node-row" in where for where in seen)


def test_nothing_moves_for_whoever_asks_for_it(viewer: Viewer) -> None:
    viewer.page.emulate_media(reduced_motion="reduce")
    viewer.open(pinnedIds=PINS)
    moving = viewer.page.evaluate(
        """() => [...document.querySelectorAll("*")].filter((element) => {
          const style = getComputedStyle(element);
          return parseFloat(style.transitionDuration) > 0 || style.animationName !== "none";
        }).map((element) => element.className)"""
    )
    assert moving == []
