"""A folder of graph files: listing and reading graphs, saving annotations, and the routes for that."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from circuit_tracer_cli.errors import BadGraphFile, CircuitTracerError, InvalidValue, MissingFile, OutputError
from circuit_tracer_cli.export.compact import current_form, features_in
from circuit_tracer_cli.export.graph_json import encode_json, proper_json
from circuit_tracer_cli.export.graph_list import LIST_NAME, locked_folder
from circuit_tracer_cli.export.splice import read_top_level, replace_value
from circuit_tracer_cli.files.atomic import write_bytes
from circuit_tracer_cli.server.annotations import check_annotations, from_reference
from circuit_tracer_cli.server.bodies import json_body
from circuit_tracer_cli.server.replies import (
    NO_STORE,
    Body,
    BodyCache,
    body_of,
    body_reply,
    contained,
    etag_of,
    file_reply,
    file_version,
    json_error,
    matches_strongly,
    media_type,
)

_REQUIRED = ("metadata", "nodes", "links")
_WHOLE_UP_TO = 8 << 20
_PARSED_UP_TO = 32 << 20
_HEAD = 1 << 20
_TAIL = 64
_MEMORY_SUFFIXES = frozenset({".json", ".csv", ".graphml", ".html"})
LIST_HINT = "GET /api/graphs lists the graphs of this server"


def check_slug(slug: str) -> str:
    """Return the slug, if a graph file may have that name. Raises InvalidValue."""
    bad = not slug or slug.startswith(".") or "/" in slug or "\\" in slug or "\0" in slug
    if bad or f"{slug}.json" == LIST_NAME:
        raise InvalidValue(f"{slug[:200]!r} can't be the name of a graph", LIST_HINT)
    return slug


def graph_path(root: Path, slug: str) -> Path:
    """Return the file of one graph. Raises InvalidValue for an impossible slug, MissingFile if there is none."""
    try:
        return contained(root, f"{check_slug(slug)}.json")
    except MissingFile as error:
        raise MissingFile(f"there is no graph {slug[:200]!r}", LIST_HINT) from error


class StaleTag(Exception):
    """Raised if the graph was saved by someone else since the caller read it."""

    def __init__(self, current: str) -> None:
        super().__init__(current)
        self.current = current


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder's content: the metadata of every readable graph, and what is wrong with the others."""

    graphs: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Saved:
    """The result of a save."""

    etag: str
    before: dict[str, Any]
    metadata: dict[str, Any]


class GraphFolder:
    """The graph files of one folder. Every method blocks on disk access: don't call it from the event loop.

    Args:
        root: The folder.
        spare: Folder for compact forms if the folder is read-only.
    """

    def __init__(self, root: Path, spare: Path) -> None:
        self.root, self._spare = root, spare
        self._graphs = BodyCache()
        self._files = BodyCache()
        self._known: dict[Path, tuple[tuple[int, int], dict[str, Any] | BadGraphFile]] = {}
        self._views: dict[Path, tuple[tuple[int, ...], Body]] = {}
        self._locks: dict[Path, threading.Lock] = {}
        self._guard = threading.Lock()

    def listing(self) -> Listing:
        """List all graphs, those of `graph-metadata.json` first and in its order, then the others by name.

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
            file = names[slug].stat()
            found.graphs.append(
                {
                    **entries.get(slug, {}),
                    **metadata,
                    "slug": slug,
                    "folder": self.root.name,
                    "modified_ms": file.st_mtime_ns // 1_000_000,
                    "bytes": file.st_size,
                }
            )
        return found

    def read(self, slug: str) -> Body:
        """Return one graph's file. Raises InvalidValue, MissingFile, or BadGraphFile if it isn't a complete graph."""
        return self._graphs.read(graph_path(self.root, slug), check_graph, readable)

    def metadata(self, slug: str) -> dict[str, Any]:
        """Return a graph's metadata. Raises as `read`."""
        return self._metadata(graph_path(self.root, slug))

    def view(self, slug: str) -> Body:
        """Return the `metadata` and `qParams` of a graph's file, with the file's entity tag.

        While the file is unchanged, this only checks its date. Raises as `read`.
        """
        path = graph_path(self.root, slug)
        version = file_version(path)
        known = self._views.get(path)
        if known is None or known[0] != version:
            body = self._graphs.read(path, check_graph, readable)
            values = read_top_level(_decode(body.content), frozenset(["metadata", "qParams"])).values
            content = {"metadata": values["metadata"], "qParams": _object(values.get("qParams"))}
            known = (version, Body(encode_json(content), body.etag))
            self._views[path] = known
        return known[1]

    def nodes(self, slug: str) -> Body:
        """Return all strings, numbers and booleans of every node, in the file's order. Raises as `read`."""
        body = self._graphs.read(graph_path(self.root, slug), check_graph, readable)
        nodes = read_top_level(_decode(body.content), frozenset(["nodes"])).values["nodes"]
        plain = [
            {key: value for key, value in _object(node).items() if isinstance(value, str | int | float)}
            for node in nodes
        ]
        return body_of(encode_json({"nodes": plain}))

    def heads(self, slug: str) -> Body:
        """Return the heads that `heads --all` stored, each as `[source, target, weight, heads, rest]`. Raises as `read`."""
        body = self._graphs.read(graph_path(self.root, slug), check_graph, readable)
        links = map(_object, read_top_level(_decode(body.content), frozenset(["links"])).values["links"])
        told = [
            [
                link.get("source"),
                link.get("target"),
                link.get("weight"),
                link["heads"],
                link.get("heads_rest", 0),
            ]
            for link in links
            if isinstance(link.get("heads"), list)
        ]
        return body_of(encode_json({"links": told}))

    def compact(self, slug: str) -> Path | None:
        """Return the file with a graph's compact form, or None. Raises as `graph_path`, and BadGraphFile."""
        path = graph_path(self.root, slug)
        form = current_form(path, self._spare)
        if form is None:
            self.read(slug)
        return form

    def codes(self, slug: str) -> set[int]:
        """The codes of the features of a graph. Raises as `read`."""
        form = current_form(graph_path(self.root, slug), self._spare)
        return feature_codes(self.read(slug).content) if form is None else features_in(form)

    def read_file(self, relative: str) -> Body:
        """Return any file of the folder, unchanged. Raises MissingFile."""
        return self._files.read(contained(self.root, relative))

    def save(self, slug: str, annotations: dict[str, Any], accepts: Callable[[str], bool]) -> Saved:
        """Replace the graph's `qParams`, leaving every other byte of its file unchanged.

        Args:
            slug: The graph's slug.
            annotations: The new `qParams`.
            accepts: Returns True if the file's current entity tag is the one that the caller read.

        Returns:
            The new entity tag, the previous `qParams`, and the graph's metadata.

        Raises:
            StaleTag: `accepts` returned False.
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
            top = read_top_level(text, frozenset(["metadata", "qParams"]), strict=False)
            new = _encode(replace_value(text, top, "qParams", value))
            if new != content:
                if not os.access(path, os.W_OK):
                    raise OutputError(f"{path.name} is read-only", "make the file writable")
                write_bytes(path, new)
        return Saved(etag_of(new), _object(top.values.get("qParams")), _object(top.values.get("metadata")))

    def _lock(self, path: Path) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(path, threading.Lock())

    def _graph_files(self) -> list[Path]:
        """By names in the folder, so that a linked file keeps its slug; links that lead out of the folder are skipped."""
        return [path for path in self.root.glob("*.json") if self._is_graph_file(path)]

    def _is_graph_file(self, path: Path) -> bool:
        if path.name == LIST_NAME:
            return False
        try:
            contained(self.root, path.name)
        except CircuitTracerError:
            return False
        return True

    def _entries(self) -> dict[str, dict[str, Any]]:
        """`graph-metadata.json` by slug; empty if it is missing or broken, since the graphs contain the same."""
        try:
            listed = json.loads((self.root / LIST_NAME).read_bytes())["graphs"]
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
    """The metadata, from the full file if it is small, else from its beginning and a check of its end."""
    try:
        if size <= _WHOLE_UP_TO:
            return _graph_metadata(readable(path.read_bytes()))
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


def readable(content: bytes) -> bytes:
    """Return the graph file in a form that every browser can read: without links whose weight is NaN or infinite."""
    return proper_json(content)[0]


def _metadata_at_a_glance(head: bytes, tail: bytes) -> dict[str, Any]:
    """The metadata of a file that is too large to parse; it must be within the first bytes."""
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


def check_graph(content: bytes) -> None:
    """Raise BadGraphFile unless this is a graph file.

    A large file is checked only at its beginning and end: parsing takes ten times its size in memory.
    """
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
        raise InvalidValue("the annotations contain a lone surrogate, which is not a character") from error


def is_feature(node: object) -> bool:
    """Return True if an entry among a graph file's nodes is a feature."""
    kind = node.get("feature_type") if isinstance(node, dict) else None
    return isinstance(kind, str) and kind not in ("embedding", "logit") and "error" not in kind


def feature_codes(content: bytes) -> set[int]:
    """Return the Cantor codes of all features in a graph file. Entries of another form are ignored."""
    codes = (node.get("feature") for node in json.loads(content)["nodes"] if is_feature(node))
    return {code for code in codes if isinstance(code, int) and code >= 0}


class GraphRoutes:
    """The endpoints. Those that only read are plain functions, which Starlette runs in other threads.

    Args:
        graphs: The folder.
        on_save: Called after every save, to share labels with other graphs.
        max_body: The largest request body in bytes.
    """

    def __init__(
        self, graphs: GraphFolder, on_save: Callable[[Saved, dict[str, Any]], None], max_body: int
    ) -> None:
        self._graphs, self._on_save, self._max_body = graphs, on_save, max_body

    def table(self) -> list[Route]:
        """All routes."""
        return [
            Route("/api/graphs", self.list_graphs, methods=["GET"]),
            Route("/api/graphs/{slug}", self.graph, methods=["GET"]),
            Route("/api/graphs/{slug}/compact", self.compact),
            Route("/api/graphs/{slug}/view", self.view),
            Route("/api/graphs/{slug}/nodes", self.nodes),
            Route("/api/graphs/{slug}/heads", self.heads),
            Route("/api/graphs/{slug}/annotations", self.annotate, methods=["PUT"]),
            Route("/data/{relative:path}", self.data_file),
            Route("/graph_data/{relative:path}", self.data_file),
            Route("/save_graph/{relative:path}", self.save_graph, methods=["POST"]),
        ]

    def list_graphs(self, _request: Request) -> Response:
        """GET /api/graphs: metadata of every graph, read from the folder now."""
        listing = self._graphs.listing()
        content = {"graphs": listing.graphs, "errors": listing.errors, "folder": str(self._graphs.root)}
        return JSONResponse(content, headers={"Cache-Control": "no-cache"})

    def graph(self, request: Request) -> Response:
        """GET /api/graphs/{slug}: the graph file, validated once per version."""
        return body_reply(request, self._graphs.read(request.path_params["slug"]))

    def compact(self, request: Request) -> Response:
        """GET /api/graphs/{slug}/compact: the graph as typed arrays, with ranges; 204 if it has no such form."""
        form = self._graphs.compact(request.path_params["slug"])
        if form is None:
            return Response(status_code=204, headers={"Cache-Control": "no-cache"})
        return file_reply(request, form)

    def view(self, request: Request) -> Response:
        """GET /api/graphs/{slug}/view: only the file's `metadata` and `qParams`, so that a page can see what changed."""
        return body_reply(request, self._graphs.view(request.path_params["slug"]))

    def nodes(self, request: Request) -> Response:
        """GET /api/graphs/{slug}/nodes: the file's data on each node, for clients that have the compact form."""
        return body_reply(request, self._graphs.nodes(request.path_params["slug"]))

    def heads(self, request: Request) -> Response:
        """GET /api/graphs/{slug}/heads: the heads stored on its links, which the compact form leaves out."""
        return body_reply(request, self._graphs.heads(request.path_params["slug"]))

    async def annotate(self, request: Request) -> Response:
        """PUT /api/graphs/{slug}/annotations: new `qParams`, unless someone else has saved since."""
        condition = request.headers.get("if-match")
        if condition is None:
            hint = "send the ETag of the graph that you read as If-Match"
            return json_error(428, "saving needs an If-Match header", hint)
        annotations = check_annotations(await json_body(request, self._max_body))
        return await self._save(request.path_params["slug"], annotations, condition)

    async def save_graph(self, request: Request) -> Response:
        """POST /save_graph/…/{slug}: the reference page's save; values may be strings, arrays are written."""
        body = await json_body(request, self._max_body)
        if not isinstance(body, dict) or not isinstance(body.get("qParams"), dict):
            raise HTTPException(400, "the body must be an object with a qParams object")
        slug = request.path_params["relative"].rpartition("/")[2]
        return await self._save(slug, from_reference(body["qParams"]), request.headers.get("if-match", "*"))

    async def _save(self, slug: str, annotations: dict[str, Any], condition: str) -> Response:
        accepts = partial(matches_strongly, condition)
        try:
            saved = await run_in_threadpool(self._graphs.save, slug, annotations, accepts)
        except StaleTag as error:
            hint = "read the graph again and repeat the change"
            message = "the graph was saved by someone else since it was read"
            return json_error(412, message, hint, {"ETag": error.current})
        await run_in_threadpool(self._on_save, saved, annotations)
        headers = {"ETag": saved.etag, **NO_STORE}
        return JSONResponse({"slug": slug, "etag": saved.etag}, headers=headers)

    def data_file(self, request: Request) -> Response:
        """GET /data/… and /graph_data/…: a file of the graph folder."""
        relative = request.path_params["relative"]
        path = contained(self._graphs.root, relative)
        if path.suffix.lower() in _MEMORY_SUFFIXES:
            return body_reply(request, self._graphs.read_file(relative), media_type(path))
        return file_reply(request, path)
