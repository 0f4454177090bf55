"""Write a validation report into the metadata of a viewer file, leaving every other byte unchanged."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import BadGraphFile, MissingFile, OutputError
from circuit_tracer_cli.export.graph_json import encode_json
from circuit_tracer_cli.export.graph_list import locked_folder
from circuit_tracer_cli.export.records import FEATURE_TYPE
from circuit_tracer_cli.export.splice import TopLevel, read_top_level, replace_value
from circuit_tracer_cli.files.atomic import write_bytes
from circuit_tracer_cli.graph.graph import Graph

REPORT = "validation"
"""The key of the report in the metadata of a graph and of its files."""


def report_of(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """The report in a graph's metadata, if it is valid."""
    report = metadata.get(REPORT)
    return report if isinstance(report, dict) and isinstance(report.get("checks"), list) else None


def check_report_file(path: Path, graph: Graph) -> None:
    """Check a file before the long work.

    Raises:
        MissingFile, BadGraphFile: It doesn't exist, isn't a graph file, or is of another graph.
        OutputError: It is read-only.
    """
    values = _read(path)[1].values
    shown = {
        str(node.get("node_id"))
        for node in values["nodes"]
        if isinstance(node, dict) and node.get("feature_type") == FEATURE_TYPE
    }
    strange = shown - set(graph.node_ids())
    if strange or values["metadata"].get("prompt") != graph.input_string:
        what = (
            f"{len(strange)} of {len(shown)} features that aren't in the graph"
            if strange
            else "another prompt"
        )
        raise BadGraphFile(
            f"{path} isn't a file of the validated graph: it has {what}",
            "export this graph first: circuit-tracer export GRAPH --slug NAME",
        )
    if not os.access(path, os.W_OK):
        raise OutputError(f"{path} is read-only", "make the file writable")


def save_report(path: Path, report: Mapping[str, Any]) -> None:
    """Put a report into a graph file atomically, without losing what a viewer saves meanwhile. Raises as `check_report_file`."""
    with locked_folder(path.parent):
        text, top = _read(path)
        start, stop = top.spans["metadata"]
        metadata = text[start:stop]
        value = encode_json(report).decode()
        new = replace_value(metadata, read_top_level(metadata), REPORT, value)
        write_bytes(path, (text[:start] + new + text[stop:]).encode())


def _read(path: Path) -> tuple[str, TopLevel]:
    """The file's text, and its members up to the nodes."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise MissingFile(
            f"graph file {path} can't be read: {(error.strerror or str(error)).lower()}",
            "write it first: circuit-tracer export GRAPH --slug NAME",
        ) from error
    except UnicodeDecodeError as error:
        raise BadGraphFile(f"{path} isn't a graph file: not UTF-8") from error
    try:
        top = read_top_level(text, frozenset(["metadata", "nodes"]))
    except BadGraphFile as error:
        raise BadGraphFile(f"{path}: {error.message}", error.hint) from error
    if not isinstance(top.values.get("metadata"), dict) or not isinstance(top.values.get("nodes"), list):
        raise BadGraphFile(f"{path} isn't a viewer file", "`circuit-tracer export` writes those")
    return text, top
