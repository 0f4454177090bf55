"""`graph-metadata.json`: the list of the graph files in a folder, changed by one process at a time. Imports no torch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import BadGraphFile
from circuit_tracer_cli.export.graph_json import encode_json
from circuit_tracer_cli.export.records import Metadata, to_values
from circuit_tracer_cli.files.atomic import write_bytes
from circuit_tracer_cli.files.locks import locked_file

LIST_NAME = "graph-metadata.json"


@contextlib.contextmanager
def locked_folder(directory: Path) -> Iterator[None]:
    """Waits until no other process changes the folder's list. Raises OutputError.

    The lock lies on a file of its own, which stays: removing it would let two processes hold different files of that name.
    """
    with locked_file(directory / f".{LIST_NAME}.lock"):
        yield


def read_graph_list(directory: Path) -> list[dict[str, Any]]:
    """The entries of the folder's list; none where there is no list. Raises BadGraphFile for a damaged one."""
    path = directory / LIST_NAME
    try:
        entries = json.loads(path.read_bytes())["graphs"]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadGraphFile(f"{path} is damaged", "delete it and export the graphs again") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadGraphFile(f"{path} is damaged", "delete it and export the graphs again")
    return entries


def add_to_graph_list(directory: Path, metadata: Metadata) -> Path:
    """Puts a graph at the end of the list in place of an entry of the same slug; the caller holds the lock."""
    entries = [entry for entry in read_graph_list(directory) if entry.get("slug") != metadata.slug]
    entries.append(to_values(metadata))
    write_bytes(directory / LIST_NAME, encode_json({"graphs": entries}))
    return directory / LIST_NAME


def remove_from_graph_list(directory: Path, slug: str) -> None:
    """Take a graph out of the list, if it's there; the caller holds the lock."""
    entries = read_graph_list(directory)
    kept = [entry for entry in entries if entry.get("slug") != slug]
    if kept != entries:
        write_bytes(directory / LIST_NAME, encode_json({"graphs": kept}))
