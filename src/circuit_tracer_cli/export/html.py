"""One page that opens from disk with everything in it: viewer, graph, and the examples of the features shown."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import MissingFile
from circuit_tracer_cli.export.graph_json import write_graph_json
from circuit_tracer_cli.export.html_page import carried, most_records, page
from circuit_tracer_cli.export.records import FEATURE_TYPE, Node
from circuit_tracer_cli.export.slugs import check_slug
from circuit_tracer_cli.export.viewer import graph_parts, make_folder
from circuit_tracer_cli.features.pack import INDEX
from circuit_tracer_cli.features.read import FeatureFiles
from circuit_tracer_cli.files.atomic import atomic_writer
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.viewer_files import static_folder


def export(
    graph: Graph,
    *,
    slug: str,
    directory: Path,
    scan: str | list[str] | None = None,
    node_threshold: float | None = None,
    edge_threshold: float | None = None,
    features_dir: Path | None = None,
) -> list[Path]:
    """Writes `{slug}.html`, with the annotations of the `{slug}.json` beside it.

    Args:
        features_dir: Folder of feature examples; without one the page shows no examples.

    Raises:
        UsageError: As for the JSON file.
        OutputError: The folder can't be written to.
        MissingFile: `features_dir` holds no examples, or the viewer isn't installed.
    """
    check_slug(slug)
    parts = graph_parts(graph, slug, scan, node_threshold, edge_threshold)
    document = io.BytesIO()
    write_graph_json(
        document,
        parts.metadata,
        parts.kept_annotations(directory / f"{slug}.json"),
        parts.nodes,
        parts.links(),
    )
    features, labels = _examples(parts.nodes, features_dir)
    content = carried(document.getvalue(), features, labels)
    target = make_folder(directory) / f"{slug}.html"
    with atomic_writer(target) as stream:
        for piece in page(static_folder(), parts.metadata.prompt, content):
            stream.write(piece)
    return [target]


def _examples(
    nodes: list[Node], features_dir: Path | None
) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
    """Records and proposed labels of the features among the nodes by Cantor code; None for no examples at all."""
    if features_dir is None:
        return None, {}
    if not (features_dir / INDEX).is_file():
        raise MissingFile(
            f"{features_dir} holds no feature examples (no {INDEX})",
            hint="make them with circuit-tracer features build, or leave --features-dir away",
        )
    files = FeatureFiles(features_dir)
    shown = {
        node.feature: (int(node.layer), int(node.node_id.split("_")[1]))
        for node in sorted(nodes, key=lambda node: node.influence if node.influence is not None else 2.0)
        if node.feature_type == FEATURE_TYPE and node.feature is not None
    }
    labels = {str(code): label for code, place in shown.items() if (label := files.label(*place)) is not None}
    return most_records(shown, files.feature), labels
