"""Compact forms that were derived before: in memory, and large ones on the disk, so that a graph opens at once the next time too.

A file of the cache belongs to one graph file by its path. It holds one line of JSON (date and size of the graph file, a digest of
what that holds beside `metadata` and `qParams`), then the compact form. A graph that was only annotated since keeps its nodes
and links: the form gets a new header instead of being derived again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import BadGraphFile, CircuitTracerError
from circuit_tracer_cli.export.splice import TopLevel, read_top_level
from circuit_tracer_cli.files.atomic import write_bytes
from circuit_tracer_cli.files.locations import cache_root
from circuit_tracer_cli.server import compact
from circuit_tracer_cli.server.bodies import Body, file_version

_log = logging.getLogger(__name__)
_HEAD = 1 << 20
_VIEW = frozenset(["metadata", "qParams"])
_SUFFIX = ".ctgb"


@dataclass(frozen=True, slots=True)
class Compact:
    """A compact form and its entity tag."""

    content: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of one version of a graph file; no form for a file that only JSON can express."""

    version: tuple[int, ...]
    digest: str | None
    form: Compact | None

    @property
    def size(self) -> int:
        return 0 if self.form is None else len(self.form.content)


class CompactCache:
    """Compact forms by graph file, least recently used first to go. Every method may block on the disk.

    Args:
        folder: Where large ones are kept; None for memory alone.
        max_bytes: Most bytes in memory.
        max_disk: Most bytes on the disk.
        keep_from: Forms of fewer bytes are derived anew rather than kept on the disk.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        max_bytes: int = 256 << 20,
        max_disk: int = 2 << 30,
        keep_from: int = 1 << 20,
    ) -> None:
        self._folder, self._max_bytes, self._max_disk, self._keep_from = (
            folder,
            max_bytes,
            max_disk,
            keep_from,
        )
        self._entries: OrderedDict[Path, _Entry] = OrderedDict()
        self._guard = threading.Lock()
        self._deriving = threading.Lock()

    def read(self, path: Path, load: Callable[[], Body]) -> Compact | None:
        """The compact form of a graph file, or None for one that only JSON can express. Derived once per version.

        Args:
            path: The graph file.
            load: Reads it; called where nothing is known of this version. What it raises comes through.
        """
        found = self._known(path)
        if found is None:
            with self._deriving:
                found = self._known(path) or self._found(path, load)
        return found.form

    def _known(self, path: Path) -> _Entry | None:
        version = file_version(path)
        with self._guard:
            entry = self._entries.get(path)
            if entry is None or entry.version != version:
                return None
            self._entries.move_to_end(path)
            return entry

    def _found(self, path: Path, load: Callable[[], Body]) -> _Entry:
        version = file_version(path)
        kept = self._from_disk(path)
        if kept is None or kept.version != version:
            with self._guard:
                before = self._entries.get(path, kept)
            kept = _derived(version, load(), before)
            self._to_disk(path, kept)
        with self._guard:
            self._entries[path] = kept
            self._entries.move_to_end(path)
            while len(self._entries) > 1 and sum(e.size for e in self._entries.values()) > self._max_bytes:
                self._entries.popitem(last=False)
        return kept

    def _file(self, path: Path) -> Path | None:
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32] + _SUFFIX
        return None if self._folder is None else self._folder / name

    def _from_disk(self, path: Path) -> _Entry | None:
        file = self._file(path)
        try:
            if file is None:
                return None
            line, _, content = file.read_bytes().partition(b"\n")
            about = json.loads(line)
            if about["form"] != compact.VERSION or about["bytes"] != len(content):
                return None
            os.utime(file)
            form = Compact(content, compact.compact_etag(about["etag"]))
            return _Entry(tuple(about["version"]), about["digest"], form)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _to_disk(self, path: Path, entry: _Entry) -> None:
        """Keeps a large form. Where that fails the graph is derived again next time."""
        file = self._file(path)
        if file is None or entry.form is None or entry.size < self._keep_from:
            return
        about = {
            "form": compact.VERSION,
            "version": entry.version,
            "digest": entry.digest,
            "etag": compact.json_etag(entry.form.content),
            "bytes": entry.size,
        }
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(file, json.dumps(about).encode() + b"\n" + entry.form.content)
            self._make_room(file.parent)
        except (OSError, CircuitTracerError) as error:
            _log.debug("the compact form of %s isn't kept: %s", path, error)

    def _make_room(self, folder: Path) -> None:
        files = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
        size = 0
        for file in files:
            size += file.stat().st_size
            if size > self._max_disk:
                with contextlib.suppress(OSError):
                    file.unlink()


def compact_folder() -> Path:
    """`compact` in `CIRCUIT_TRACER_CACHE_DIR`, else in the user's cache folder."""
    return cache_root() / "compact"


def _derived(version: tuple[int, ...], body: Body, before: _Entry | None) -> _Entry:
    view, digest = _beside(body.content)
    if view is not None and before is not None and before.form is not None and before.digest == digest:
        content: bytes | None = _renewed(before.form.content, view.values, body.etag)
    else:
        content = compact.compact_graph(body)
    form = None if content is None else Compact(content, compact.compact_etag(body.etag))
    return _Entry(version, digest, form)


def _renewed(content: bytes, view: dict[str, Any], etag: str) -> bytes:
    return compact.with_view(content, view["metadata"], view["qParams"], etag)


def _beside(content: bytes) -> tuple[TopLevel | None, str | None]:
    """`metadata` and `qParams` of a file that begins with them, as this program's do, and a digest of all the rest."""
    head = content[:_HEAD].decode("utf-8", "ignore")
    try:
        top = read_top_level(head, _VIEW)
    except BadGraphFile:
        return None, None
    if not all(key in top.spans for key in _VIEW):
        return None, None
    digest = hashlib.sha256()
    at = 0
    for start, stop in sorted(top.spans[key] for key in _VIEW):
        digest.update(head[at:start].encode())
        at = stop
    digest.update(memoryview(content)[len(head[:at].encode()) :])
    return top, digest.hexdigest()
