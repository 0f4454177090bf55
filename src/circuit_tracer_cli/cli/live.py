"""What `attribute --server` shows while it computes: progress on the terminal and in the page, and the graph as it grows."""

from __future__ import annotations

import dataclasses
import io
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from circuit_tracer_cli.cli.graph_files import GraphFiles
from circuit_tracer_cli.errors import CircuitTracerError
from circuit_tracer_cli.types import Progress

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.server.live import LiveTrace

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


class PartialGraphs:
    """Publishes the graph of the known rows while a page watches, at most a tenth of the time.

    A failure here ends the previews, never the trace.
    """

    def __init__(
        self, live: LiveTrace, files: GraphFiles, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._live, self._files, self._clock = live, files, clock
        self._not_before = 0.0
        self._broken = False

    def __call__(self, make: Callable[[], Graph]) -> None:
        """Perhaps make the graph and publish it."""
        start = self._clock()
        if self._broken or start < self._not_before or not self._live.is_watched():
            return
        try:
            self._live.publish(_graph_file(make(), self._files))
        except Exception:
            self._broken = True
            _log.exception("the partial graph can't be shown")
        took = self._clock() - start
        self._not_before = start + took + max(_SECONDS_APART, _SHARE * took)


def _graph_file(graph: Graph, files: GraphFiles) -> bytes:
    """The graph file as it would be now, marked as partial, with the annotations that the folder has of it."""
    from circuit_tracer_cli.export.graph_json import write_graph_json
    from circuit_tracer_cli.export.viewer import graph_parts

    assert files.slug is not None
    parts = graph_parts(graph, files.slug, None, files.node_threshold, files.edge_threshold)
    metadata = dataclasses.replace(parts.metadata, extra={**parts.metadata.extra, "partial": True})
    annotations = parts.kept_annotations(Path(files.directory or "") / f"{files.slug}.json")
    document = io.BytesIO()
    write_graph_json(document, metadata, annotations, parts.nodes, parts.links())
    return document.getvalue()


@contextmanager
def told(live: LiveTrace) -> Iterator[None]:
    """Around the work: the page learns how it ended. An interruption ends the server at once."""
    try:
        yield
    except CircuitTracerError as error:
        live.fail(error.message, error.hint)
        raise
    except Exception as error:
        live.fail(f"the trace failed: {type(error).__name__}", "the terminal that it runs in says more")
        raise
    live.finish()
