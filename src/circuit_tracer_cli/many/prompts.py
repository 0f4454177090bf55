"""The list of prompts that a batch leaves beside its graphs: which graph is of which prompt, group and template."""

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
    """Return the graph name and record of each prompt; none for a folder that no batch made. Raises BadGraphFile."""
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
    """Return what a batch knows of each graph's prompt, by graph name; of equal prompts the first. Raises BadGraphFile."""
    return dict(reversed(read_lines(root)))


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
            f"the column {column!r} makes {len(set(groups.values()))} groups, but two are compared",
            f"the columns are {', '.join(known)}",
        )
    return groups
