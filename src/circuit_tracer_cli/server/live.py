"""A trace under way, as the page follows it: how far it is, and the graph of the rows that are known. Imports no torch.

The process that traces writes, the server's threads read. Nothing of it is on the disk: what ends early leaves nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from circuit_tracer_cli.server.bodies import Body, body_of
from circuit_tracer_cli.server.replies import body_reply, json_error

State = Literal["running", "done", "failed", "cancelled"]
_NOTES_KEPT = 20
_WATCHED_SECONDS = 5.0
_FAREWELL_SECONDS = 2.0


class LiveTrace:
    """One trace and what a page may know of it. It is a `Progress`, to be told like any other.

    Args:
        slug: Name that the finished graph will have.
        prompt: What is traced.
        clock: Seconds, for tests.
        run: Id of the run that it is, if a page started it.
    """

    def __init__(
        self, slug: str, prompt: str, clock: Callable[[], float] = time.monotonic, run: str | None = None
    ) -> None:
        self.slug, self._prompt, self._clock, self._run = slug, prompt, clock, run
        self._started = clock()
        self._state: State = "running"
        self._phase, self._done, self._total = "starting", 0, None
        self._notes: list[str] = []
        self._graph: Body | None = None
        self._version = 0
        self._failure: dict[str, str | None] = {}
        self._ended: float | None = None
        self._seen_at: float | None = None
        self._told = threading.Event()
        self._lock = threading.Lock()

    _total: int | None

    def phase(self, name: str, total: int | None = None) -> None:
        """A new phase begins."""
        with self._lock:
            self._phase, self._done, self._total = name, 0, total

    def advance(self, steps: int = 1) -> None:
        """So many steps of it are done."""
        with self._lock:
            self._done += steps

    def note(self, message: str) -> None:
        """Something to read."""
        with self._lock:
            self._notes = [*self._notes, message][-_NOTES_KEPT:]

    def publish(self, content: bytes) -> None:
        """The graph file of the rows that are known by now."""
        body = body_of(content)
        with self._lock:
            self._graph, self._version = body, self._version + 1

    def finish(self) -> None:
        """The graph file is written, so that the folder has it under the slug."""
        self._end("done")

    def fail(self, error: str, hint: str | None) -> None:
        """There will be no graph."""
        with self._lock:
            self._failure = {"error": error, "hint": hint}
        self._end("failed")

    def cancel(self) -> None:
        """There will be no graph, for nobody wants it any more."""
        self._end("cancelled")

    def farewell(self) -> None:
        """Returns when a page that follows has been told of a failure, or soon anyway: before the program ends."""
        if self.is_watched():
            self._told.wait(_FAREWELL_SECONDS)

    def _end(self, state: State) -> None:
        with self._lock:
            self._state, self._graph, self._ended = state, None, self._clock()

    def is_watched(self) -> bool:
        """Whether a page has asked within the last seconds."""
        seen = self._seen_at
        return seen is not None and self._clock() - seen < _WATCHED_SECONDS

    def status(self) -> dict[str, Any]:
        """What the page shows; asking counts as watching."""
        with self._lock:
            now = self._clock()
            self._seen_at = now
            if self._state == "failed":
                self._told.set()
            until = now if self._ended is None else self._ended
            return {
                "state": self._state, "slug": self.slug, "prompt": self._prompt, "phase": self._phase, "done": self._done,
                "total": self._total, "seconds": round(until - self._started, 1), "version": self._version,
                "notes": list(self._notes), **({"run": self._run} if self._run else {}), **self._failure,
            }  # fmt: skip

    def graph(self) -> Body | None:
        """The latest partial graph; None before the first and after the end."""
        with self._lock:
            return self._graph


class LiveStage:
    """The trace that pages follow: the one that began last, also after its end.

    Args:
        trace: One that is under way when the server starts.
    """

    def __init__(self, trace: LiveTrace | None = None) -> None:
        self.trace = trace

    def graph_of(self, slug: str) -> Body | None:
        """The latest partial graph of a slug."""
        trace = self.trace
        return trace.graph() if trace is not None and trace.slug == slug else None


def live_routes(stage: LiveStage) -> list[Route]:
    """`/api/live`, the progress, and `/api/live/graph`, the graph so far. Without a trace the state is `none`."""

    def progress(_request: Request) -> Response:
        trace = stage.trace
        status = {"state": "none"} if trace is None else trace.status()
        return JSONResponse(status, headers={"Cache-Control": "no-store"})

    def graph(request: Request) -> Response:
        trace = stage.trace
        body = None if trace is None else trace.graph()
        if body is None:
            return json_error(404, "there is no partial graph", "GET /api/live says how far the trace is")
        return body_reply(request, body)

    return [Route("/api/live", progress), Route("/api/live/graph", graph)]
