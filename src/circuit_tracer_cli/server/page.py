"""The route for a graph as one HTML page: the exporter's page of a graph file, with its current annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from circuit_tracer_cli.errors import BadGraphFile
from circuit_tracer_cli.export.html import carried, most_records, page
from circuit_tracer_cli.export.records import cantor_decode
from circuit_tracer_cli.server.features import FeatureSources
from circuit_tracer_cli.server.graphs import GraphFolder, is_feature
from circuit_tracer_cli.server.labels import LabelRoutes
from circuit_tracer_cli.server.replies import NO_STORE


class PageRoutes:
    """The endpoint.

    Args:
        graphs: The graph files.
        static_dir: The viewer's files, which are embedded in the page.
        sources: The examples of a graph's features; local ones are embedded in the page.
        labels: The labels of a graph's features.
    """

    def __init__(
        self, graphs: GraphFolder, static_dir: Path, sources: FeatureSources, labels: LabelRoutes
    ) -> None:
        self._graphs, self._static_dir, self._sources, self._labels = graphs, static_dir, sources, labels

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
            raise BadGraphFile(f"{slug}.json isn't valid JSON: {error}", "export the graph again") from None
        metadata = graph["metadata"]
        folder = self._sources.folder(metadata.get("scan"))
        shown = {code: cantor_decode(code) for code in _codes_by_influence(graph["nodes"])}
        records = None if folder is None else most_records(shown, folder.record)
        content = carried(document, records, self._labels.labels_of(slug))
        return Response(
            b"".join(page(self._static_dir, str(metadata.get("prompt") or slug), content)),
            media_type="text/html",
            headers={
                "Content-Disposition": f"attachment; filename*=UTF-8''{quote(slug, safe='')}.html",
                **NO_STORE,
            },
        )


def _codes_by_influence(nodes: list[Any]) -> list[int]:
    """The codes of the features of a graph file, most influential first."""

    def rank(node: dict[str, Any]) -> float:
        influence = node.get("influence")
        return influence if isinstance(influence, int | float) else 2.0

    found = [node for node in nodes if is_feature(node) and isinstance(node.get("feature"), int)]
    return [node["feature"] for node in sorted(found, key=rank) if node["feature"] >= 0]
