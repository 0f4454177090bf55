"""The routes about features: examples, the labels that files propose, and those that people share between graphs of one set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from circuit_tracer_cli.errors import CircuitTracerError, MissingFile
from circuit_tracer_cli.export.splice import read_top_level
from circuit_tracer_cli.server.feature_sources import FeatureSources
from circuit_tracer_cli.server.features import FeatureFolder, feature_codes, uncantor
from circuit_tracer_cli.server.graphs import GraphFolder
from circuit_tracer_cli.server.live import LiveStage
from circuit_tracer_cli.server.paths import contained
from circuit_tracer_cli.server.replies import file_reply
from circuit_tracer_cli.server.requests import json_body
from circuit_tracer_cli.server.shared_labels import SharedLabels

_FRESH = {"Cache-Control": "no-cache"}
_log = logging.getLogger(__name__)


class FeatureRoutes:
    """Examples and labels of the graphs of a folder, and of the one that is being traced."""

    def __init__(
        self,
        graphs: GraphFolder,
        sources: FeatureSources,
        shared: SharedLabels | None,
        stage: LiveStage,
        max_body: int,
        codes: Callable[[str], set[int] | None],
    ) -> None:
        self._graphs, self._sources, self._shared, self._stage = graphs, sources, shared, stage
        self._max_body, self._codes = max_body, codes

    def table(self) -> list[Route]:
        """All routes, first match wins."""
        return [
            Route("/api/graphs/{slug}/features/{layer:int}/{feature:int}", self.graph_feature),
            Route("/api/graphs/{slug}/labels", self.labels),
            Route("/api/graphs/{slug}/labels/shared", self.export_labels, methods=["GET"]),
            Route("/api/graphs/{slug}/labels/shared", self.import_labels, methods=["POST"]),
            Route("/api/features/{layer:int}/{feature:int}", self.feature),
            Route("/features/{code:int}.json", self.feature_by_code),
            Route("/features/{relative:path}", self.feature_file),
        ]

    def has_features(self) -> bool:
        """Whether there is a folder of examples to answer from without naming a graph."""
        return self._default() is not None

    def graph_feature(self, request: Request) -> Response:
        """GET …/features/{layer}/{feature}: `record`, or `reason` and `hint` why there is none; `set` and `link`."""
        given = request.path_params
        answer = self._sources.answer(self._metadata(given["slug"]), given["layer"], given["feature"])
        return JSONResponse(answer, headers=_FRESH)

    def labels(self, request: Request) -> Response:
        """GET …/labels: labels of the graph's features by Cantor code; a person's come before those that files propose."""
        return JSONResponse({"labels": self.labels_of(request.path_params["slug"])}, headers=_FRESH)

    def labels_of(self, slug: str) -> dict[str, Any]:
        """The labels of a graph's features by Cantor code."""
        try:
            scan = self._scan(slug)
            folder = self._sources.folder(scan)
            shared = {} if self._shared is None else self._shared.of(scan)
            codes = self._feature_codes(slug) if folder is not None or shared else set()
        except MissingFile:
            if self._stage.trace is None or self._stage.trace.slug != slug:
                raise
            return {}
        labels: dict[str, Any] = {}
        here = set(map(str, codes))
        if folder is not None:
            labels = {str(code): label for code, label in folder.labels(map(uncantor, codes)).items()}
        labels |= {code: label for code, label in shared.items() if code in here}
        return labels

    def _feature_codes(self, slug: str) -> set[int]:
        partial = self._partial(slug)
        codes = self._codes(slug) if partial is None else None
        return feature_codes(partial or self._graphs.read(slug).content) if codes is None else codes

    def export_labels(self, request: Request) -> Response:
        """GET …/labels/shared: all labels of the graph's set, as a file."""
        slug = request.path_params["slug"]
        headers = {**_FRESH, "Content-Disposition": "attachment; filename=labels.json"}
        return JSONResponse(self._shared_labels().exported(self._scan(slug)), headers=headers)

    async def import_labels(self, request: Request) -> Response:
        """POST …/labels/shared: takes such a file into the set; with `?replace=1`, over what is here."""
        shared, document = self._shared_labels(), await json_body(request, self._max_body)
        scan = await run_in_threadpool(self._scan, request.path_params["slug"])
        replace = request.query_params.get("replace") == "1"
        taken, kept = await run_in_threadpool(shared.take_in, scan, document, replace=replace)
        return JSONResponse({"taken": taken, "kept": kept}, headers={"Cache-Control": "no-store"})

    def share(self, metadata: object, texts: Mapping[str, str | None]) -> None:
        """Labels that were just saved with a graph, for the others of its set. A failure here is only logged."""
        scan = metadata.get("scan") if isinstance(metadata, dict) else None
        if self._shared is None or not isinstance(scan, str) or not texts:
            return
        try:
            self._shared.change(scan, texts)
        except (CircuitTracerError, OSError) as error:
            _log.warning("the labels can't be shared with other graphs: %s", error)

    def feature(self, request: Request) -> Response:
        """GET /api/features/{layer}/{feature}: one feature's examples as JSON; 204 if there are none of it."""
        return self._record_reply(request.path_params["layer"], request.path_params["feature"])

    def feature_by_code(self, request: Request) -> Response:
        """GET /features/{code}.json: the same under its Cantor code, where graph files' `feature_json_base_url` leads."""
        return self._record_reply(*uncantor(request.path_params["code"]))

    def _record_reply(self, layer: int, feature: int) -> Response:
        record = self._folder().record(layer, feature)
        return (
            Response(status_code=204, headers=_FRESH)
            if record is None
            else JSONResponse(record, headers=_FRESH)
        )

    def feature_file(self, request: Request) -> Response:
        """GET /features/…: index and binary files as they are, with ranges."""
        path = contained(self._folder().root, request.path_params["relative"])
        return file_reply(request, path, "application/octet-stream")

    def _folder(self) -> FeatureFolder:
        found = self._default()
        if found is None:
            raise MissingFile("this server has no feature examples", "start it with --features-dir FOLDER")
        return found

    def _default(self) -> FeatureFolder | None:
        """The folder that was named, else that of the newest graph that has one."""
        chosen = self._sources.folder(None)
        if chosen is not None:
            return chosen
        scans = dict.fromkeys(str(graph.get("scan")) for graph in reversed(self._graphs.listing().graphs))
        return next((found for scan in scans if (found := self._sources.folder(scan))), None)

    def _shared_labels(self) -> SharedLabels:
        if self._shared is None:
            raise MissingFile("this server shares no labels", "circuit-tracer serve does")
        return self._shared

    def _scan(self, slug: str) -> str:
        return str(self._metadata(slug).get("scan", ""))

    def _metadata(self, slug: str) -> dict[str, Any]:
        partial = self._partial(slug)
        if partial is None:
            return self._graphs.metadata(slug)
        return dict(read_top_level(partial.decode(), frozenset(["metadata"])).values["metadata"])

    def _partial(self, slug: str) -> bytes | None:
        body = self._stage.graph_of(slug)
        return None if body is None else body.content
