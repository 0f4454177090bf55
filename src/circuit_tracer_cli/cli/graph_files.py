"""The files that `attribute` writes: the raw graph, graph files for the viewer, or both. Decided before the work begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from circuit_tracer_cli.cli.destinations import (
    STREAM,
    check_directory,
    check_graph_destination,
    write_graph,
)
from circuit_tracer_cli.cli.options import DEFAULT_DIRECTORY
from circuit_tracer_cli.errors import UsageError
from circuit_tracer_cli.export.slugs import check_slug, invent_slug

if TYPE_CHECKING:
    from circuit_tracer_cli.export.records import QParams
    from circuit_tracer_cli.graph.graph import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFiles:
    """The files that a call writes.

    Args:
        graph_path: The raw graph; "-" is stdout.
        slug, directory: The graph files for the viewer; none are written without both.
        node_threshold, edge_threshold: Their pruning; None is the default.
    """

    graph_path: str | None = None
    slug: str | None = None
    directory: str | None = None
    node_threshold: float | None = None
    edge_threshold: float | None = None

    def completed(self, prompt: str, *, server: bool) -> GraphFiles:
        """Return a copy with missing values filled in: a slug made from the prompt, the default folder.

        Raises UsageError when no output is named.
        """
        if server or self.slug is not None or self.directory is not None:
            slug = invent_slug(prompt) if self.slug is None else self.slug
            directory = DEFAULT_DIRECTORY if self.directory is None else self.directory
            return replace(self, slug=slug, directory=directory)
        if self.graph_path is None:
            raise UsageError("no output is named", "add -o graph.safetensors, --slug NAME or --server")
        return self

    def check(self) -> None:
        """Refuse outputs that can't be written. Raises UsageError, OutputError."""
        if self.slug is not None:
            check_slug(self.slug)
        check_graph_destination(self.graph_path)
        if self.directory is not None:
            check_directory(self.directory)

    def make_directory(self) -> None:
        """Make the folder for the viewer's files, if there are any. Raises OutputError."""
        if self.directory is not None:
            from circuit_tracer_cli.export.viewer import make_folder

            make_folder(Path(self.directory))

    def write(self, graph: Graph, annotations: QParams | None = None) -> list[Path]:
        """Write the files; the viewer's gets `annotations` unless it has some. Return paths but stdout. Raises OutputError."""
        self.make_directory()
        written = []
        if self.graph_path is not None:
            write_graph(graph, self.graph_path)
            if self.graph_path != STREAM:
                written.append(Path(self.graph_path))
        if self.slug is not None and self.directory is not None:
            from circuit_tracer_cli.export import Destination
            from circuit_tracer_cli.export.viewer import export
            from circuit_tracer_cli.graph.prune import pruned_graph

            pruned = pruned_graph(graph, self.node_threshold, self.edge_threshold)
            written += export(pruned, Destination(self.slug, Path(self.directory)), annotations=annotations)
        return written
