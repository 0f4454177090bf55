"""Labels of features: given by people and shared by all graphs of the set, or proposed by the set's files.

The shared ones are in one JSON file per transcoder set: each label with its author and time.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from circuit_tracer_cli.errors import CircuitTracerError, InvalidType, InvalidValue, MissingFile
from circuit_tracer_cli.export.graph_list import locked_folder
from circuit_tracer_cli.export.records import cantor_decode
from circuit_tracer_cli.files.atomic import write_bytes
from circuit_tracer_cli.files.inputs import without_marks
from circuit_tracer_cli.files.locations import data_folder
from circuit_tracer_cli.server.bodies import json_body, parsed
from circuit_tracer_cli.server.features import FeatureSources
from circuit_tracer_cli.server.graphs import Saved
from circuit_tracer_cli.server.live import ShownGraphs
from circuit_tracer_cli.server.replies import NO_STORE

Source = Literal["user", "imported"]
FORMAT = "circuit-tracer-labels"
_FRESH = {"Cache-Control": "no-cache"}
_MAX_TEXT, _MAX_LABELS = 2_000, 200_000
_HINT = f'send {{"format": "{FORMAT}", "labels": {{"CODE": {{"text": …}}}}}}, or pairs of code and text'
_log = logging.getLogger(__name__)


class SharedLabels:
    """The labels of all sets, one file per set in a folder. Several servers can write to it.

    Args:
        folder: The folder; made with the first label.
        clock: Seconds since 1970, for tests.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock
        self._lock = threading.Lock()

    def of(self, scan: str) -> dict[str, dict[str, Any]]:
        """The set's labels by Cantor code, each with `text`, `provenance`, `author`, `time_ms`; empty if there are none."""
        try:
            labels = json.loads(self._path(scan).read_bytes())["labels"]
            return {code: label for code, label in labels.items() if isinstance(label["text"], str)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}

    def change(self, scan: str, texts: Mapping[str, str | None]) -> None:
        """Store what a person has just written; None removes a label. Raises OutputError."""
        if not texts:
            return
        author = _user_name()
        with self._changing(scan) as labels:
            for code, text in texts.items():
                if text and (kept := without_marks(text)):
                    labels[code] = self._label(kept, "user", author)
                else:
                    labels.pop(code, None)

    def take_in(self, scan: str, document: object, *, replace: bool = False) -> tuple[int, int]:
        """Import an exported file's labels, or pairs. Without `replace`, existing labels stay.

        Returns:
            How many were imported, and how many were skipped because there is a different label.

        Raises:
            InvalidType, InvalidValue: The content is neither.
            OutputError: The labels can't be written.
        """
        given = _labels_in(document)
        if not given:
            return 0, 0
        with self._changing(scan) as labels:
            others = {
                code: label
                for code, label in given.items()
                if labels.get(code, {}).get("text") != label["text"]
            }
            new = {code: label for code, label in others.items() if replace or code not in labels}
            for code, label in new.items():
                labels[code] = self._label(label["text"], "imported", label.get("author"))
        return len(new), len(others) - len(new)

    def exported(self, scan: str) -> dict[str, Any]:
        """What `take_in` takes."""
        return {"format": FORMAT, "set": scan, "labels": self.of(scan)}

    @contextmanager
    def _changing(self, scan: str) -> Iterator[dict[str, dict[str, Any]]]:
        """Lock the set's labels, yield them, and write them back."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._lock, locked_folder(self._folder):
            labels = self.of(scan)
            before = dict(labels)
            yield labels
            if labels != before:
                document = {"format": FORMAT, "set": scan, "labels": labels}
                write_bytes(self._path(scan), json.dumps(document, ensure_ascii=True, indent=1).encode())

    def _label(self, text: str, source: Source, author: str | None) -> dict[str, Any]:
        now = round(self._clock() * 1000)
        return {"text": text, "provenance": source, "author": author, "time_ms": now}

    def _path(self, scan: str) -> Path:
        return self._folder / f"{hashlib.sha256(scan.encode('utf-8', 'replace')).hexdigest()[:24]}.json"


def labels_folder() -> Path:
    """`circuit-tracer/labels` in the user's data folder."""
    return data_folder() / "labels"


def changed_labels(before: object, after: object) -> dict[str, str | None]:
    """Return the changes between two versions of a graph's `clerps`, by code: the new text, or None for a removed label."""
    old, new = _pairs(before), _pairs(after)
    written: dict[str, str | None] = {code: text for code, text in new.items() if old.get(code) != text}
    return {**written, **{code: None for code in old if code not in new}}


def _pairs(clerps: object) -> dict[str, str]:
    """`clerps` in any form; unreadable entries are ignored."""
    if isinstance(clerps, str):
        try:
            clerps = json.loads(clerps)
        except (ValueError, RecursionError):
            return {}
    if not isinstance(clerps, list):
        return {}
    pairs = [pair for pair in clerps if isinstance(pair, list) and len(pair) == 2]
    return {
        str(code): text for code, text in pairs if isinstance(text, str) and text and str(code).isdecimal()
    }


class _Label(BaseModel):
    """A label in an exported file; of its other keys, only the author is kept."""

    model_config = ConfigDict(strict=True, extra="ignore")

    text: Annotated[str, Field(min_length=1, max_length=_MAX_TEXT)]
    author: Any = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        given = {"text": value} if isinstance(value, str) else value
        if isinstance(given, dict) and isinstance(given.get("text"), str):
            return {**given, "text": without_marks(given["text"])}
        return given


class _LabelFile(BaseModel):
    """An exported file."""

    model_config = ConfigDict(strict=True, extra="ignore")

    labels: dict[str, _Label]


def _labels_in(document: object) -> dict[str, dict[str, Any]]:
    if isinstance(document, list):
        plain = {code: without_marks(text) for code, text in _pairs(document).items()}
        return {code: {"text": text} for code, text in plain.items() if text}
    found = parsed(_LabelFile, document, _HINT).labels
    if len(found) > _MAX_LABELS:
        raise InvalidValue(f"the file has more than {_MAX_LABELS:,} labels", "import them in parts")
    for code in found:
        if not code.isdecimal():
            raise InvalidType(f"{code[:80]!r} is not a feature's code", _HINT)
    return {
        code: {"text": label.text, "author": label.author if isinstance(label.author, str) else None}
        for code, label in found.items()
    }


def _user_name() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return None


class LabelRoutes:
    """The endpoints.

    Args:
        shown: The graphs.
        sources: The folders whose files propose labels.
        shared: Labels given by people; None for a server that shares none.
        max_body: The largest request body in bytes.
    """

    def __init__(
        self, shown: ShownGraphs, sources: FeatureSources, shared: SharedLabels | None, max_body: int
    ) -> None:
        self._shown, self._sources, self._shared, self._max_body = shown, sources, shared, max_body

    def table(self) -> list[Route]:
        """All routes."""
        return [
            Route("/api/graphs/{slug}/labels", self.labels),
            Route("/api/graphs/{slug}/labels/shared", self.export_labels, methods=["GET"]),
            Route("/api/graphs/{slug}/labels/shared", self.import_labels, methods=["POST"]),
        ]

    def labels(self, request: Request) -> Response:
        """GET …/labels: labels of the graph's features by Cantor code; people's labels take precedence over proposed ones."""
        return JSONResponse({"labels": self.labels_of(request.path_params["slug"])}, headers=_FRESH)

    def labels_of(self, slug: str) -> dict[str, Any]:
        """Return the labels of a graph's features by Cantor code. Raises MissingFile."""
        try:
            scan = self._scan(slug)
            folder = self._sources.folder(scan)
            shared = {} if self._shared is None else self._shared.of(scan)
            codes = self._shown.codes(slug) if folder is not None or shared else set()
        except MissingFile:
            if not self._shown.is_traced(slug):
                raise
            return {}
        labels: dict[str, Any] = {}
        if folder is not None:
            labels = {str(code): label for code, label in folder.labels(map(cantor_decode, codes)).items()}
        here = set(map(str, codes))
        return labels | {code: label for code, label in shared.items() if code in here}

    def export_labels(self, request: Request) -> Response:
        """GET …/labels/shared: all labels of the graph's set, as a file."""
        headers = {**_FRESH, "Content-Disposition": "attachment; filename=labels.json"}
        return JSONResponse(
            self._sharing().exported(self._scan(request.path_params["slug"])), headers=headers
        )

    async def import_labels(self, request: Request) -> Response:
        """POST …/labels/shared: imports such a file into the set; `?replace=1` overwrites existing labels."""
        shared, document = self._sharing(), await json_body(request, self._max_body)
        scan = await run_in_threadpool(self._scan, request.path_params["slug"])
        replace = request.query_params.get("replace") == "1"
        taken, kept = await run_in_threadpool(shared.take_in, scan, document, replace=replace)
        return JSONResponse({"taken": taken, "kept": kept}, headers=NO_STORE)

    def share(self, saved: Saved, annotations: Mapping[str, Any]) -> None:
        """Share labels just saved with a graph with the other graphs of its set. Failures are only logged."""
        scan = saved.metadata.get("scan")
        texts = changed_labels(saved.before.get("clerps"), annotations.get("clerps"))
        if self._shared is None or not isinstance(scan, str) or not texts:
            return
        try:
            self._shared.change(scan, texts)
        except (CircuitTracerError, OSError) as error:
            _log.warning("the labels can't be shared with other graphs: %s", error)

    def _sharing(self) -> SharedLabels:
        if self._shared is None:
            raise MissingFile("this server doesn't share labels", "circuit-tracer serve does")
        return self._shared

    def _scan(self, slug: str) -> str:
        return str(self._shown.metadata(slug).get("scan", ""))
