"""Graphs of the folder compared and merged. What comes out is a graph file in the folder like any other. Imports no torch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from circuit_tracer_cli.errors import CircuitTracerError, InvalidValue
from circuit_tracer_cli.export.graph_list import metadata_in
from circuit_tracer_cli.export.slugs import check_slug, clean_slug
from circuit_tracer_cli.server.bodies import RequestBody, json_body, parsed
from circuit_tracer_cli.server.graphs import GraphFolder, graph_path
from circuit_tracer_cli.server.library import NameTaken
from circuit_tracer_cli.server.replies import NO_STORE, json_error

if TYPE_CHECKING:
    from circuit_tracer_cli.many.diff import GraphDiff

_SMALL_BODY = 1 << 20
_DIFF = 'for example {"a": "dallas", "b": "oakland"}'
_MERGE = 'for example {"slug": "union", "graphs": ["dallas", "oakland"], "min_frequency": 0.5}'
Align = Literal["exact", "slots", "end", "bag"]
Slug = Annotated[str, Field(min_length=1, max_length=200)]
COMPUTED = ("diff", "merged")
"""Keys of a file's metadata that mark a graph made of others."""


class DiffQuestion(RequestBody):
    """Two graphs to compare.

    Attributes:
        a, b: The graphs, by slug.
        align: How positions are matched; as for `diff --align`.
        target: Id of the node whose change is explained.
    """

    a: Slug
    b: Slug
    align: Align | None = None
    target: Annotated[str, Field(max_length=200)] | None = None


class DiffRequest(DiffQuestion):
    """The body of `POST /api/diff`.

    Attributes:
        slug: Name of the file; one made from the two names by default.
    """

    slug: Slug | None = None


class MergeRequest(RequestBody):
    """The body of `POST /api/merge`.

    Attributes:
        slug: Name of the file.
        graphs: Slugs; all single graphs of the folder by default.
        align: How positions are matched; as for `merge --align`.
        min_frequency: Keep nodes and edges of at least this share of the graphs.
    """

    slug: Slug
    graphs: Annotated[list[Slug], Field(min_length=1, max_length=100_000)] | None = None
    align: Align | None = None
    min_frequency: Annotated[float, Field(ge=0, le=1)] = 0.0


class Comparisons:
    """Comparisons in one folder, one at a time: each holds whole graphs in memory. Every method blocks.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._one_at_a_time = threading.Lock()

    def diff(self, wanted: DiffQuestion) -> GraphDiff:
        """Compare two graphs. Raises MissingFile, InvalidValue, and CircuitTracerError for graphs that can't be aligned."""
        from circuit_tracer_cli.many.diff_file import diff_of_folder

        for slug in (wanted.a, wanted.b):
            graph_path(self._root, slug)
        with self._one_at_a_time:
            return diff_of_folder(self._root, wanted.a, wanted.b, align=wanted.align, target=wanted.target)

    def write_diff(self, wanted: DiffRequest) -> dict[str, Any]:
        """Write two graphs as one, unless that has been done since they last changed; returns `slug` and `made`."""
        from circuit_tracer_cli.many.diff_file import write_diff

        sources = [graph_path(self._root, slug) for slug in (wanted.a, wanted.b)]
        asked = {"a": wanted.a, "b": wanted.b, "align": wanted.align, "target": wanted.target}
        slug, path = self._place(wanted, asked)
        newest = max(source.stat().st_mtime_ns for source in sources)
        if path.exists() and path.stat().st_mtime_ns > newest:
            return {"slug": slug, "made": False}
        write_diff(self.diff(wanted), path, asked)
        return {"slug": slug, "made": True}

    def _place(self, wanted: DiffRequest, asked: dict[str, Any]) -> tuple[str, Path]:
        """A free name for a comparison, or that of the same one. Raises NameTaken."""
        base = check_slug(wanted.slug) if wanted.slug else clean_slug(f"{wanted.a}-vs-{wanted.b}")
        for number in count(1):
            slug = base if number == 1 else f"{base}-{number}"
            path = self._root / f"{slug}.json"
            if not path.exists() or _question_of(path) == asked:
                if number > 1 and wanted.slug:
                    raise NameTaken(base, slug)
                return slug, path
        raise AssertionError

    def merge(self, wanted: MergeRequest) -> dict[str, Any]:
        """Merge graphs of the folder; returns `slug`, `n`, and how many nodes and edges there are."""
        from circuit_tracer_cli.many.merged_file import merge_graphs

        target = self._root / f"{check_slug(wanted.slug)}.json"
        if target.exists():
            free = next(
                slug for n in count(2) if not (self._root / f"{(slug := f'{wanted.slug}-{n}')}.json").exists()
            )
            raise NameTaken(wanted.slug, free)
        paths = self._single_graphs() if wanted.graphs is None else self._named(wanted.graphs)
        if not paths:
            raise InvalidValue("the folder holds no single graph to merge", _MERGE)
        with self._one_at_a_time:
            union = merge_graphs(paths, target, align=wanted.align, min_frequency=wanted.min_frequency)
        return {
            "slug": wanted.slug,
            "n": len(union.merged.members),
            "nodes": len(union.merged.nodes.keys),
            "edges": len(union.merged.edges.keys),
        }

    def _named(self, slugs: list[str]) -> list[Path]:
        return [graph_path(self._root, slug) for slug in slugs]

    def _single_graphs(self) -> list[Path]:
        """The graphs of the folder that aren't made of others."""
        found = []
        for path in sorted(self._root.glob("*.json")):
            metadata = metadata_in(path)
            if metadata is not None and not any(key in metadata for key in COMPUTED):
                found.append(path)
        return found


def _question_of(path: Path) -> object:
    """What a comparison's file was made to answer; None for another file."""
    record = (metadata_in(path) or {}).get("diff")
    return record.get("asked") if isinstance(record, dict) else None


class ComparisonRoutes:
    """The endpoints.

    Args:
        graphs: The folder.
    """

    def __init__(self, graphs: GraphFolder) -> None:
        self._comparisons = Comparisons(graphs.root)

    def table(self) -> list[Route]:
        """All routes."""
        return [
            Route("/api/graphs/{slug}/diff/{other}", self.diff, methods=["GET"]),
            Route("/api/diff", self.write_diff, methods=["POST"]),
            Route("/api/merge", self.merge, methods=["POST"]),
        ]

    async def diff(self, request: Request) -> Response:
        """GET /api/graphs/{slug}/diff/{other}: the record of `diff --json`; `?align=`, `?target=`."""
        path = {"a": request.path_params["slug"], "b": request.path_params["other"]}
        wanted = parsed(DiffQuestion, {**request.query_params, **path}, "?align=exact, slots, end or bag")
        return await _answered(lambda: JSONResponse(self._comparisons.diff(wanted).to_dict(), 200, NO_STORE))

    async def write_diff(self, request: Request) -> Response:
        """POST /api/diff: both graphs as one file. 201 with its `slug`; 200 if the folder has it already."""
        wanted = parsed(DiffRequest, await json_body(request, _SMALL_BODY), _DIFF)
        return await _answered(lambda: _made(self._comparisons.write_diff(wanted)))

    async def merge(self, request: Request) -> Response:
        """POST /api/merge: many graphs as one file. 201 with its `slug` and how large it is."""
        wanted = parsed(MergeRequest, await json_body(request, _SMALL_BODY), _MERGE)
        return await _answered(lambda: _made(self._comparisons.merge(wanted)))


async def _answered(work: Callable[[], Response]) -> Response:
    """The reply of some work in another thread; graphs that don't belong together are the request's fault."""
    try:
        return await run_in_threadpool(work)
    except NameTaken as error:
        return json_error(409, error.message, error.hint)
    except CircuitTracerError as error:
        if type(error) is not CircuitTracerError:
            raise
        return json_error(422, error.message, error.hint)


def _made(about: dict[str, Any]) -> Response:
    status = 200 if about.pop("made", True) is False else 201
    return JSONResponse(
        about, status, {**NO_STORE, "Location": f"api/graphs/{quote(about['slug'], safe='')}"}
    )
