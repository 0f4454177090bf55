"""The application: its routes, and how errors become replies."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from circuit_tracer_cli import __version__
from circuit_tracer_cli.errors import (
    BadFeatureFiles,
    BadGraphFile,
    CircuitTracerError,
    MissingFile,
    OutputError,
    UsageError,
)
from circuit_tracer_cli.server.access import AccessRules, BelowPrefix, Gatekeeper
from circuit_tracer_cli.server.comparisons import ComparisonRoutes
from circuit_tracer_cli.server.deadlines import UntilGone
from circuit_tracer_cli.server.features import FeatureRoutes, FeatureSources, feature_cache
from circuit_tracer_cli.server.graphs import GraphFolder, GraphRoutes
from circuit_tracer_cli.server.labels import LabelRoutes, SharedLabels
from circuit_tracer_cli.server.library import LibraryRoutes
from circuit_tracer_cli.server.live import LiveStage, LiveTrace, ShownGraphs
from circuit_tracer_cli.server.model import Desk, ModelRunner
from circuit_tracer_cli.server.page import PageRoutes
from circuit_tracer_cli.server.replies import (
    NO_STORE,
    BodyCache,
    body_reply,
    contained,
    file_reply,
    json_error,
    media_type,
)
from circuit_tracer_cli.server.runs import RunQueue, RunRoutes
from circuit_tracer_cli.server.tasks import plans
from circuit_tracer_cli.server.traces import TraceRoutes

_log = logging.getLogger(__name__)
_STATUS: tuple[tuple[type[CircuitTracerError], int], ...] = (
    (MissingFile, 404),
    (BadGraphFile, 422),
    (BadFeatureFiles, 422),
    (UsageError, 422),
    (OutputError, 507),
)
_PACKED_SUFFIXES = frozenset({".html", ".js", ".css", ".svg"})


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one server.

    Args:
        data_dir: Folder of graph files.
        static_dir: The viewer's static files.
        features_dir: Feature examples for all graphs; by default those of each graph's set.
        rules: Access rules.
        max_body: The largest request body in bytes, except for uploads.
        live: A running trace.
        runs: The queue of the server's model.
        labels_dir: Folder of labels shared by graphs of a set; None for no sharing.
        feature_cache: Folder for feature records from the hub; None for the user's cache folder.
        spare_dir: Folder for compact forms of graphs in read-only folders.
        root_path: Path prefix that a proxy may keep in every request, such as `/user/me/proxy/8041`.
    """

    data_dir: Path
    static_dir: Path
    features_dir: Path | None = None
    rules: AccessRules = field(default_factory=AccessRules)
    max_body: int = 8 << 20
    live: LiveTrace | None = None
    runs: RunQueue | None = None
    labels_dir: Path | None = None
    feature_cache: Path | None = None
    spare_dir: Path = Path("/nonexistent")
    root_path: str = ""


class CountConvertor(Convertor[int]):
    """An integer in a path, with a limited number of digits."""

    regex = "[0-9]{1,40}"

    def convert(self, value: str) -> int:
        """Return the number."""
        return int(value)

    def to_string(self, value: int) -> str:
        """Return its digits."""
        return str(value)


register_url_convertor("count", CountConvertor())


def routes(settings: Settings) -> list[Route]:
    """Return all routes of a server, first match wins."""
    graphs, stage = GraphFolder(settings.data_dir, settings.spare_dir), LiveStage(settings.live)
    shown = ShownGraphs(graphs, stage)
    sources = FeatureSources(settings.features_dir, settings.feature_cache or feature_cache())
    shared = None if settings.labels_dir is None else SharedLabels(settings.labels_dir)
    features = FeatureRoutes(shown, sources)
    labels = LabelRoutes(shown, sources, shared, settings.max_body)
    runner = None if settings.runs is None else settings.runs.runner
    desk = Desk(runner, graphs, stage) if isinstance(runner, ModelRunner) else None
    page = BodyCache(16 << 20)

    def health(_request: Request) -> Response:
        """GET /healthz: 200 if the server is up."""
        state = {"status": "ok", "version": __version__, "features": features.has_features()}
        return JSONResponse(state, headers=NO_STORE)

    def static_file(request: Request) -> Response:
        """GET anything else: the page and its modules."""
        path = contained(settings.static_dir, request.path_params["relative"] or "index.html")
        if path.suffix.lower() in _PACKED_SUFFIXES:
            return body_reply(request, page.read(path), media_type(path))
        return file_reply(request, path, media_type(path))

    return [
        Route("/healthz", health),
        *stage.table(),
        *GraphRoutes(graphs, labels.share, settings.max_body).table(),
        *LibraryRoutes(graphs).table(),
        *ComparisonRoutes(graphs).table(),
        *TraceRoutes(desk, settings.max_body).table(),
        *RunRoutes(settings.runs, plans(desk), settings.max_body).table(),
        *features.table(),
        *labels.table(),
        *PageRoutes(graphs, settings.static_dir, sources, labels).table(),
        Route("/{relative:path}", static_file),
    ]


def create_app(settings: Settings) -> Starlette:
    """Return the ASGI application for these settings. Reads no files until the first request."""
    return Starlette(
        routes=routes(settings),
        middleware=[
            Middleware(UntilGone),
            Middleware(BelowPrefix, prefix=settings.root_path),
            Middleware(Gatekeeper, rules=settings.rules),
        ],
        exception_handlers={
            HTTPException: _http_error,
            CircuitTracerError: _tool_error,
            ClientDisconnect: _gone,
            Exception: _bug,
        },
    )


def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return _bug(request, error)
    hints = {
        404: "GET /api/graphs lists the graphs",
        405: "see the Allow header for the methods of this address",
    }
    return json_error(
        error.status_code, error.detail, hints.get(error.status_code), dict(error.headers or {})
    )


def _tool_error(request: Request, error: Exception) -> Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if not isinstance(error, CircuitTracerError):
        return _bug(request, error)
    return json_error(status, error.message, error.hint)


def _gone(_request: Request, _error: Exception) -> Response:
    """Handle a client that disconnected during its request; nobody reads the reply."""
    return Response(status_code=400)


def _bug(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return json_error(500, "the server failed on this request", "the server's log has the details")
