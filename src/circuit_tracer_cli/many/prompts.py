"""The list of prompts of a batch: the prompt, group and template of each graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import BadGraphFile, MissingFile, UnsuitableValue
from circuit_tracer_cli.files.inputs import read_file

LIST_NAME = "batch.jsonl"
SETTINGS_NAME = "batch.json"
GRAPH = "graph"
"""Key of a line of the list: the name of the graph's object."""


def read_lines(root: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the graph name and record of each prompt; empty for a folder that isn't a batch's. Raises BadGraphFile."""
    path = root / LIST_NAME
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(read_file(path).decode("utf-8", "replace").split("\n"), 1):
        if not line:
            continue
        try:
            record = json.loads(line)
            found.append((str(record.pop(GRAPH)), record))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadGraphFile(f"line {number} of {path} isn't a prompt's record") from error
    return found


def listed_prompts(root: Path) -> dict[str, dict[str, Any]]:
    """Return the batch's record of each graph's prompt, by graph name; the first of equal prompts. Raises BadGraphFile."""
    return dict(reversed(read_lines(root)))


def object_of(folder: Path, slug: str) -> Path | None:
    """Return the raw graph that a batch has kept of a graph in its folder `graphs`; None where there is none."""
    root = folder.parent
    if folder.name != "graphs" or not (root / SETTINGS_NAME).exists():
        return None
    keys = [key for key, record in read_lines(root) if record.get("slug") == slug]
    held = [root / "objects" / key[:2] / f"{key}.safetensors" for key in keys]
    return next((path for path in held if path.is_file()), None)


def slug_of(root: Path, name: str) -> str | None:
    """Return the slug of a batch's graph by its name in the tables, or by the slug itself; None for neither."""
    for key, record in read_lines(root):
        if name in (key, record.get("slug")):
            return str(record["slug"])
    return None


def groups_of(root: Path, column: str) -> dict[str, str]:
    """Return the group of each graph by a column of the prompts. Raises MissingFile, UnsuitableValue."""
    listed = listed_prompts(root)
    if not listed:
        raise MissingFile(
            f"{root} has no {LIST_NAME}, so its graphs have no columns", "make them with circuit-tracer batch"
        )
    groups = {name: str(record[column]) for name, record in listed.items() if record.get(column) is not None}
    if len(set(groups.values())) != 2:
        known = sorted({name for record in listed.values() for name in record})
        raise UnsuitableValue(
            f"the column {column!r} gives {len(set(groups.values()))} groups instead of two",
            f"the columns are {', '.join(known)}",
        )
    return groups
