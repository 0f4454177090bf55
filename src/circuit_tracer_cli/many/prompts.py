"""What a batch's folder says about its prompts: one line of JSON per graph in `batch.jsonl`, the user's own columns among it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import BadGraphFile, InvalidValue, MissingFile
from circuit_tracer_cli.files.inputs import read_file

LIST_NAME = "batch.jsonl"
GRAPH = "graph"
"""Key of a line: the name of the graph's file without its suffix."""


def listed_prompts(folder: Path) -> dict[str, dict[str, Any]]:
    """By graph name what the batch knows of its prompt; empty for a folder that no batch made. Raises BadGraphFile."""
    path = folder / LIST_NAME
    if not path.exists():
        return {}
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(read_file(path).decode("utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            found[str(record[GRAPH])] = {name: value for name, value in record.items() if name != GRAPH}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadGraphFile(f"line {number} of {path} isn't a prompt's record") from error
    return found


def groups_of(folder: Path, column: str) -> dict[str, str]:
    """The group of each graph by a column of the prompts. Raises MissingFile, InvalidValue."""
    listed = listed_prompts(folder)
    if not listed:
        raise MissingFile(
            f"{folder} has no {LIST_NAME}, so its graphs have no columns",
            "make them with circuit-tracer batch",
        )
    groups = {name: str(record[column]) for name, record in listed.items() if record.get(column) is not None}
    if not groups:
        known = sorted({name for record in listed.values() for name in record})
        raise InvalidValue(f"no prompt has a column {column!r}", f"the columns are {', '.join(known)}")
    if len(set(groups.values())) != 2:
        raise InvalidValue(
            f"the column {column!r} makes {len(set(groups.values()))} groups, but two are compared",
            "choose a column with two values",
        )
    return groups
