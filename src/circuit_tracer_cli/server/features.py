"""Feature examples: from a named folder, from the folder of a graph's transcoder set, or from the set on the hub.

A graph file can only name a repository on the hub, never another address.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from circuit_tracer_cli import hub
from circuit_tracer_cli.errors import BadFeatureFiles, CircuitTracerError, MissingFile
from circuit_tracer_cli.export.records import cantor_code, cantor_decode
from circuit_tracer_cli.features.packed import DRIVERS, INDEX, FeatureFiles, examples_folder, unpack_record
from circuit_tracer_cli.files.atomic import write_bytes
from circuit_tracer_cli.files.locations import cache_root
from circuit_tracer_cli.server.live import ShownGraphs
from circuit_tracer_cli.server.replies import contained, file_reply
from circuit_tracer_cli.types import SilentProgress

_FRESH = {"Cache-Control": "no-cache"}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*\Z")
_MAX_RECORD = 64 << 20
_RETRY_SECONDS = 30.0
_HINT = "serve with --features-dir FOLDER; circuit-tracer features build makes them"
_NEURONPEDIA = {"mwhanna/gemma-scope-transcoders": ("gemma-2-2b", "gemmascope-transcoder-16k")}


class FeatureFolder:
    """The feature examples of one transcoder set. Every method blocks on disk access."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: tuple[tuple[int, int, int], FeatureFiles] | None = None
        self._lock = threading.Lock()

    def record(self, layer: int, feature: int) -> dict[str, Any] | None:
        """Return a feature's record, or None if the folder has none.

        Raises:
            MissingFile: The index, or a file that it names, is missing.
            BadFeatureFiles: Index or record can't be read.
        """
        files = self._current()
        entry = files.layers.get(layer)
        if entry is None or not 0 <= feature < len(entry.offsets) - 1:
            return None
        if entry.offsets[feature + 1] <= entry.offsets[feature]:
            return None
        contained(self.root, entry.filename)
        return files.feature(layer, feature)

    def labels(self, features: Iterable[tuple[int, int]]) -> dict[int, dict[str, Any]]:
        """The proposed labels of these (layer, feature) pairs, by Cantor code. Raises as `record`."""
        files = self._current()
        pairs = [(layer, feature, files.label(layer, feature)) for layer, feature in set(features)]
        return {cantor_code(layer, feature): label for layer, feature, label in pairs if label is not None}

    def _current(self) -> FeatureFiles:
        status = contained(self.root, INDEX).stat()
        drivers = self.root / DRIVERS  # written after the index
        version = (status.st_mtime_ns, status.st_size, drivers.stat().st_mtime_ns if drivers.is_file() else 0)
        with self._lock:
            if self._files is None or self._files[0] != version:
                self._files = (version, FeatureFiles(self.root))
            return self._files[1]


class HubFeatures:
    """The examples in the folder `features` of a set on the hub. Every method can block on the network.

    Args:
        repo_id: The repository.
        path: The set's folder in the repository, without leading or trailing slashes.
        revision: Branch, tag or commit; None for the main branch.
        cache: Folder for downloaded records.
    """

    def __init__(self, repo_id: str, path: str, revision: str | None, cache: Path) -> None:
        self._repo_id, self._revision, self._cache = repo_id, revision, cache
        self._folder = f"{path}/features" if path else "features"
        self._files: tuple[str, FeatureFiles] | None = None
        self._lock = threading.Lock()

    def record(self, layer: int, feature: int) -> dict[str, Any] | None:
        """Return a feature's record, or None if the set has none.

        Raises:
            MissingFile: The set has no examples.
            BadFeatureFiles: Index or record can't be read.
            HubUnavailable, AccessDenied, UnknownReference: The hub refused or can't be reached.
        """
        commit, files = self._index()
        entry = files.layers.get(layer)
        if entry is None or not 0 <= feature < len(entry.offsets) - 1:
            return None
        start, stop = entry.offsets[feature], entry.offsets[feature + 1]
        if stop <= start:
            return None
        if not _PLAIN_NAME.match(entry.filename) or start < 0 or stop - start > _MAX_RECORD:
            raise BadFeatureFiles(
                f"the index of {self._repo_id} is damaged: layer {layer}, feature {feature}"
            )
        return unpack_record(self._bytes(commit, entry.filename, start, stop))

    def _index(self) -> tuple[str, FeatureFiles]:
        with self._lock:
            if self._files is None:
                name = f"{self._folder}/{INDEX}"
                found = hub.snapshot(self._repo_id, self._revision, [name], SilentProgress())
                folder = found.folder / self._folder
                if not (folder / INDEX).is_file():
                    raise MissingFile(
                        f"{self._repo_id} has no feature examples: {name} is missing",
                        "make them with circuit-tracer features build, and serve with --features-dir FOLDER",
                    )
                self._files = (found.commit, FeatureFiles(folder))
            return self._files

    def _bytes(self, commit: str, filename: str, start: int, stop: int) -> bytes:
        kept = (
            self._cache
            / self._repo_id.replace("/", "--")
            / commit
            / self._folder
            / filename
            / f"{start}-{stop}"
        )
        if kept.is_file():
            return kept.read_bytes()
        content = hub.read_range(self._repo_id, commit, f"{self._folder}/{filename}", start, stop - start)
        unpack_record(content)  # unreadable records aren't kept
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(kept, content)
        return content


class Records(Protocol):
    """A source of feature records."""

    def record(self, layer: int, feature: int) -> dict[str, Any] | None:
        """Return a feature's record, or None. Raises CircuitTracerError."""


Source = TypeVar("Source", bound=Records)


class FeatureSources:
    """The examples of any set. A set without examples is tried again after a while.

    Args:
        chosen: A folder to use for every set.
        cache: Folder for records from the hub.
    """

    def __init__(self, chosen: Path | None, cache: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._chosen = None if chosen is None else FeatureFolder(chosen)
        self._cache, self._clock = cache, clock
        self._known: dict[str, Records] = {}
        self._failed: dict[str, tuple[float, CircuitTracerError]] = {}
        self._lock = threading.Lock()

    def folder(self, scan: object) -> FeatureFolder | None:
        """The examples of a set on this machine."""
        if self._chosen is not None or not isinstance(scan, str):
            return self._chosen
        known = self._known.get(scan)
        found = None if known is not None else examples_folder(scan)
        if found is not None:
            known = self._remember(scan, FeatureFolder(found.resolve()))
        return known if isinstance(known, FeatureFolder) else None

    def answer(self, metadata: Mapping[str, Any], layer: int, feature: int) -> dict[str, Any]:
        """Return the record of a feature of a graph, or why there is none, and a link to another page about it.

        Returns:
            `record` (or null), `reason` and `hint` (or null), `set`, `link` (or null).
        """
        scan = _set_of(metadata, layer)
        answer: dict[str, Any] = {
            "record": None,
            "reason": None,
            "hint": None,
            "set": scan,
            "link": _link(metadata, layer, feature),
        }
        try:
            answer["record"] = self._record(scan, layer, feature)
        except CircuitTracerError as error:
            return {**answer, "reason": error.message, "hint": error.hint}
        if answer["record"] is None:
            answer["reason"] = "the examples don't cover this feature: it wasn't active on their texts"
        return answer

    def _record(self, scan: str, layer: int, feature: int) -> dict[str, Any] | None:
        source: Records = self.folder(scan) or self._on_the_hub(scan)
        failed = self._failed.get(scan)
        if failed is not None and self._clock() - failed[0] < _RETRY_SECONDS:
            raise failed[1]
        try:
            return source.record(layer, feature)
        except CircuitTracerError as error:
            if isinstance(source, HubFeatures):
                self._failed[scan] = (self._clock(), error)
            raise

    def _on_the_hub(self, scan: str) -> Records:
        from circuit_tracer_cli.transcoders.references import hub_reference

        known = self._known.get(scan)
        if known is not None:
            return known
        found = None if scan.startswith(("/", ".", "~")) else hub_reference(scan.replace("//", "/", 1))
        if found is None:
            raise MissingFile(f"no feature examples are known for the set {scan[:200]!r}", _HINT)
        return self._remember(scan, HubFeatures(found.repo_id, found.path, found.revision, self._cache))

    def _remember(self, scan: str, source: Source) -> Source:
        with self._lock:
            self._known[scan] = source
        return source


def feature_cache() -> Path:
    """Return the folder for records from the hub: `features` in `CIRCUIT_TRACER_CACHE_DIR`, else in the user's cache folder."""
    return cache_root() / "features"


def _set_of(metadata: Mapping[str, Any], layer: int) -> str:
    """The set of a layer's features: a graph with several sets lists one per layer."""
    sets = metadata.get("transcoder_list")
    if isinstance(sets, list) and 0 <= layer < len(sets):
        return str(sets[layer])
    return str(metadata.get("scan", ""))


def _link(metadata: Mapping[str, Any], layer: int, feature: int) -> str | None:
    """The feature's page on Neuronpedia, if that has the set."""
    scan = _set_of(metadata, layer)
    details = metadata.get("feature_details")
    sources = details.get("neuronpedia_source_set") if isinstance(details, dict) else None
    model, source = _NEURONPEDIA.get(scan.partition("@")[0], (scan, sources))
    if not isinstance(source, str) or not source or "/" in model or not model:
        return None
    return f"https://www.neuronpedia.org/{quote(model, safe='')}/{layer}-{quote(source, safe='')}/{feature}"


class FeatureRoutes:
    """The endpoints.

    Args:
        shown: The graphs whose features can be requested.
        sources: The sources of their examples.
    """

    def __init__(self, shown: ShownGraphs, sources: FeatureSources) -> None:
        self._shown, self._sources = shown, sources

    def table(self) -> list[Route]:
        """All routes, first match wins."""
        return [
            Route("/api/graphs/{slug}/features/{layer:count}/{feature:count}", self.graph_feature),
            Route("/api/features/{layer:count}/{feature:count}", self.feature),
            Route("/features/{code:count}.json", self.feature_by_code),
            Route("/features/{relative:path}", self.feature_file),
        ]

    def has_features(self) -> bool:
        """Return True if there is a folder of examples that needs no graph to be named."""
        return self._default() is not None

    def graph_feature(self, request: Request) -> Response:
        """GET …/features/{layer}/{feature}: `record`, or `reason` and `hint` if there is none; `set` and `link`."""
        given = request.path_params
        metadata = self._shown.metadata(given["slug"])
        return JSONResponse(self._sources.answer(metadata, given["layer"], given["feature"]), headers=_FRESH)

    def feature(self, request: Request) -> Response:
        """GET /api/features/{layer}/{feature}: one feature's examples as JSON; 204 if there are none."""
        return self._record_reply(request.path_params["layer"], request.path_params["feature"])

    def feature_by_code(self, request: Request) -> Response:
        """GET /features/{code}.json: the same by Cantor code, as in graph files' `feature_json_base_url`."""
        return self._record_reply(*cantor_decode(request.path_params["code"]))

    def _record_reply(self, layer: int, feature: int) -> Response:
        record = self._folder().record(layer, feature)
        if record is None:
            return Response(status_code=204, headers=_FRESH)
        return JSONResponse(record, headers=_FRESH)

    def feature_file(self, request: Request) -> Response:
        """GET /features/…: index and binary files as they are, with ranges."""
        return file_reply(request, contained(self._folder().root, request.path_params["relative"]))

    def _folder(self) -> FeatureFolder:
        found = self._default()
        if found is None:
            raise MissingFile("this server has no feature examples", "start it with --features-dir FOLDER")
        return found

    def _default(self) -> FeatureFolder | None:
        """The named folder, else that of the newest graph that has one."""
        chosen = self._sources.folder(None)
        if chosen is not None:
            return chosen
        found = map(self._sources.folder, self._shown.scans())
        return next((folder for folder in found if folder is not None), None)
