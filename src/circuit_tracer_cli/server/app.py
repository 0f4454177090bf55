"""The application: every route, and how an error becomes a reply."""

from __future__ import annotations

import json
import logging
import math
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
from circuit_tracer_cli.server.features import FeatureFolder, features_of_graph, uncantor
from circuit_tracer_cli.server.graphs import GraphFolder, StaleTag
from circuit_tracer_cli.server.live import LiveTrace, live_routes
from circuit_tracer_cli.server.paths import contained
from circuit_tracer_cli.server.replies import body_reply, file_reply, json_error, matches_strongly
from circuit_tracer_cli.server.run_routes import RunRoutes
from circuit_tracer_cli.server.runs import RunQueue
from circuit_tracer_cli.server.security import AccessRules, Gatekeeper

_log = logging.getLogger(__name__)
_STATUS: tuple[tuple[type[CircuitTracerError], int], ...] = (
    (MissingFile, 404),
    (BadGraphFile, 422),
    (BadFeatureFiles, 422),
    (UsageError, 422),
    (OutputError, 507),
)
_MEMORY_SUFFIXES = frozenset({".json", ".csv", ".graphml", ".html"})


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server serves, and to whom.

    `max_body` is the largest request body in bytes, `live` a trace under way, `runs` what edits can run on.
    """

    data_dir: Path
    static_dir: Path
    features_dir: Path | None = None
    rules: AccessRules = field(default_factory=AccessRules)
    max_body: int = 8 << 20
    live: LiveTrace | None = None
    runs: RunQueue | None = None


class Routes:
    """The endpoints. Those that only read are plain functions: Starlette runs them in other threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._graphs = GraphFolder(settings.data_dir)
        self._features = FeatureFolder(settings.features_dir) if settings.features_dir else None

    def table(self) -> list[Route]:
        """All routes, first match wins."""
        return [
            Route("/healthz", self.health),
            *live_routes(self._settings.live),
            Route("/api/graphs", self.list_graphs),
            Route("/api/graphs/{slug}", self.graph),
            Route("/api/graphs/{slug}/labels", self.labels),
            Route("/api/graphs/{slug}/annotations", self.annotate, methods=["PUT"]),
            Route("/api/features/{layer:int}/{feature:int}", self.feature),
            *RunRoutes(self._settings.runs, self._json_body).table(),
            Route("/data/{relative:path}", self.data_file),
            Route("/graph_data/{relative:path}", self.data_file),
            Route("/features/{code:int}.json", self.feature_by_code),
            Route("/features/{relative:path}", self.feature_file),
            Route("/save_graph/{relative:path}", self.save_graph, methods=["POST"]),
            Route("/{relative:path}", self.static_file),
        ]

    def health(self, _request: Request) -> Response:
        """GET /healthz: the server answers."""
        state = {"status": "ok", "version": __version__, "features": self._features is not None}
        return JSONResponse(state, headers={"Cache-Control": "no-store"})

    def list_graphs(self, _request: Request) -> Response:
        """GET /api/graphs: metadata of every graph, read from the folder now."""
        listing = self._graphs.listing()
        content = {"graphs": listing.graphs, "errors": listing.errors}
        return JSONResponse(content, headers={"Cache-Control": "no-cache"})

    def graph(self, request: Request) -> Response:
        """GET /api/graphs/{slug}: the graph file, validated once per version."""
        return body_reply(request, self._graphs.read(request.path_params["slug"]))

    async def annotate(self, request: Request) -> Response:
        """PUT /api/graphs/{slug}/annotations: new `qParams`, if nobody else has saved meanwhile."""
        condition = request.headers.get("if-match")
        if condition is None:
            hint = "send the ETag of the graph that you read as If-Match"
            return json_error(428, "saving needs an If-Match header", hint)
        annotations = check_annotations(await self._json_body(request))
        return await self._save(request.path_params["slug"], annotations, condition)

    async def save_graph(self, request: Request) -> Response:
        """POST /save_graph/…/{slug}: the reference page's save; values may be strings, arrays are written."""
        body = await self._json_body(request)
        if not isinstance(body, dict) or not isinstance(body.get("qParams"), dict):
            raise HTTPException(400, "the body must be an object with a qParams object")
        slug = request.path_params["relative"].rpartition("/")[2]
        return await self._save(slug, from_reference(body["qParams"]), request.headers.get("if-match", "*"))

    async def _save(self, slug: str, annotations: dict[str, Any], condition: str) -> Response:
        accepts = partial(matches_strongly, condition)
        try:
            etag = await run_in_threadpool(self._graphs.save, slug, annotations, accepts)
        except StaleTag as error:
            hint = "read the graph again and repeat the change"
            message = "the graph was saved by somebody else since it was read"
            return json_error(412, message, hint, {"ETag": error.current})
        return JSONResponse({"slug": slug, "etag": etag}, headers={"ETag": etag, "Cache-Control": "no-store"})

    def feature(self, request: Request) -> Response:
        """GET /api/features/{layer}/{feature}: one feature's examples as JSON; 204 if there are none of it."""
        return self._feature_reply(request.path_params["layer"], request.path_params["feature"])

    def feature_by_code(self, request: Request) -> Response:
        """GET /features/{code}.json: the same under its Cantor code, where graph files' `feature_json_base_url` leads."""
        return self._feature_reply(*uncantor(request.path_params["code"]))

    def _feature_reply(self, layer: int, feature: int) -> Response:
        record = self._feature_folder().record(layer, feature)
        headers = {"Cache-Control": "no-cache"}
        if record is None:
            return Response(status_code=204, headers=headers)
        return JSONResponse(record, headers=headers)

    def labels(self, request: Request) -> Response:
        """GET /api/graphs/{slug}/labels: proposed labels of the graph's features, by Cantor code."""
        if self._features is None:
            return JSONResponse({"labels": {}})
        features = features_of_graph(self._graphs.read(request.path_params["slug"]).content)
        return JSONResponse(
            {"labels": self._features.labels(features)}, headers={"Cache-Control": "no-cache"}
        )

    def feature_file(self, request: Request) -> Response:
        """GET /features/…: index and binary files as they are, with ranges."""
        path = contained(self._feature_folder().root, request.path_params["relative"])
        return file_reply(request, path, "application/octet-stream")

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
        return file_reply(request, path, media_type(path))

    def _feature_folder(self) -> FeatureFolder:
        if self._features is None:
            raise MissingFile("this server has no feature examples", "start it with --features-dir FOLDER")
        return self._features

    async def _json_body(self, request: Request) -> object:
        content = await _limited_body(request, self._settings.max_body)
        try:
            return await run_in_threadpool(_strict_json, content)
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, "the body isn't valid JSON") from error


def create_app(settings: Settings) -> Starlette:
    """The ASGI application for these settings. Reads nothing until the first request."""
    return Starlette(
        routes=Routes(settings).table(),
        middleware=[Middleware(Gatekeeper, rules=settings.rules)],
        exception_handlers={HTTPException: _http_error, CircuitTracerError: _tool_error, Exception: _bug},
    )


async def _limited_body(request: Request, limit: int) -> bytes:
    too_large = HTTPException(413, f"the body is larger than {limit >> 20} MiB")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise too_large
    return bytes(content)


def _strict_json(content: bytes) -> object:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not a JSON number")

    def finite(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            refuse(text)
        return value

    return json.loads(content, parse_constant=refuse, parse_float=finite)


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
