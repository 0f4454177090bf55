"""Writers of graphs for other programs. The table says which there are; each is one file with one function."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from circuit_tracer_cli.errors import UsageError

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph

FORMATS: dict[str, str] = {
    "json": "circuit_tracer_cli.export.viewer:export",
    "html": "circuit_tracer_cli.export.html:export",
    "graphml": "circuit_tracer_cli.export.graphml:export",
    "csv": "circuit_tracer_cli.export.csv:export",
}
"""Format name to `module:function`."""


class Exporter(Protocol):
    """Writes a graph, pruned first if it isn't yet, and says which files it wrote."""

    def __call__(
        self,
        graph: Graph,
        *,
        slug: str,
        directory: Path,
        scan: str | list[str] | None = None,
        node_threshold: float | None = None,
        edge_threshold: float | None = None,
        features_dir: Path | None = None,
    ) -> list[Path]:
        """Thresholds left out are the graph's own, else the defaults of pruning; `features_dir` holds feature examples.

        Raises UsageError, OutputError.
        """


def exporter(name: str) -> Exporter:
    """The writer of a format, imported now. Raises UsageError for a name that isn't in the table."""
    if name not in FORMATS:
        raise UsageError(f"unknown export format {name!r}", f"choose one of: {', '.join(FORMATS)}")
    module, function = FORMATS[name].split(":")
    return cast(Exporter, getattr(importlib.import_module(module), function))
