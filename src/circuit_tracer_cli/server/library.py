"""Changes to a folder of graphs: upload, rename, duplicate, delete and restore. Deleted graphs go to the folder `.trash`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from circuit_tracer_cli.errors import CircuitTracerError, MissingFile
from circuit_tracer_cli.export.compact import compact_path
from circuit_tracer_cli.export.graph_json import metadata_from, read_graph_json
from circuit_tracer_cli.export.graph_list import add_to_graph_list, locked_folder, remove_from_graph_list
from circuit_tracer_cli.export.slugs import check_slug, clean_slug
from circuit_tracer_cli.export.splice import read_top_level, replace_value
from circuit_tracer_cli.files.atomic import output_error, write_bytes
from circuit_tracer_cli.server.bodies import RequestBody, as_json, json_body, limited_body, parsed
from circuit_tracer_cli.server.graphs import GraphFolder, check_graph, graph_path, readable
from circuit_tracer_cli.server.replies import NO_STORE, etag_of, json_error

TRASH = ".trash"
MAX_UPLOAD = 256 << 20
_SMALL_BODY = 1 << 16


class NameTaken(CircuitTracerError):
    """Raised if another graph has the name."""

    def __init__(self, slug: str, free: str) -> None:
        super().__init__(f"a graph named {slug!r} exists", f"choose another name, for example {free}")


class Change(RequestBody):
    """The body of `PATCH /api/graphs/{slug}` and of `POST …/duplicate`: a new name, a new title."""

    slug: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    title: Annotated[str, Field(max_length=500)] | None = None


class Library:
    """A folder of graphs that can be changed. Every method blocks on disk access.

    All raise OutputError if the folder isn't writable, MissingFile for a missing graph, NameTaken for a new name that is
    taken, and InvalidValue for one that no graph file can have.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def upload(self, content: bytes, slug: str | None) -> dict[str, Any]:
        """Store a graph file under a name, by default its own, with a number if that is taken. Raises BadGraphFile."""
        file = read_graph_json(content, "the uploaded file")
        check_graph(readable(content))
        with self._changing():
            if slug is None:
                slug = self._free(clean_slug(file.metadata.slug) or "graph")
            elif self._path(check_slug(slug)).exists():
                raise NameTaken(slug, self._free(slug))
            return self._store(content, slug)

    def change(self, slug: str, wanted: Change) -> dict[str, Any]:
        """Give a graph another name, title, or both."""
        path = graph_path(self._root, slug)
        with self._changing():
            name = slug if wanted.slug is None else check_slug(wanted.slug)
            if name != slug and self._path(name).exists():
                raise NameTaken(name, self._free(name))
            stored = self._store(path.read_bytes(), name, wanted.title)
            if name != slug:
                self._remove(path)
            return stored

    def duplicate(self, slug: str, wanted: Change) -> dict[str, Any]:
        """Copy a graph with its annotations."""
        path = graph_path(self._root, slug)
        with self._changing():
            if wanted.slug is not None and self._path(check_slug(wanted.slug)).exists():
                raise NameTaken(wanted.slug, self._free(wanted.slug))
            return self._store(path.read_bytes(), wanted.slug or self._free(f"{slug}-copy"), wanted.title)

    def delete(self, slug: str) -> None:
        """Move a graph to the trash."""
        path = graph_path(self._root, slug)
        with self._changing():
            trash = self._root / TRASH
            trash.mkdir(exist_ok=True)
            path.rename(trash / f"{slug}.{time.time_ns()}.json")
            self._remove(path)

    def restore(self, slug: str) -> dict[str, Any]:
        """Restore the last deleted graph of this name."""
        with self._changing():
            if self._path(slug).exists():
                raise NameTaken(slug, self._free(slug))
            found = [
                (int(stamp), path)
                for path in (self._root / TRASH).glob("*.json")
                for name, _, stamp in [path.stem.rpartition(".")]
                if name == slug and stamp.isdecimal() and len(stamp) < 25
            ]
            if not found:
                raise MissingFile(
                    f"no graph named {slug[:200]!r} was deleted", "GET /api/graphs lists the graphs"
                )
            _, path = max(found)
            stored = self._store(path.read_bytes(), slug)
            path.unlink()
            return stored

    @contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            with locked_folder(self._root):
                yield
        except CircuitTracerError:
            raise
        except OSError as error:
            raise output_error(self._root, error) from error

    def _path(self, slug: str) -> Path:
        return self._root / f"{slug}.json"

    def _free(self, slug: str) -> str:
        names = (slug if number == 1 else f"{slug}-{number}" for number in count(1))
        return next(name for name in names if not self._path(name).exists())

    def _store(self, content: bytes, slug: str, title: str | None = None) -> dict[str, Any]:
        """Write a graph file with a new name and perhaps a new title in its metadata, leaving every other byte unchanged."""
        text = content.decode("utf-8-sig")
        top = read_top_level(text, frozenset(["metadata"]), strict=False)
        start, stop = top.spans["metadata"]
        metadata, changed = top.values["metadata"], text[start:stop]
        for key, value in (("slug", slug), ("title", title)):
            if value is not None and metadata.get(key) != value:
                changed = replace_value(
                    changed, read_top_level(changed, strict=False), key, json.dumps(value, ensure_ascii=False)
                )
        new = (text[:start] + changed + text[stop:]).encode()
        write_bytes(self._path(slug), new)
        proper = json.loads(changed, parse_constant=lambda _: None)
        add_to_graph_list(self._root, metadata_from(proper))
        return {**proper, "slug": slug, "etag": etag_of(new)}

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        compact_path(path).unlink(missing_ok=True)
        remove_from_graph_list(self._root, path.stem)


class LibraryRoutes:
    """The endpoints.

    Args:
        graphs: The folder.
    """

    def __init__(self, graphs: GraphFolder) -> None:
        self._library = Library(graphs.root)

    def table(self) -> list[Route]:
        """All routes."""
        return [
            Route("/api/graphs", self.upload, methods=["POST"]),
            Route("/api/graphs/{slug}", self.change, methods=["PATCH"]),
            Route("/api/graphs/{slug}", self.delete, methods=["DELETE"]),
            Route("/api/graphs/{slug}/duplicate", self.duplicate, methods=["POST"]),
            Route("/api/graphs/{slug}/restore", self.restore, methods=["POST"]),
        ]

    async def upload(self, request: Request) -> Response:
        """POST /api/graphs: a graph file as the body; `?slug=` names it. 201 with its metadata."""
        content = await limited_body(request, MAX_UPLOAD)
        return await self._done(201, self._library.upload, content, request.query_params.get("slug"))

    async def change(self, request: Request) -> Response:
        """PATCH /api/graphs/{slug}: `slug`, `title` or both. 200 with the metadata."""
        wanted = parsed(Change, await json_body(request, _SMALL_BODY))
        return await self._done(200, self._library.change, request.path_params["slug"], wanted)

    async def duplicate(self, request: Request) -> Response:
        """POST …/duplicate: a copy, under the body's `slug` if there is one. 201 with its metadata."""
        body = await limited_body(request, _SMALL_BODY)
        wanted = parsed(Change, as_json(body) if body.strip() else {})
        return await self._done(201, self._library.duplicate, request.path_params["slug"], wanted)

    async def delete(self, request: Request) -> Response:
        """DELETE /api/graphs/{slug}: moves it to the trash. 200 with the address that restores it."""
        slug = request.path_params["slug"]
        await run_in_threadpool(self._library.delete, slug)
        return JSONResponse(
            {"slug": slug, "restore": f"api/graphs/{quote(slug, safe='')}/restore"}, headers=NO_STORE
        )

    async def restore(self, request: Request) -> Response:
        """POST …/restore: restores the last deleted graph of this name. 200 with its metadata."""
        return await self._done(200, self._library.restore, request.path_params["slug"])

    async def _done(self, status: int, work: Callable[..., dict[str, Any]], *arguments: Any) -> Response:
        try:
            stored = await run_in_threadpool(work, *arguments)
        except NameTaken as error:
            return json_error(409, error.message, error.hint)
        headers = {
            **NO_STORE,
            "ETag": stored["etag"],
            "Location": f"api/graphs/{quote(stored['slug'], safe='')}",
        }
        return JSONResponse(stored, status, headers)
