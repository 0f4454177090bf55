"""Writers of graphs for other programs. The table lists them; each is one file with one function."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to write a graph.

    Args:
        slug: Name of the files.
        directory: The folder; made if missing.
        features_dir: Feature examples, for formats that include them.
    """

    slug: str
    directory: Path
    features_dir: Path | None = None


class Exporter(Protocol):
    """Write a pruned graph and return the files written. Raises UsageError, OutputError."""

    def __call__(self, pruned: Graph, to: Destination) -> list[Path]: ...


def exporter(name: str) -> Exporter:
    """Return the writer of a format, imported now. Raises UsageError for a name that isn't in the table."""
    if name not in FORMATS:
        raise UsageError(f"unknown export format {name!r}", f"choose one of: {', '.join(FORMATS)}")
    module, function = FORMATS[name].split(":")
    return cast(Exporter, getattr(importlib.import_module(module), function))
