"""A folder of graph files: which graphs there are, one graph's bytes, and saving annotations into it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import BadGraphFile, CircuitTracerError, InvalidValue
from circuit_tracer_cli.export.graph_json import encode_json
from circuit_tracer_cli.export.graph_list import locked_folder
from circuit_tracer_cli.export.splice import read_top_level, replace_value
from circuit_tracer_cli.server.atomic import replace_content
from circuit_tracer_cli.server.bodies import Body, BodyCache, body_of, etag_of, file_version
from circuit_tracer_cli.server.paths import METADATA_NAME, contained, graph_path

_REQUIRED = ("metadata", "nodes", "links")
_WHOLE_UP_TO = 8 << 20
_PARSED_UP_TO = 32 << 20
_HEAD = 1 << 20
_TAIL = 64


class StaleTag(Exception):
    """The graph has been saved by somebody else since the caller read it."""

    def __init__(self, current: str) -> None:
        super().__init__(current)
        self.current = current


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds: the metadata of every readable graph, and why the others aren't."""

    graphs: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Saved:
    """What a save found and made."""

    etag: str
    before: dict[str, Any]
    metadata: dict[str, Any]


class GraphFolder:
    """The graph files of one folder. Every method blocks on the disk: not for the event loop's thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._graphs = BodyCache()
        self._files = BodyCache()
        self._known: dict[Path, tuple[tuple[int, int], dict[str, Any] | BadGraphFile]] = {}
        self._views: dict[Path, tuple[tuple[int, ...], Body]] = {}
        self._locks: dict[Path, threading.Lock] = {}
        self._guard = threading.Lock()

    def listing(self) -> Listing:
        """All graphs, those of `graph-metadata.json` first and in its order, then the others by name.

        An entry of that list without a file is left out.
        """
        entries = self._entries()
        names = {path.stem: path for path in self._graph_files()}
        found = Listing()
        for slug in [*(slug for slug in entries if slug in names), *sorted(names.keys() - entries.keys())]:
            try:
                metadata = self._metadata(names[slug])
            except CircuitTracerError as error:
                found.errors.append({"slug": slug, "error": error.message})
                continue
            found.graphs.append({**entries.get(slug, {}), **metadata, "slug": slug})
        return found

    def read(self, slug: str) -> Body:
        """One graph's file. Raises InvalidValue, MissingFile, or BadGraphFile if it isn't a whole graph."""
        return self._graphs.read(graph_path(self.root, slug), _check_graph)

    def metadata(self, slug: str) -> dict[str, Any]:
        """What a graph's file says about it. Raises as `read`."""
        return self._metadata(graph_path(self.root, slug))

    def view(self, slug: str) -> Body:
        """What a graph's file says beside its nodes and links: `metadata` and `qParams`, with the file's entity tag.

        Costs a look at the file's date while it stays as it is. Raises as `read`.
        """
        path = graph_path(self.root, slug)
        version = file_version(path)
        known = self._views.get(path)
        if known is None or known[0] != version:
            body = self._graphs.read(path, _check_graph)
            values = read_top_level(_decode(body.content), frozenset(["metadata", "qParams"])).values
            content = {"metadata": values["metadata"], "qParams": _object(values.get("qParams"))}
            known = (version, Body(encode_json(content), body.etag))
            self._views[path] = known
        return known[1]

    def nodes(self, slug: str) -> Body:
        """All texts, numbers and truth values of every node, in the file's order. Raises as `read`."""
        body = self._graphs.read(graph_path(self.root, slug), _check_graph)
        nodes = read_top_level(_decode(body.content), frozenset(["nodes"])).values["nodes"]
        plain = [
            {key: value for key, value in _object(node).items() if isinstance(value, str | int | float)}
            for node in nodes
        ]
        return body_of(encode_json({"nodes": plain}))

    def read_file(self, relative: str) -> Body:
        """Any file of the folder, as it is. Raises MissingFile."""
        return self._files.read(contained(self.root, relative))

    def save(self, slug: str, annotations: dict[str, Any], accepts: Callable[[str], bool]) -> Saved:
        """Exchanges the graph's `qParams`, leaving every other byte of its file as it is.

        Args:
            slug: Which graph.
            annotations: The new `qParams`.
            accepts: Whether the file's present entity tag is the one that the caller meant.

        Returns:
            The new entity tag, the `qParams` that were there, and the graph's metadata.

        Raises:
            StaleTag: `accepts` said no.
            OutputError: The file can't be written.
        """
        path = graph_path(self.root, slug)
        with self._lock(path), locked_folder(path.parent):
            content = path.read_bytes()
            present = etag_of(content)
            if not accepts(present):
                raise StaleTag(present)
            text = _decode(content)
            value = json.dumps(annotations, ensure_ascii=False, allow_nan=False)
            top = read_top_level(text, frozenset(["metadata", "qParams"]))
            new = _encode(replace_value(text, top, "qParams", value))
            if new != content:
                replace_content(path, new)
        return Saved(etag_of(new), _object(top.values.get("qParams")), _object(top.values.get("metadata")))

    def _lock(self, path: Path) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(path, threading.Lock())

    def _graph_files(self) -> list[Path]:
        """By the folder's own names, so that a linked file keeps its slug; links leading out are skipped."""
        return [path for path in self.root.glob("*.json") if self._is_graph_file(path)]

    def _is_graph_file(self, path: Path) -> bool:
        if path.name == METADATA_NAME:
            return False
        try:
            contained(self.root, path.name)
        except CircuitTracerError:
            return False
        return True

    def _entries(self) -> dict[str, dict[str, Any]]:
        """`graph-metadata.json` by slug; empty if it is missing or broken, since the graphs say the same."""
        try:
            listed = json.loads((self.root / METADATA_NAME).read_bytes())["graphs"]
            return {entry["slug"]: entry for entry in listed if isinstance(entry["slug"], str)}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}

    def _metadata(self, path: Path) -> dict[str, Any]:
        try:
            status = path.stat()
        except OSError as error:
            raise BadGraphFile(f"{path.name} can't be read: {error.strerror}") from error
        version = (status.st_mtime_ns, status.st_size)
        known = self._known.get(path)
        if known is None or known[0] != version:
            known = (version, _read_metadata(path, status.st_size))
            self._known[path] = known
        if isinstance(known[1], BadGraphFile):
            raise known[1]
        return known[1]


def _read_metadata(path: Path, size: int) -> dict[str, Any] | BadGraphFile:
    """The metadata, from the whole file if it is small, else from its beginning and the look of its end."""
    try:
        if size <= _WHOLE_UP_TO:
            return _graph_metadata(path.read_bytes())
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(max(0, size - _TAIL))
            return _metadata_at_a_glance(head, file.read())
    except BadGraphFile as error:
        return BadGraphFile(f"{path.name}: {error.message}", error.hint)
    except OSError as error:
        return BadGraphFile(f"{path.name} can't be read: {error.strerror}")


def _graph_metadata(content: bytes) -> dict[str, Any]:
    values = read_top_level(_decode(content)).values
    missing = [key for key in _REQUIRED if key not in values]
    if missing:
        raise BadGraphFile(f"not a graph file: {', '.join(missing)} missing")
    if not isinstance(values["nodes"], list) or not isinstance(values["links"], list):
        raise BadGraphFile("not a graph file: nodes and links must be arrays")
    return _as_metadata(values["metadata"])


def _metadata_at_a_glance(head: bytes, tail: bytes) -> dict[str, Any]:
    """The metadata of a file too large to be parsed for it. The metadata must stand within its first bytes."""
    if not tail.rstrip().endswith(b"}"):
        raise BadGraphFile("not valid JSON: the end is missing")
    text = head.decode("utf-8", "ignore")
    return _as_metadata(read_top_level(text, frozenset(["metadata"])).values["metadata"])


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _as_metadata(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadGraphFile("not a graph file: metadata must be an object")
    return value


def _check_graph(content: bytes) -> None:
    """Raises BadGraphFile. Parsing takes ten times a file's size in memory, so that a large one is only glanced at."""
    if len(content) <= _PARSED_UP_TO:
        _graph_metadata(content)
    else:
        _metadata_at_a_glance(content[:_HEAD], content[-_TAIL:])


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadGraphFile("not a graph file: not UTF-8") from error


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidValue("the annotations hold half a character (a lone surrogate)") from error
