"""What people added to a graph file, when the file is written again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import BadGraphFile
from circuit_tracer_cli.export.graph_json import read_view
from circuit_tracer_cli.export.records import Metadata, QParams
from circuit_tracer_cli.files.atomic import atomic_writer, output_error


def older_view(path: Path, prompt: str, scan: str) -> tuple[Metadata, QParams] | None:
    """Metadata and annotations of a graph file; None if there is no file, or it has another prompt or transcoders."""
    found = _read(path)
    return found if found is not None and (found[0].prompt, found[0].scan) == (prompt, scan) else None


def fitting(old: QParams, node_ids: set[str]) -> QParams:
    """Annotations without missing nodes."""
    pinned = [name for name in old.pinnedIds if name in node_ids]
    supernodes = [[label, *(n for n in ids if n in node_ids)] for label, *ids in old.supernodes]
    unchanged = pinned == old.pinnedIds and supernodes == old.supernodes
    return QParams(
        pinnedIds=pinned,
        supernodes=[group for group in supernodes if len(group) > 1],
        linkType=old.linkType,
        clickedId=old.clickedId if old.clickedId in node_ids else "",
        sg_pos=old.sg_pos if unchanged else "",  # positions are listed in the order of the pinned nodes
        extra=old.extra,
    )


def keep_aside(path: Path, coming: QParams) -> Path | None:
    """Keep a copy of a graph file if its replacement lacks some of its annotations.

    Returns:
        The copy, `{name}.bak` or the first such name that is free; None if nothing would be lost.

    Raises:
        OutputError: The copy can't be written.
    """
    found = _read(path)
    if found is None or _worth(found[1]) <= _worth(coming):
        return None
    copy = next(name for name in _names(path) if not name.exists())
    try:
        with path.open("rb") as source, atomic_writer(copy) as target:
            shutil.copyfileobj(source, target)
    except OSError as error:
        raise output_error(copy, error) from error
    return copy


def is_aside(path: Path) -> bool:
    """True if a written path is such a copy."""
    return re.fullmatch(r"\.bak\d*", path.suffix) is not None


def aside_note(path: Path) -> str:
    """Return the note on a replaced file whose annotations don't fit the new one."""
    return f"the previous file had annotations that don't fit this graph; it is kept as {path}"


def _names(path: Path) -> Iterator[Path]:
    yield path.with_name(f"{path.name}.bak")
    yield from (path.with_name(f"{path.name}.bak{number}") for number in count(2))


def _read(path: Path) -> tuple[Metadata, QParams] | None:
    try:
        with path.open("rb") as stream:
            return read_view(stream)
    except (OSError, BadGraphFile):
        return None


def _worth(annotations: QParams) -> set[str]:
    """Each pin, group member, label and note in a comparable form."""
    groups = {f"{label}\0{name}" for label, *names in annotations.supernodes for name in names}
    written = {key: annotations.extra.get(key) for key in ("clerps", "notes")}
    return {*annotations.pinnedIds, *groups, *_texts(written)}


def _texts(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _texts(part, f"{path}\0{key}")
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, path)
    elif value not in (None, "", False):
        yield f"{path}\0{value}"
