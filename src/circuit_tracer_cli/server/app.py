"""The application: every route, and how an error becomes a reply."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
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
from circuit_tracer_cli.server.annotations import check_annotations, from_reference
from circuit_tracer_cli.server.assets import media_type
from circuit_tracer_cli.server.bodies import BodyCache
from circuit_tracer_cli.server.compact import features_in
from circuit_tracer_cli.server.compact_cache import Compact, CompactCache, compact_folder
from circuit_tracer_cli.server.feature_routes import FeatureRoutes
from circuit_tracer_cli.server.feature_sources import FeatureSources, feature_cache
from circuit_tracer_cli.server.graphs import GraphFolder, StaleTag
from circuit_tracer_cli.server.live import LiveStage, LiveTrace, live_routes
from circuit_tracer_cli.server.model import ModelRunner
from circuit_tracer_cli.server.page_routes import PageRoutes
from circuit_tracer_cli.server.paths import contained, graph_path
from circuit_tracer_cli.server.prefix import BelowPrefix
from circuit_tracer_cli.server.replies import (
    body_reply,
    bytes_reply,
    file_reply,
    json_error,
    matches_strongly,
)
from circuit_tracer_cli.server.requests import json_body
from circuit_tracer_cli.server.run_routes import RunRoutes
from circuit_tracer_cli.server.runs import RunQueue
from circuit_tracer_cli.server.security import AccessRules, Gatekeeper
from circuit_tracer_cli.server.shared_labels import SharedLabels, changed_labels
from circuit_tracer_cli.server.trace_routes import TraceRoutes
from circuit_tracer_cli.server.tracing import Tracing

_log = logging.getLogger(__name__)
_STATUS: tuple[tuple[type[CircuitTracerError], int], ...] = (
    (MissingFile, 404),
    (BadGraphFile, 422),
    (BadFeatureFiles, 422),
    (UsageError, 422),
    (OutputError, 507),
)
_PACKED_SUFFIXES = frozenset({".html", ".js", ".css", ".svg"})
_MEMORY_SUFFIXES = frozenset({".json", ".csv", ".graphml", ".html"})


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server serves, and to whom.

    Args:
        data_dir: Graph files.
        static_dir: The viewer.
        features_dir: Feature examples for all graphs; without it, each graph's set is looked for.
        rules: Who may ask.
        max_body: The largest request body in bytes.
        live: A trace under way.
        runs: What edits can run on.
        labels_dir: Labels that graphs of a set share; None for no sharing.
        feature_cache: Where feature records from the hub are kept; None for the user's cache folder.
        compact_cache: Where compact forms of large graphs are kept; None for the user's cache folder.
        root_path: A path that a proxy may leave in front of every request, as `/user/me/proxy/8041`.
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
    compact_cache: Path | None = None
    root_path: str = ""


class Routes:
    """The endpoints. Those that only read are plain functions: Starlette runs them in other threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._graphs = GraphFolder(settings.data_dir)
        self._page = BodyCache(16 << 20)
        self._stage = LiveStage(settings.live)
        self._forms = CompactCache(settings.compact_cache or compact_folder())
        sources = FeatureSources(settings.features_dir, settings.feature_cache or feature_cache())
        self._features = FeatureRoutes(
            self._graphs,
            sources,
            None if settings.labels_dir is None else SharedLabels(settings.labels_dir),
            self._stage,
            settings.max_body,
            self._codes,
        )
        self._pages = PageRoutes(self._graphs, settings.static_dir, sources.folder, self._features.labels_of)

    def table(self) -> list[Route]:
        """All routes, first match wins."""
        return [
            Route("/healthz", self.health),
            *live_routes(self._stage),
            Route("/api/graphs", self.list_graphs),
            Route("/api/graphs/{slug}", self.graph),
            Route("/api/graphs/{slug}/compact", self.compact),
            Route("/api/graphs/{slug}/view", self.view),
            Route("/api/graphs/{slug}/nodes", self.nodes),
            Route("/api/graphs/{slug}/annotations", self.annotate, methods=["PUT"]),
            *self._run_routes(),
            *self._features.table(),
            *self._pages.table(),
            Route("/data/{relative:path}", self.data_file),
            Route("/graph_data/{relative:path}", self.data_file),
            Route("/save_graph/{relative:path}", self.save_graph, methods=["POST"]),
            Route("/{relative:path}", self.static_file),
        ]

    def _run_routes(self) -> list[Route]:
        runs, read = self._settings.runs, partial(json_body, limit=self._settings.max_body)
        runner = None if runs is None else runs.runner
        tracing = Tracing(runner, self._graphs, self._stage) if isinstance(runner, ModelRunner) else None
        return [*RunRoutes(runs, read).table(), *TraceRoutes(runs, tracing, read).table()]

    def health(self, _request: Request) -> Response:
        """GET /healthz: the server answers."""
        state = {"status": "ok", "version": __version__, "features": self._features.has_features()}
        return JSONResponse(state, headers={"Cache-Control": "no-store"})

    def list_graphs(self, _request: Request) -> Response:
        """GET /api/graphs: metadata of every graph, read from the folder now."""
        listing = self._graphs.listing()
        content = {"graphs": listing.graphs, "errors": listing.errors}
        return JSONResponse(content, headers={"Cache-Control": "no-cache"})

    def graph(self, request: Request) -> Response:
        """GET /api/graphs/{slug}: the graph file, validated once per version."""
        return body_reply(request, self._graphs.read(request.path_params["slug"]))

    def compact(self, request: Request) -> Response:
        """GET /api/graphs/{slug}/compact: the graph as typed arrays, with ranges; 204 if it has no such form."""
        form = self._form(request.path_params["slug"])
        if form is None:
            return Response(status_code=204, headers={"Cache-Control": "no-cache"})
        return bytes_reply(request, form.content, form.etag)

    def _form(self, slug: str) -> Compact | None:
        return self._forms.read(graph_path(self._settings.data_dir, slug), partial(self._graphs.read, slug))

    def _codes(self, slug: str) -> set[int] | None:
        form = self._form(slug)
        return None if form is None else features_in(form.content)

    def view(self, request: Request) -> Response:
        """GET /api/graphs/{slug}/view: the file's `metadata` and `qParams` alone, so that a page learns what changed in it."""
        return body_reply(request, self._graphs.view(request.path_params["slug"]))

    def nodes(self, request: Request) -> Response:
        """GET /api/graphs/{slug}/nodes: what the file says about each node, for those who have the compact form."""
        return body_reply(request, self._graphs.nodes(request.path_params["slug"]))

    async def annotate(self, request: Request) -> Response:
        """PUT /api/graphs/{slug}/annotations: new `qParams`, if nobody else has saved meanwhile."""
        condition = request.headers.get("if-match")
        if condition is None:
            hint = "send the ETag of the graph that you read as If-Match"
            return json_error(428, "saving needs an If-Match header", hint)
        annotations = check_annotations(await json_body(request, self._settings.max_body))
        return await self._save(request.path_params["slug"], annotations, condition)

    async def save_graph(self, request: Request) -> Response:
        """POST /save_graph/…/{slug}: the reference page's save; values may be strings, arrays are written."""
        body = await json_body(request, self._settings.max_body)
        if not isinstance(body, dict) or not isinstance(body.get("qParams"), dict):
            raise HTTPException(400, "the body must be an object with a qParams object")
        slug = request.path_params["relative"].rpartition("/")[2]
        return await self._save(slug, from_reference(body["qParams"]), request.headers.get("if-match", "*"))

    async def _save(self, slug: str, annotations: dict[str, Any], condition: str) -> Response:
        accepts = partial(matches_strongly, condition)
        try:
            saved = await run_in_threadpool(self._graphs.save, slug, annotations, accepts)
        except StaleTag as error:
            hint = "read the graph again and repeat the change"
            message = "the graph was saved by somebody else since it was read"
            return json_error(412, message, hint, {"ETag": error.current})
        texts = changed_labels(saved.before.get("clerps"), annotations.get("clerps"))
        await run_in_threadpool(self._features.share, saved.metadata, texts)
        headers = {"ETag": saved.etag, "Cache-Control": "no-store"}
        return JSONResponse({"slug": slug, "etag": saved.etag}, headers=headers)

    def data_file(self, request: Request) -> Response:
        """GET /data/… and /graph_data/…: a file of the graph folder."""
        relative = request.path_params["relative"]
        path = contained(self._settings.data_dir, relative)
        if path.suffix.lower() in _MEMORY_SUFFIXES:
            return body_reply(request, self._graphs.read_file(relative), media_type(path))
        return file_reply(request, path, "application/octet-stream")

    def static_file(self, request: Request) -> Response:
        """GET anything else: the page and its modules."""
        path = contained(self._settings.static_dir, request.path_params["relative"] or "index.html")
        if path.suffix.lower() in _PACKED_SUFFIXES:
            return body_reply(request, self._page.read(path), media_type(path))
        return file_reply(request, path, media_type(path))


def create_app(settings: Settings) -> Starlette:
    """The ASGI application for these settings. Reads nothing until the first request."""
    return Starlette(
        routes=Routes(settings).table(),
        middleware=[
            Middleware(BelowPrefix, prefix=settings.root_path),
            Middleware(Gatekeeper, rules=settings.rules),
        ],
        exception_handlers={HTTPException: _http_error, CircuitTracerError: _tool_error, Exception: _bug},
    )


def _http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return _bug(_request, error)
    hints = {404: "GET /api/graphs lists the graphs", 405: "the Allow header says what this address takes"}
    return json_error(
        error.status_code, error.detail, hints.get(error.status_code), dict(error.headers or {})
    )


def _tool_error(_request: Request, error: Exception) -> Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if not isinstance(error, CircuitTracerError):
        return _bug(_request, error)
    return json_error(status, error.message, error.hint)


def _bug(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return json_error(500, "the server failed on this request", "the server's log has the details")
