"""What a page sees of a trace: its progress along with somebody else's, the graph as it grows, and the end. Imports no torch."""

from __future__ import annotations

import dataclasses
import io
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from circuit_tracer_cli.errors import CircuitTracerError
from circuit_tracer_cli.server.live import LiveTrace
from circuit_tracer_cli.server.runs import Cancelled
from circuit_tracer_cli.types import Progress

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph

_log = logging.getLogger(__name__)
_SECONDS_APART = 1.0
_SHARE = 10


class Both:
    """Tells two what it is told."""

    def __init__(self, first: Progress, second: Progress) -> None:
        self._listeners = (first, second)

    def phase(self, name: str, total: int | None = None) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.phase(name, total)

    def advance(self, steps: int = 1) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.advance(steps)

    def note(self, message: str) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.note(message)


@contextmanager
def ended(live: LiveTrace, details: str) -> Iterator[None]:
    """Around the work: pages learn how it ended, and whatever it raised goes on.

    Args:
        live: What they see of it.
        details: Where to read more of an error that isn't one of ours.
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
    """Publishes the graph of the known rows while a page watches, at most a tenth of the time.

    A failure here ends the previews, never the trace.

    Args:
        live: Where they go.
        folder: Where the finished graph will be; annotations that are there already are shown.
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
        """Perhaps make the graph and publish it."""
        start = self._clock()
        if self._broken or start < self._not_before or not self._live.is_watched():
            return
        try:
            self._live.publish(self._graph_file(make()))
        except Exception:  # whatever a preview can't do, the trace goes on
            self._broken = True
            _log.exception("the partial graph can't be shown")
        took = self._clock() - start
        self._not_before = start + took + max(_SECONDS_APART, _SHARE * took)

    def _graph_file(self, graph: Graph) -> bytes:
        """The graph file as it would be now, marked as partial, with the annotations that the folder has of it."""
        from circuit_tracer_cli.export.graph_json import write_graph_json
        from circuit_tracer_cli.export.viewer import graph_parts

        parts = graph_parts(graph, self._live.slug, None, *self._thresholds)
        metadata = dataclasses.replace(parts.metadata, extra={**parts.metadata.extra, "partial": True})
        annotations = parts.kept_annotations(self._folder / f"{self._live.slug}.json")
        document = io.BytesIO()
        write_graph_json(document, metadata, annotations, parts.nodes, parts.links())
        return document.getvalue()
