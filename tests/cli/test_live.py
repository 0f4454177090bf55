"""`attribute --server`: the page is there from the start, and the file is the same as without it."""

from __future__ import annotations

import json
import signal
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from circuit_tracer_cli.cli.attribute import _end_shown_on
from circuit_tracer_cli.errors import BadPrompt
from circuit_tracer_cli.graph.store import load_graph
from circuit_tracer_cli.server.live import Both, LiveTrace, PartialGraphs
from circuit_tracer_cli.types import SilentProgress
from tests.cli.conftest import PROMPT, Tiny
from tests.cli.test_processes import started, wait_for

# Blocks of a few rows, and a trace that waits after the logits until somebody has seen the graph.
WATCHED = """
import time
from circuit_tracer_cli.attribution import rows, selection
from circuit_tracer_cli.server.live import LiveTrace
from circuit_tracer_cli.server.live import Both, PartialGraphs
rows.CPU_WORK = 300
traces = []
create, publish = LiveTrace.__init__, LiveTrace.publish
LiveTrace.__init__ = lambda self, *values: (create(self, *values), traces.append(self))[0]
advancing = selection.Tracing.rows
def patient(self, chosen):
    for block in advancing(self, chosen):
        limit = time.monotonic() + 60
        while traces and not traces[0].is_watched() and time.monotonic() < limit:
            time.sleep(0.01)
        yield block
        time.sleep(0.01 if traces else 0)
selection.Tracing.rows = patient
from circuit_tracer_cli.__main__ import main
main()
"""


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def timeless(path: Path) -> Any:
    document = json.loads(path.read_text())
    document["metadata"]["info"].pop("create_time_ms")
    return document


@pytest.mark.long
def test_a_page_sees_the_graph_grow_and_the_file_is_the_same(
    here: Path, environment: dict[str, str], tiny: Tiny
) -> None:
    command = [sys.executable, "-c", WATCHED, "attribute", *tiny.options, "-p", PROMPT, "--slug", "mine"]
    with started(*command, "--graph-file-dir", "plain", env=environment) as process:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    with started(*command, "--server", "--port", "0", env=environment) as process:
        assert process.stderr
        url = wait_for(process.stderr, "http://").strip()
        limit, phases, version, partial = time.monotonic() + 100, set(), 0, []
        while (status := ask(f"{url}api/live"))["state"] == "running" and time.monotonic() < limit:
            phases.add(status["phase"])
            if status["version"] > version:
                version = status["version"]
                with suppress(urllib.error.HTTPError):  # it may end between the two questions
                    partial.append(ask(f"{url}api/live/graph"))
            time.sleep(0.01)
        assert status["state"] == "done", status
        assert {"feature rows"} <= phases
        assert partial
        finished = ask(f"{url}api/graphs/mine")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130
    assert partial[0]["metadata"]["partial"] is True
    assert "partial" not in finished["metadata"]
    assert len(partial[0]["nodes"]) < len(finished["nodes"])
    assert timeless(here / "graph_files" / "mine.json") == timeless(here / "plain" / "mine.json")


@pytest.mark.long
def test_ctrl_c_during_the_trace_leaves_no_graph(here: Path, environment: dict[str, str], tiny: Tiny) -> None:
    command = [
        sys.executable,
        "-c",
        WATCHED,
        "attribute",
        *tiny.options,
        "-p",
        PROMPT,
        "--server",
        "--port",
        "0",
    ]
    with started(*command, env=environment) as process:
        assert process.stderr
        wait_for(process.stderr, "logit rows")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.rstrip().endswith("interrupted")
    assert list((here / "graph_files").glob("*")) == []


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_previews_take_a_tenth_of_the_time_and_none_without_a_page(
    raw_graph: Path, tmp_path: Path, clock: Clock
) -> None:
    live, graph = LiveTrace("mine", PROMPT, clock), load_graph(raw_graph)
    show = PartialGraphs(live, tmp_path, clock=clock)
    made = 0

    def make() -> Any:
        nonlocal made
        made += 1
        clock.now += 4
        return graph

    show(make)
    assert made == 0
    live.status()
    show(make)
    assert (made, live.status()["version"]) == (1, 1)
    for expected, pause in ((1, 39), (2, 2)):
        clock.now += pause
        live.status()
        show(make)
        assert made == expected
    body = live.graph()
    assert body is not None
    assert json.loads(body.content)["metadata"]["partial"] is True


def test_a_preview_that_fails_is_the_last_and_harms_nothing(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    live = LiveTrace("mine", PROMPT, clock)
    live.status()
    show = PartialGraphs(live, tmp_path, clock=clock)

    def make() -> Any:
        raise ZeroDivisionError

    show(make)
    assert "can't be shown" in caplog.text
    clock.now += 3
    live.status()
    show(lambda: pytest.fail("it was asked again"))


def test_the_page_learns_how_it_ended() -> None:
    for error, shown in ((BadPrompt("too long", "cut it"), "too long"), (MemoryError(), "MemoryError")):
        live = LiveTrace("mine", PROMPT)
        with pytest.raises(type(error)), _end_shown_on(live):
            raise error
        assert shown in live.status()["error"]
    live = LiveTrace("mine", PROMPT)
    with _end_shown_on(live):
        pass
    assert live.status()["state"] == "done"
    interrupted = LiveTrace("mine", PROMPT)
    with pytest.raises(KeyboardInterrupt), _end_shown_on(interrupted):
        raise KeyboardInterrupt
    assert interrupted.status()["state"] == "running"


def test_both_are_told() -> None:
    class Recorder(SilentProgress):
        def __init__(self) -> None:
            self.heard: list[object] = []

        def phase(self, name: str, total: int | None = None) -> None:
            self.heard.append((name, total))

        def advance(self, steps: int = 1) -> None:
            self.heard.append(steps)

        def note(self, message: str) -> None:
            self.heard.append(message)

    first, second = Recorder(), Recorder()
    both = Both(first, second)
    both.phase("rows", 3)
    both.advance(2)
    both.note("hm")
    assert first.heard == second.heard == [("rows", 3), 2, "hm"]
