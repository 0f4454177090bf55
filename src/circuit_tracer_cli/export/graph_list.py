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
from circuit_tracer_cli.export.splice import read_top_level
from circuit_tracer_cli.files.atomic import write_bytes
from circuit_tracer_cli.files.locks import locked_file

LIST_NAME = "graph-metadata.json"
_HEAD = 1 << 20


@contextlib.contextmanager
def locked_folder(directory: Path) -> Iterator[None]:
    """Wait until no other process changes the folder's list. Raises OutputError.

    The lock is on a separate file, which stays: if it were removed, two processes could lock different files of that name.
    """
    with locked_file(directory / f".{LIST_NAME}.lock"):
        yield


def read_graph_list(directory: Path) -> list[dict[str, Any]]:
    """The entries of the folder's list; empty if there is no list. Raises BadGraphFile for a damaged one."""
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
    """Append a graph to the list, replacing an entry with the same slug; the caller holds the lock."""
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


def refresh_graph_list(directory: Path) -> None:
    """Bring the list up to date with the folder's graph files, for writers of many that don't list each one by itself.

    Only files that the list lacks, or that are newer than it, are looked at, and of those only the beginning. What isn't a graph
    file is passed over, and a list that is damaged is made again. Raises OutputError.
    """
    with locked_folder(directory):
        path = directory / LIST_NAME
        try:
            entries = {str(entry.get("slug")): entry for entry in read_graph_list(directory)}
            since = path.stat().st_mtime_ns
        except (BadGraphFile, FileNotFoundError):
            entries, since = {}, 0
        found = [(one.stat().st_mtime_ns, one) for one in directory.glob("*.json") if one.name != LIST_NAME]
        changed = False
        for time, one in sorted(found):
            if one.stem in entries and time < since:
                continue
            entry = metadata_in(one)
            if entry is not None and entries.get(one.stem) != entry:
                entries[one.stem] = entry
                changed = True
        if changed:
            write_bytes(path, encode_json({"graphs": list(entries.values())}))


def metadata_in(path: Path) -> dict[str, Any] | None:
    """The metadata that a graph file begins with; None for a file that doesn't, or that has another name in it."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD).decode("utf-8-sig", "ignore")
        metadata = read_top_level(head, frozenset(["metadata"])).values["metadata"]
    except (OSError, BadGraphFile, KeyError):
        return None
    return metadata if isinstance(metadata, dict) and metadata.get("slug") == path.stem else None
