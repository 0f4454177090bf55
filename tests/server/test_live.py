"""A trace under way, over HTTP."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from circuit_tracer_cli.server.live import LiveTrace

from .builders import make_client, make_graph


class Clock:
    """Seconds that pass when the test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live(clock: Clock) -> LiveTrace:
    return LiveTrace("growing", " a", clock)


def test_without_a_trace_there_is_none(data_dir: Path) -> None:
    client = make_client(data_dir)
    assert client.get("/api/live").json() == {"state": "none"}
    reply = client.get("/api/live/graph")
    assert reply.status_code == 404
    assert set(reply.json()) == {"error", "hint"}


def test_progress(data_dir: Path, live: LiveTrace, clock: Clock) -> None:
    client = make_client(data_dir, live=live)
    live.phase("feature rows", 40)
    live.advance(3)
    live.advance()
    live.note("the first")
    clock.now += 2.5
    reply = client.get("/api/live")
    assert reply.headers["cache-control"] == "no-store"
    assert reply.json() == {
        "state": "running", "slug": "growing", "prompt": " a", "phase": "feature rows", "done": 4, "total": 40,
        "seconds": 2.5, "version": 0, "notes": ["the first"],
    }  # fmt: skip
    live.phase("packaging")
    status = client.get("/api/live").json()
    assert (status["done"], status["total"]) == (0, None)
    for number in range(50):
        live.note(str(number))
    assert len(client.get("/api/live").json()["notes"]) == 20


def test_the_graph_so_far(data_dir: Path, live: LiveTrace) -> None:
    client = make_client(data_dir, live=live)
    assert client.get("/api/live/graph").status_code == 404
    live.publish(json.dumps(make_graph("growing")).encode())
    first = client.get("/api/live/graph")
    assert first.json() == make_graph("growing")
    assert client.get("/api/live/graph", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    live.publish(json.dumps(make_graph("growing", linkType="input")).encode())
    assert client.get("/api/live").json()["version"] == 2
    assert client.get("/api/live/graph").headers["etag"] != first.headers["etag"]
    live.finish()
    assert client.get("/api/live/graph").status_code == 404
    assert client.get("/api/live").json()["state"] == "done"


def test_time_stands_still_after_the_end(live: LiveTrace, clock: Clock) -> None:
    clock.now += 5
    live.finish()
    clock.now += 100
    assert live.status()["seconds"] == 5


def test_only_a_page_that_asks_watches(live: LiveTrace, clock: Clock) -> None:
    assert not live.is_watched()
    live.status()
    assert live.is_watched()
    clock.now += 6
    assert not live.is_watched()


def test_a_failure_waits_for_the_page_and_for_nobody_else(live: LiveTrace) -> None:
    live.status()

    def fail() -> None:
        live.fail("no memory", "buy some")
        live.farewell()

    failing = threading.Thread(target=fail, daemon=True)
    failing.start()
    while (status := live.status())["state"] == "running":
        pass
    failing.join(20)
    assert not failing.is_alive()
    assert (status["state"], status["error"], status["hint"]) == ("failed", "no memory", "buy some")
    unwatched = LiveTrace("growing", " a", clock=lambda: 0.0)
    unwatched.fail("no memory", None)
    unwatched.farewell()
    assert unwatched.status()["hint"] is None


def test_a_cancelled_trace_and_the_run_that_it_is(data_dir: Path, clock: Clock) -> None:
    live = LiveTrace("growing", " a", clock, run="r1")
    client = make_client(data_dir, live=live)
    live.publish(b"{}")
    assert client.get("/api/live").json()["run"] == "r1"
    live.cancel()
    assert client.get("/api/live").json()["state"] == "cancelled"
    assert client.get("/api/live/graph").status_code == 404


def test_strangers_learn_nothing_of_it(data_dir: Path, live: LiveTrace) -> None:
    client = make_client(
        data_dir,
        live=live,
        host="0.0.0.0",
        base="http://192.168.1.5:8041",
        token="s3cret",
        peer="192.168.1.9",
    )
    assert client.get("/api/live").status_code == 401
    assert not live.is_watched()
