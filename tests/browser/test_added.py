"""Nodes added in the page, beside another window and without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from circuit_tracer_cli import ReplacementModel, attribute, create_graph_files
from circuit_tracer_cli.server.serve import Server, serve

from .conftest import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
PROMPT = "Fact: the capital of the state containing Dallas is"
ADD = ".hidden-input button"


@pytest.fixture(scope="module")
def graphs(model: ReplacementModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    create_graph_files(attribute(PROMPT, model), "dallas", folder)
    return folder


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    yield context
    context.close()


def asked(context: BrowserContext, server: Server) -> Page:
    """A page that lists the hidden inputs of the node that is selected first."""
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(f"{server.url}?slug=dallas")
    page.wait_for_selector(".plot-labels .token-label")
    page.click("#tab-connections")
    page.locator(".panel-connections button:has-text('What is hidden here?')").click()
    page.wait_for_selector(ADD)
    return page


def count(page: Page) -> int:
    return int(page.inner_text(".counts").split()[0])


def test_two_windows_cannot_overwrite_each_others_nodes(
    context: BrowserContext, graphs: Path, model: ReplacementModel
) -> None:
    with serve(graphs, port=0, model=model) as server:
        ours, theirs = asked(context, server), asked(context, server)
        before = count(ours)
        ours.locator(ADD).first.click()
        ours.wait_for_selector('.save-state[data-kind="saved"]')
        theirs.locator(ADD).nth(1).click()
        theirs.wait_for_selector('.save-state[data-kind="conflict"]')
        assert count(theirs) == before + 1
        theirs.get_by_role("button", name="Load theirs").click()
        expect(theirs.locator(".counts")).to_have_text(ours.inner_text(".counts"))
        ours.keyboard.press("Control+z")
        ours.wait_for_selector('.save-state[data-kind="saved"]')
        assert count(ours) == before


def test_a_server_that_is_gone_loses_nothing(
    context: BrowserContext, graphs: Path, model: ReplacementModel
) -> None:
    port = free_port()
    with serve(graphs, port=port, model=model) as server:
        page = asked(context, server)
    before = count(page)
    page.locator(ADD).first.click()
    page.locator(".hidden-inputs .warn").wait_for()
    assert count(page) == before
    with serve(graphs, port=port, model=model):
        page.locator(ADD).first.click()
        page.wait_for_selector('.save-state[data-kind="saved"]')
        assert count(page) == before + 1
        page.reload()
        page.wait_for_selector(".plot-labels .token-label")
        assert count(page) == before + 1
        page.keyboard.press("Control+z")
