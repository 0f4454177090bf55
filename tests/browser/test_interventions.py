"""Edits from the page: on the embedded model, and what the page says where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from circuit_tracer_cli import ReplacementModel, attribute, create_graph_files
from circuit_tracer_cli.server.model import ModelRunner
from circuit_tracer_cli.server.serve import Server, serve

from .conftest import Viewer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROMPT = "Fact: the capital of the state containing Dallas is"
TAB = "#tab-interventions"
PANEL = ".interventions"


@pytest.fixture(scope="module")
def written(model: ReplacementModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    create_graph_files(attribute(PROMPT, model), "dallas", folder)
    create_graph_files(attribute("The opposite of small is", model), "other", folder, scan="other-set")
    return folder


@pytest.fixture
def graphs(written: Path, tmp_path: Path) -> Path:
    """A copy, for what a page does is saved."""
    return Path(shutil.copytree(written, tmp_path / "graphs"))


@pytest.fixture
def page(browser: Browser, graphs: Path, model: ReplacementModel) -> Iterator[Page]:
    """The demo's graph on a server that has its model."""
    with serve(graphs, port=0, model=model) as server:
        yield from opened(browser, server)


def opened(browser: Browser, server: Server) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{server.url}?slug=dallas")
    page.wait_for_selector(".plot-labels .token-label")
    page.click(TAB)
    yield page
    context.close()
    assert complaints == []


def select_strongest(page: Page) -> None:
    """Selects the first feature in the list of nodes, and comes back."""
    page.click("#tab-nodes")
    page.click(".panel-nodes .node-row:has(.glyph-feature)")
    page.keyboard.press("p")
    page.click(TAB)


@pytest.mark.core
def test_an_edit_changes_what_the_model_says(page: Page) -> None:
    select_strongest(page)
    page.click(f"{PANEL} .edit-add >> text=×−1")
    assert page.input_value(f"{PANEL} .value-field") == "x-1"
    page.click(f"{PANEL} .run")
    page.wait_for_selector(f"{PANEL} .token-table tbody tr")
    assert "Austin" in page.inner_text(f"{PANEL} .token-table")
    assert "KL" in page.inner_text(f"{PANEL} .run-results")
    assert page.locator(f"{PANEL} .change").count() == 1
    before, after = page.inner_text(f"{PANEL} .change").split(" → ")
    assert float(after) == pytest.approx(-float(before), rel=0.02)
    assert "Austin" in page.inner_text(f"{PANEL} .continuations > div:first-child")
    command = page.inner_text(f"{PANEL} .run-results .command")
    assert command.startswith("circuit-tracer intervene -p '<bos>Fact: the capital")
    assert "=x-1" in command


def test_values_rows_and_settings(page: Page) -> None:
    select_strongest(page)
    page.click(f"{PANEL} .edit-add >> text=off")
    field = page.locator(f"{PANEL} .value-field")
    field.fill("nonsense")
    field.press("Tab")
    assert field.get_attribute("aria-invalid") == "true"
    assert field.input_value() == "nonsense"
    page.click(f"{PANEL} .run")
    page.wait_for_selector(f"{PANEL} .run-results .warn")
    assert "“nonsense” isn't a value" in page.inner_text(f"{PANEL} .run-results")
    assert field.input_value() == "nonsense"
    assert page.locator(f"{PANEL} .token-table").count() == 0
    page.locator(f"{PANEL} .value-field").fill("3.5")
    page.check(f"{PANEL} .edit-row input[type=checkbox]")
    page.select_option(f"{PANEL} .small-select", "direct")
    page.get_by_label("continue by").fill("0")
    page.click(f"{PANEL} .run")
    page.wait_for_selector(f"{PANEL} .run-results .command")
    command = page.inner_text(f"{PANEL} .run-results .command")
    assert ":=3.5" in command
    assert "--constrained-layers :" in command
    assert page.locator(f"{PANEL} .continuations").count() == 0
    page.click(f"{PANEL} .edit-row button")
    assert page.locator(f"{PANEL} .edit-row").count() == 0
    assert page.is_disabled(f"{PANEL} .run")


def test_a_drawn_continuation_can_be_repeated_in_a_terminal(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    select_strongest(page)
    page.click(f"{PANEL} .edit-add >> text=off")
    seed = page.get_by_label("seed")
    assert seed.is_disabled()
    page.get_by_label("temperature").fill("0.7")
    page.get_by_label("temperature").press("Tab")
    seed.fill("5")
    page.get_by_label("continue by").fill("3")
    page.click(f"{PANEL} .run")
    page.wait_for_selector(f"{PANEL} .run-results .command")
    page.get_by_role("button", name="Copy", exact=True).click()
    page.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == page.inner_text(f"{PANEL} .run-results .command")
    assert copied.endswith(" --generate 3 --temperature 0.7 --seed 5")


def test_a_refusal_without_a_hint_says_no_more(browser: Browser, graphs: Path) -> None:
    with serve(graphs, port=0) as server:
        context = browser.new_context()
        page = context.new_page()
        page.route(
            "**/api/model",
            lambda route: route.fulfill(json={"state": "failed", "error": {"error": "no", "hint": None}}),
        )
        page.goto(f"{server.url}?slug=dallas")
        page.wait_for_selector(".plot-labels .token-label")
        page.click(TAB)
        page.wait_for_selector(f"{PANEL} .run-status .warn")
        assert page.inner_text(f"{PANEL} .run-status") == "no"
        context.close()


def test_another_set_is_refused_in_words(page: Page) -> None:
    page.select_option(".picker", "other")
    page.wait_for_selector(f"{PANEL} .run-status .warn")
    assert "other-set" in page.inner_text(f"{PANEL} .run-status")
    assert "--transcoder-set other-set" in page.inner_text(f"{PANEL} .run-status .command")


def test_without_a_model_the_page_says_what_to_type(viewer: Viewer) -> None:
    viewer.open()
    viewer.page.click(TAB)
    viewer.page.wait_for_selector(f"{PANEL} .run-status .command")
    assert "circuit-tracer serve" in viewer.page.inner_text(f"{PANEL} .run-status")
    assert not viewer.page.is_visible(f"{PANEL} .run")


def test_a_run_can_be_cancelled(browser: Browser, graphs: Path, model: ReplacementModel) -> None:
    # The model is handed over after the click, so that the run is surely waiting when it's cancelled.
    runner = ModelRunner(is_busy=True)
    with serve(graphs, port=0, model=runner) as server:
        for page in opened(browser, server):
            select_strongest(page)
            page.click(f"{PANEL} .edit-add >> text=off")
            page.click(f"{PANEL} .run")
            page.click(f"{PANEL} >> text=Cancel")
            page.wait_for_selector(f"{PANEL} >> text=Cancelled")
            runner.adopt(model)
            page.wait_for_selector(f"{PANEL} .run:not([disabled])")
            page.click(f"{PANEL} .run")
            page.wait_for_selector(f"{PANEL} .token-table tbody tr")
