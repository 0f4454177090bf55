"""New prompts from the page: on the embedded model, with a real server and the real queue."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from circuit_tracer_cli import ReplacementModel, attribute, create_graph_files, pipeline
from circuit_tracer_cli.server.model import ModelRunner
from circuit_tracer_cli.server.serve import serve

from .conftest import Viewer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)

DALLAS = "Fact: the capital of the state containing Dallas is"
OAKLAND = "Fact: the capital of the state containing Oakland is"
SLUG = "fact-the-capital-of-the-state-containing-oakland-is"


@pytest.fixture(scope="module")
def written(model: ReplacementModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    create_graph_files(attribute(DALLAS, model), "dallas", folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "graphs"))


@contextmanager
def opened(browser: Browser, folder: Path, model: ReplacementModel | ModelRunner) -> Iterator[Page]:
    """The Dallas graph on a server with this model. Fails if the page complains, or asks another host for anything."""
    complaints: list[str] = []
    with serve(folder, port=0, model=model, labels_dir=folder.parent / "labels") as server:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: line.type == "error" and complaints.append(line.text))
        page.on(
            "request",
            lambda asked: (
                asked.url.startswith((server.url, "data:", "blob:")) or complaints.append(asked.url)
            ),
        )
        page.goto(f"{server.url}?slug=dallas")
        page.wait_for_selector(".plot-labels .token-label")
        yield page
        context.close()
    assert complaints == []


@pytest.fixture
def page(browser: Browser, folder: Path, model: ReplacementModel) -> Iterator[Page]:
    with opened(browser, folder, model) as page:
        yield page


def ask(page: Page, prompt: str) -> None:
    """Opens the dialog and writes a prompt."""
    page.get_by_role("button", name="New graph").click()
    page.fill("#new-prompt", prompt)


def trace(page: Page) -> None:
    page.click(".new-graph .primary:not([disabled])")
    expect(page.locator(".new-graph")).to_be_hidden()


def is_shown(page: Page, slug: str) -> None:
    page.wait_for_function("slug => new URLSearchParams(location.search).get('slug') === slug", arg=slug)
    expect(page.locator(".live")).to_be_hidden()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.json")}


class Held:
    """Traces that wait after their logit rows until they're let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        real = pipeline.trace_with

        def trace_with(model: Any, prepared: Any, progress: Any, on_partial: Any) -> Any:
            def look(make: Any) -> None:
                on_partial(make)
                while not self.go.wait(0.02):
                    progress.advance(0)
                    on_partial(make)

            return real(model, prepared, progress, look)

        monkeypatch.setattr(pipeline, "trace_with", trace_with)


@pytest.mark.core
def test_a_second_prompt_is_traced_and_a_third(page: Page, folder: Path) -> None:
    ask(page, OAKLAND)
    expect(page.locator(".token-chip")).to_have_count(11)
    expect(page.locator(".token-chip").first).to_have_attribute("title", "0: nothing is traced here")
    expect(page.locator(".prediction")).to_have_count(10)
    expect(page.locator(".prediction").first).to_contain_text("Sacramento")
    expect(page.locator("#new-slug")).to_have_attribute("placeholder", SLUG)
    trace(page)
    is_shown(page, SLUG)
    expect(page.locator(".prompt")).to_contain_text("Oakland")
    expect(page.locator(".picker option")).to_have_count(2)
    metadata = json.loads((folder / f"{SLUG}.json").read_text())["metadata"]
    assert metadata["top_predictions"][0]["token"] == " Sacramento"
    assert metadata["command"].startswith(
        f"circuit-tracer attribute -p '{OAKLAND}' -t demo-clt --slug {SLUG}"
    )
    page.keyboard.press("n")
    page.fill("#new-prompt", "The opposite of small is")
    page.fill("#new-slug", "third")
    page.press("#new-slug", "Control+Enter")
    is_shown(page, "third")


def test_targets_and_settings_reach_the_trace(page: Page, folder: Path) -> None:
    ask(page, OAKLAND)
    page.fill("[aria-label='A whole answer']", " Sacramento, California")
    expect(page.locator(".new-command .command")).to_contain_text("--completion ' Sacramento, California'")
    page.click(".prediction:nth-child(1)")
    expect(page.get_by_label("A whole answer")).to_have_value("")
    expect(page.locator(".target-chip")).to_have_count(1)
    page.click(".prediction:nth-child(1)")
    expect(page.locator(".new-targets")).to_contain_text("at most 10")
    page.get_by_label("choose two").check()
    page.click(".prediction:nth-child(1)")
    page.click(".prediction:nth-child(3)")
    expect(page.locator(".target-chip")).to_contain_text("Sacramento −")
    page.fill("[aria-label='Another target']", "Austin - Sacramento")
    page.press("[aria-label='Another target']", "Enter")
    expect(page.locator(".target-chip")).to_have_count(2)
    page.click("summary:has-text('Settings')")
    page.fill(".setting-grid .count-field >> nth=0", "30")
    page.fill(".setting-grid .count-field >> nth=4", "0.6")
    page.click("summary:has-text('The same in a terminal')")
    command = page.locator(".new-command .command")
    expect(command).to_contain_text("--max-feature-nodes 30")
    expect(command).to_contain_text("--node-threshold 0.6")
    expect(command).to_contain_text("--target 'Austin - Sacramento'")
    page.click(".new-command button")
    expect(page.locator(".new-command button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == command.inner_text()
    trace(page)
    is_shown(page, SLUG)
    file = json.loads((folder / f"{SLUG}.json").read_text())
    assert file["metadata"]["generation_settings"]["max_feature_nodes"] == 30
    assert file["metadata"]["node_threshold"] == 0.6
    assert len([node for node in file["nodes"] if node["feature_type"] == "logit"]) == 2


def test_a_trace_that_loses_pins_says_where_they_are_kept(page: Page, folder: Path) -> None:
    path = folder / "dallas.json"
    graph = json.loads(path.read_text())
    graph["qParams"]["pinnedIds"] = [node["node_id"] for node in graph["nodes"]]
    path.write_text(json.dumps(graph))
    page.reload()
    ask(page, DALLAS)
    page.fill("#new-slug", "dallas")
    expect(page.locator(".new-graph")).to_contain_text("of remaining nodes stay")
    page.click("summary:has-text('Settings')")
    page.fill(".setting-grid .count-field >> nth=4", "0.3")
    trace(page)
    expect(page.locator(".notice")).to_contain_text("it is kept as dallas.json.bak")
    kept = json.loads((folder / "dallas.json.bak").read_text())
    assert kept["qParams"]["pinnedIds"] == graph["qParams"]["pinnedIds"]


def test_what_is_wrong_is_told_while_it_is_written(page: Page, folder: Path) -> None:
    before = files(folder)
    ask(page, "Dallas is " * 60)
    problem, button = page.locator(".new-problem"), page.locator(".new-graph .primary")
    expect(problem).to_contain_text("at most 64")
    expect(button).to_be_disabled()
    page.fill("#new-prompt", OAKLAND)
    expect(problem).to_be_empty()
    expect(button).to_be_enabled()
    page.fill("[aria-label='Another target']", "no such word")
    page.click(".new-line button")
    expect(problem).to_contain_text("no such word")
    expect(button).to_be_disabled()
    page.click('[aria-label^="Don\'t explain"]')
    page.fill("#new-slug", "dallas")
    page.click(".new-problem button")
    expect(problem).to_be_empty()
    assert page.input_value("#new-slug") == "dallas-2"
    assert files(folder) == before
    trace(page)
    is_shown(page, "dallas-2")
    assert files(folder)["dallas.json"] == before["dallas.json"]


def test_the_graph_grows_and_the_trace_can_be_cancelled(
    page: Page, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, held = files(folder), Held(monkeypatch)
    ask(page, OAKLAND)
    page.click("summary:has-text('Settings')")
    page.fill(".setting-grid .count-field >> nth=0", "40")
    page.fill(".setting-grid .count-field >> nth=3", "2")
    trace(page)
    strip = page.locator(".live")
    expect(strip).to_contain_text("Partial graph")
    expect(page.locator(".prompt")).to_contain_text("Oakland")
    expect(page.locator(".panel-subgraph")).to_be_visible()
    strip.get_by_role("button", name="Cancel").click()
    is_shown(page, "dallas")
    assert files(folder) == before
    page.keyboard.press("n")
    assert page.input_value("#new-prompt") == OAKLAND
    held.go.set()
    trace(page)
    is_shown(page, SLUG)


def test_two_traces_wait_for_each_other(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    ask(page, OAKLAND)
    trace(page)
    expect(page.locator(".live")).to_contain_text("Partial graph")
    ask(page, "The opposite of small is")
    page.fill("#new-slug", "second")
    trace(page)
    held.go.set()
    is_shown(page, "second")
    expect(page.locator(".picker option")).to_have_count(3)


def test_a_failure_is_shown_in_the_dialog_and_leaves_nothing(
    page: Page, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    before = files(folder)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "trace_with", broken)
        ask(page, OAKLAND)
        page.click(".new-graph .primary:not([disabled])")  # it can fail before anybody sees the dialog closed
        expect(page.locator(".new-problem")).to_contain_text("not enough memory")
        expect(page.locator(".new-problem")).to_contain_text("shorten it")
    assert files(folder) == before
    trace(page)
    is_shown(page, SLUG)


def test_a_waiting_trace_can_be_cancelled_and_a_chat_template_is_offered(
    browser: Browser, folder: Path, model: ReplacementModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = (
        "{% for m in messages %}Fact: {{ m.content }}{% endfor %}{% if add_generation_prompt %} is{% endif %}"
    )
    monkeypatch.setattr(model.tokenizer, "chat_template", template)
    runner, before = ModelRunner(is_busy=True), files(folder)
    with opened(browser, folder, runner) as page:
        ask(page, "the capital of Texas")
        expect(page.locator(".new-status")).to_contain_text("waiting")
        trace(page)
        page.locator(".live").get_by_role("button", name="Cancel").click()
        expect(page.locator(".live")).to_be_hidden()
        runner.adopt(model)
        page.keyboard.press("n")
        page.get_by_label("chat template").check()
        expect(page.locator(".token-chip")).to_have_text(
            ["<bos>", "Fact", ":", " the", " capital", " of", " Texas", " is"]
        )
        assert files(folder) == before


def test_without_a_model_there_is_no_button(viewer: Viewer) -> None:
    viewer.open()
    expect(viewer.page.get_by_role("button", name="New graph")).to_be_hidden()
    viewer.page.keyboard.press("n")
    expect(viewer.page.locator(".new-graph")).to_be_hidden()
