"""From a path in a URL to a file inside one folder, and never to a file outside it."""

from __future__ import annotations

from pathlib import Path

from circuit_tracer_cli.errors import InvalidValue, MissingFile

METADATA_NAME = "graph-metadata.json"
_LIST_HINT = "GET /api/graphs lists the graphs of this server"
_FORBIDDEN_CHARACTERS = frozenset("\\\0")


def contained(root: Path, relative: str) -> Path:
    """The real path of the file `relative` below `root`.

    Args:
        root: A folder; symbolic links that lead out of it are refused.
        relative: Segments joined by `/`, percent-decoded already.

    Raises:
        MissingFile: There is no such file, or it isn't this folder's to give away.
    """
    segments = relative.split("/")
    if any(not part or part.startswith(".") or _FORBIDDEN_CHARACTERS & set(part) for part in segments):
        raise _missing(relative)
    real_root = root.resolve()
    try:
        path = real_root.joinpath(*segments).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise _missing(relative) from error
    if not path.is_relative_to(real_root) or not path.is_file():
        raise _missing(relative)
    return path


def check_slug(slug: str) -> str:
    """The slug itself, if a graph file may have that name. Raises InvalidValue."""
    bad = not slug or slug.startswith(".") or "/" in slug or _FORBIDDEN_CHARACTERS & set(slug)
    if bad or f"{slug}.json" == METADATA_NAME:
        raise InvalidValue(f"{slug!r} can't be the name of a graph", _LIST_HINT)
    return slug


def graph_path(root: Path, slug: str) -> Path:
    """The file of one graph. Raises InvalidValue for an impossible slug, MissingFile if there is none."""
    try:
        return contained(root, f"{check_slug(slug)}.json")
    except MissingFile as error:
        raise MissingFile(f"there is no graph {slug!r}", _LIST_HINT) from error


def _missing(relative: str) -> MissingFile:
    return MissingFile(f"there is no file {relative!r}")
