"""The route that hands over a graph as one HTML page: the exporter's page of a graph file, with the annotations as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from circuit_tracer_cli.errors import BadGraphFile
from circuit_tracer_cli.export.html_page import carried, most_records, page
from circuit_tracer_cli.server.features import FeatureFolder, feature_node_codes, uncantor
from circuit_tracer_cli.server.graphs import GraphFolder


class PageRoutes:
    """The endpoint.

    Args:
        graphs: Where graph files are.
        static_dir: The viewer's files, which become part of the page.
        folder: The examples of a graph's set on this machine, or None.
        labels: The labels of a graph's features by Cantor code.
    """

    def __init__(
        self,
        graphs: GraphFolder,
        static_dir: Path,
        folder: Callable[[object], FeatureFolder | None],
        labels: Callable[[str], dict[str, Any]],
    ) -> None:
        self._graphs, self._static_dir, self._folder, self._labels = graphs, static_dir, folder, labels

    def table(self) -> list[Route]:
        """All routes."""
        return [Route("/api/graphs/{slug}/page", self.download)]

    def download(self, request: Request) -> Response:
        """GET /api/graphs/{slug}/page: one HTML file with viewer, graph, annotations and examples."""
        slug = request.path_params["slug"]
        document = self._graphs.read(slug).content.removeprefix(b"\xef\xbb\xbf")
        try:
            graph = json.loads(document)
        except ValueError as error:
            raise BadGraphFile(f"{slug}.json isn't JSON: {error}", "write it again") from None
        metadata = graph["metadata"]
        folder = self._folder(metadata.get("scan"))
        shown = {code: uncantor(code) for code in feature_node_codes(graph["nodes"])}
        records = None if folder is None else most_records(shown, folder.record)
        content = carried(document, records, self._labels(slug))
        title = str(metadata.get("prompt") or slug)
        return Response(
            b"".join(page(self._static_dir, title, content)),
            media_type="text/html",
            headers={
                "Content-Disposition": f"attachment; filename*=UTF-8''{quote(slug, safe='')}.html",
                "Cache-Control": "no-store",
            },
        )
