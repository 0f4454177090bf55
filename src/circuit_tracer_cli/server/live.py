"""A running trace, as followed by the page: progress, the graph of the rows known so far, and the end. Imports no torch.

The tracing thread writes and the server's threads read. Nothing is written to disk, so a trace that ends early leaves nothing.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from circuit_tracer_cli.errors import CircuitTracerError
from circuit_tracer_cli.export.splice import read_top_level
from circuit_tracer_cli.server.graphs import GraphFolder, feature_codes
from circuit_tracer_cli.server.replies import NO_STORE, Body, body_of, body_reply, json_error
from circuit_tracer_cli.server.runs import Cancelled
from circuit_tracer_cli.types import Progress

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph

State = Literal["running", "done", "failed", "cancelled"]
_NOTES_KEPT = 20
_WATCHED_SECONDS = 5.0
_FAREWELL_SECONDS = 2.0
_SECONDS_APART = 1.0
_SHARE = 10
_log = logging.getLogger(__name__)


class LiveTrace:
    """One trace and what pages see of it. It is a `Progress`.

    Args:
        slug: Name that the finished graph will have.
        prompt: The traced prompt.
        clock: Seconds, for tests.
        run: Id of its run, if a page started it.
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
        self._read = threading.Event()
        self._lock = threading.Lock()

    _total: int | None

    def phase(self, name: str, total: int | None = None) -> None:
        """A new phase begins."""
        with self._lock:
            self._phase, self._done, self._total = name, 0, total

    def advance(self, steps: int = 1) -> None:
        """Steps of it are done."""
        with self._lock:
            self._done += steps

    def note(self, message: str) -> None:
        """Keep a note for the page."""
        with self._lock:
            self._notes = [*self._notes, message][-_NOTES_KEPT:]

    def publish(self, content: bytes) -> None:
        """Publish the graph file of the rows known so far."""
        body = body_of(content)
        with self._lock:
            self._graph, self._version = body, self._version + 1

    def finish(self) -> None:
        """Record that the graph file is written, so that the folder has it under the slug."""
        self._end("done")

    def fail(self, error: str, hint: str | None) -> None:
        """Record that the trace failed."""
        with self._lock:
            self._failure = {"error": error, "hint": hint}
        self._end("failed")

    def cancel(self) -> None:
        """Record that the trace was cancelled."""
        self._end("cancelled")

    def farewell(self) -> None:
        """Before the program ends, wait up to two seconds until a following page has read of a failure."""
        if self.is_watched():
            self._read.wait(_FAREWELL_SECONDS)

    def _end(self, state: State) -> None:
        with self._lock:
            self._state, self._graph, self._ended = state, None, self._clock()

    def is_watched(self) -> bool:
        """True if a page has asked in the last few seconds."""
        seen = self._seen_at
        return seen is not None and self._clock() - seen < _WATCHED_SECONDS

    def status(self) -> dict[str, Any]:
        """Return what the page shows; calling this counts as watching."""
        with self._lock:
            now = self._clock()
            self._seen_at = now
            if self._state == "failed":
                self._read.set()
            until = now if self._ended is None else self._ended
            return {
                "state": self._state, "slug": self.slug, "prompt": self._prompt, "phase": self._phase, "done": self._done,
                "total": self._total, "seconds": round(until - self._started, 1), "version": self._version,
                "notes": list(self._notes), **({"run": self._run} if self._run else {}), **self._failure,
            }  # fmt: skip

    def graph(self) -> Body | None:
        """Return the latest partial graph; None before the first and after the end."""
        with self._lock:
            return self._graph


class LiveStage:
    """The trace that pages follow: the latest one, also after its end.

    Args:
        trace: A trace that is running when the server starts.
    """

    def __init__(self, trace: LiveTrace | None = None) -> None:
        self.trace = trace

    def graph_of(self, slug: str) -> Body | None:
        """Return the latest partial graph of a slug."""
        return self.trace.graph() if self.is_traced(slug) and self.trace is not None else None

    def is_traced(self, slug: str) -> bool:
        """Return True if the last trace has this slug."""
        return self.trace is not None and self.trace.slug == slug

    def table(self) -> list[Route]:
        """All routes."""
        return [Route("/api/live", self.progress), Route("/api/live/graph", self.partial_graph)]

    async def progress(self, _request: Request) -> Response:
        """GET /api/live: the trace's progress; `state` is `none` without a trace."""
        status = {"state": "none"} if self.trace is None else self.trace.status()
        return JSONResponse(status, headers=NO_STORE)

    def partial_graph(self, request: Request) -> Response:
        """GET /api/live/graph: the graph of the rows known so far."""
        body = None if self.trace is None else self.trace.graph()
        if body is None:
            return json_error(404, "there is no partial graph", "GET /api/live shows the trace's progress")
        return body_reply(request, body)


class ShownGraphs:
    """The graphs that a page can show: those in the folder, and the one being traced."""

    def __init__(self, graphs: GraphFolder, stage: LiveStage) -> None:
        self._graphs, self._stage = graphs, stage

    def metadata(self, slug: str) -> dict[str, Any]:
        """Return a graph's metadata. Raises MissingFile, BadGraphFile."""
        partial = self._stage.graph_of(slug)
        if partial is None:
            return self._graphs.metadata(slug)
        return dict(read_top_level(partial.content.decode(), frozenset(["metadata"])).values["metadata"])

    def codes(self, slug: str) -> set[int]:
        """Return the Cantor codes of a graph's features. Raises as `metadata`."""
        partial = self._stage.graph_of(slug)
        return self._graphs.codes(slug) if partial is None else feature_codes(partial.content)

    def is_traced(self, slug: str) -> bool:
        """Return True if this is the graph of the last trace."""
        return self._stage.is_traced(slug)

    def scans(self) -> list[str]:
        """Return the transcoder sets of the folder's graphs, that of the newest graph first."""
        graphs = reversed(self._graphs.listing().graphs)
        return list(dict.fromkeys(str(graph.get("scan")) for graph in graphs))


class Both:
    """Passes progress on to two listeners."""

    def __init__(self, first: Progress, second: Progress) -> None:
        self._listeners = (first, second)

    def phase(self, name: str, total: int | None = None) -> None:
        """Pass this on."""
        for listener in self._listeners:
            listener.phase(name, total)

    def advance(self, steps: int = 1) -> None:
        """Pass this on."""
        for listener in self._listeners:
            listener.advance(steps)

    def note(self, message: str) -> None:
        """Pass this on."""
        for listener in self._listeners:
            listener.note(message)


@contextmanager
def ended(live: LiveTrace, details: str) -> Iterator[None]:
    """Record how the work ended, and re-raise its exception.

    Args:
        live: What pages see of the trace.
        details: Where to read more about an error that isn't a CircuitTracerError.
    """
    try:
        yield
    except Cancelled:
        live.cancel()
        raise
    except CircuitTracerError as error:
        live.fail(error.message, error.hint)
        raise
    except Exception as error:
        live.fail(f"the trace failed: {type(error).__name__}", details)
        raise
    live.finish()


class PartialGraphs:
    """Publish the graph of the known rows while a page watches, using at most a tenth of the time.

    A failure ends the previews, never the trace.

    Args:
        live: Receives the previews.
        folder: Folder of the finished graph; its existing annotations are shown.
        node_threshold, edge_threshold: How it will be pruned; None is the default.
        clock: Seconds, for tests.
    """

    def __init__(
        self,
        live: LiveTrace,
        folder: Path,
        node_threshold: float | None = None,
        edge_threshold: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live, self._folder, self._clock = live, folder, clock
        self._thresholds = node_threshold, edge_threshold
        self._not_before = 0.0
        self._broken = False

    def __call__(self, make: Callable[[], Graph]) -> None:
        """Make and publish the graph, if a page watches and the last one wasn't too recent."""
        start = self._clock()
        if self._broken or start < self._not_before or not self._live.is_watched():
            return
        try:
            self._live.publish(self._graph_file(make()))
        except Exception:  # a failed preview must not stop the trace
            self._broken = True
            _log.exception("the partial graph can't be shown")
        took = self._clock() - start
        self._not_before = start + took + max(_SECONDS_APART, _SHARE * took)

    def _graph_file(self, graph: Graph) -> bytes:
        """The graph file as it would be now, marked as partial, with its annotations from the folder."""
        from circuit_tracer_cli.export.graph_json import write_graph_json
        from circuit_tracer_cli.export.viewer import graph_parts
        from circuit_tracer_cli.graph.prune import pruned_graph

        parts = graph_parts(pruned_graph(graph, *self._thresholds, stability=False), self._live.slug)
        metadata = dataclasses.replace(parts.metadata, extra={**parts.metadata.extra, "partial": True})
        annotations = parts.kept_annotations(self._folder / f"{self._live.slug}.json")
        document = io.BytesIO()
        write_graph_json(document, metadata, annotations, parts.nodes, parts.links())
        return document.getvalue()
