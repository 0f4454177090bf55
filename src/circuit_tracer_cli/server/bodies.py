"""File contents as they go over the wire: bytes, entity tag and, made once, a compressed copy."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

_GZIP_FROM = 1 << 12
_GZIP_LEVEL = 3
_HURRY_FROM = 32 << 20


class Body:
    """One version of one file. Its compressed copy is made when somebody first takes it: packing a large graph takes a second."""

    __slots__ = ("_packed", "content", "etag")

    def __init__(self, content: bytes, etag: str) -> None:
        self.content = content
        self.etag = etag
        self._packed: tuple[bytes | None] | None = None

    @property
    def compressed(self) -> bytes | None:
        """The content as gzip, or None where that wouldn't pay."""
        if self._packed is None:
            self._packed = (_compressed(self.content),)
        return self._packed[0]

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return len(self.content) + len((self._packed and self._packed[0]) or b"")


def etag_of(content: bytes) -> str:
    """A strong entity tag: the same for equal content, whatever the file's date."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def body_of(content: bytes) -> Body:
    """The body of some content."""
    return Body(content, etag_of(content))


class BodyCache:
    """Bodies of recently read files, dropped as soon as the file changes, least recently used first.

    Args:
        max_bytes: How much may be kept in memory, both copies counted. A larger file is served and not kept.
    """

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Path, tuple[tuple[int, ...], Body]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path, check: Callable[[bytes], None] | None = None) -> Body:
        """The file's body. `check` sees every new version once and raises if it must not be served."""
        version = file_version(path)
        with self._lock:
            version_and_body = self._entries.get(path)
            if version_and_body is not None and version_and_body[0] == version:
                self._entries.move_to_end(path)
                return version_and_body[1]
        content = path.read_bytes()
        if check is not None:
            check(content)
        body = body_of(content)
        self._keep(path, version, body)
        return body

    def _keep(self, path: Path, version: tuple[int, ...], body: Body) -> None:
        with self._lock:
            self._entries.pop(path, None)
            if body.size > self._max_bytes:
                return
            self._entries[path] = (version, body)
            while sum(kept.size for _, kept in self._entries.values()) > self._max_bytes:
                self._entries.popitem(last=False)


def file_version(path: Path) -> tuple[int, ...]:
    """What changes whenever a file does, without reading it. Raises OSError."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _compressed(content: bytes) -> bytes | None:
    if len(content) < _GZIP_FROM:
        return None
    level = 1 if len(content) > _HURRY_FROM else _GZIP_LEVEL
    packed = gzip.compress(content, compresslevel=level, mtime=0)
    return packed if len(packed) < len(content) else None
