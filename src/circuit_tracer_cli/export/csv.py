"""Two tables for spreadsheets, pandas and R: the nodes and the edges."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from circuit_tracer_cli.export import Destination
from circuit_tracer_cli.export.records import STABILITY
from circuit_tracer_cli.export.slugs import check_slug
from circuit_tracer_cli.export.viewer import links_of, make_folder
from circuit_tracer_cli.files.atomic import atomic_writer
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.nodes import NodeView, iter_nodes


def export(pruned: Graph, to: Destination) -> list[Path]:
    """Write `{slug}-nodes.csv` and `{slug}-edges.csv`; the edges name nodes by the ids of the JSON file."""
    check_slug(to.slug)
    folder = make_folder(to.directory)
    columns = [f.name for f in dataclasses.fields(NodeView) if f.name != "index"]
    nodes = ([_text(getattr(node, name)) for name in columns] for node in iter_nodes(pruned))
    edges = (
        [link.source, link.target, repr(link.weight), _text(link.extra.get(STABILITY))]
        for link in links_of(pruned)
    )
    return [
        _write(folder / f"{to.slug}-nodes.csv", columns, nodes),
        _write(folder / f"{to.slug}-edges.csv", ["source", "target", "weight", STABILITY], edges),
    ]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _write(path: Path, columns: list[str], rows: Iterable[list[str]]) -> Path:
    with atomic_writer(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", errors="replace", newline="", write_through=True)
        writer = csv.writer(text)
        writer.writerow(columns)
        writer.writerows(rows)
        text.detach()
    return path
