"""A real server, a real browser, and pages that may talk to nobody else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from circuit_tracer_cli.server.serve import Server, serve
from tests.server.builders import free_port

from .graphs import write_features, write_graphs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

    from circuit_tracer_cli import ReplacementModel

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What isn't marked `core` is left to `make test-browser`: a page that is opened costs seconds."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and not item.get_closest_marker("core"):
            item.add_marker(pytest.mark.browser)


@dataclass
class Viewer:
    """One page of the viewer, with everything it complained about."""

    page: Page
    server: Server
    folder: Path
    complaints: list[str] = field(default_factory=list)

    def open(self, slug: str = "demo", **params: str) -> None:
        """Opens a graph and waits until it is drawn."""
        query = "".join(f"&{name}={value}" for name, value in params.items())
        self.page.goto(f"{self.server.url}?slug={slug}{query}")
        self.page.wait_for_selector(
            ".panel-connections .selection-head, .panel-connections .empty", state="attached"
        )
        self.page.wait_for_selector(".plot-labels .token-label")

    def saved(self) -> None:
        """Waits until the last edit is on disk."""
        self.page.wait_for_selector('.save-state[data-kind="saved"]')

    def expect_complaint(self, part: str) -> None:
        """Takes away complaints that a test provoked."""
        self.complaints[:] = [text for text in self.complaints if part not in text]

    def selected(self) -> str | None:
        """The selected node's id, as the address tells it."""
        return self.page.evaluate("new URLSearchParams(location.search).get('clickedId')")


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """The one engine of a process; a second can't be started beside it."""
    library = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
    if CHROMIUM is None:
        pytest.skip("chromium isn't installed")
    with library.sync_playwright() as engine:
        yield engine


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def model() -> ReplacementModel:
    """The embedded model, behind pages that run edits or trace prompts."""
    from circuit_tracer_cli import ReplacementModel

    return ReplacementModel.from_pretrained("demo", "demo", device="cpu")


@pytest.fixture
def viewer(browser: Browser, tmp_path: Path) -> Iterator[Viewer]:
    """A fresh folder, server and page. The test fails if the page logs an error or asks another host for anything."""
    graphs, features = tmp_path / "graphs", tmp_path / "features"
    graphs.mkdir()
    features.mkdir()
    write_graphs(graphs)
    write_features(features)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    with serve(graphs, features_dir=features, port=free_port(), labels_dir=tmp_path / "labels") as server:
        shown = Viewer(page, server, graphs)
        watch(shown)
        yield shown
        context.close()
    assert shown.complaints == []


def watch(viewer: Viewer) -> None:
    """Notes every error that the page logs, and every address that isn't its own server's."""
    page, noted = viewer.page, viewer.complaints
    page.on("pageerror", lambda error: noted.append(str(error)))
    page.on("console", lambda line: line.type == "error" and noted.append(line.text))
    page.on("request", lambda request: _own(request.url, viewer.server.url) or noted.append(request.url))


def _own(url: str, base: str) -> bool:
    return url.startswith((base, "data:", "blob:"))
