"""The replies that routes give: JSON errors, bodies with validators and compression, files with ranges."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    MalformedRangeHeader,
    RangeNotSatisfiable,
    Response,
)

from circuit_tracer_cli.errors import MissingFile
from circuit_tracer_cli.export.compact import entity_tag

_FORBIDDEN_CHARACTERS = frozenset("\\\0")
NO_STORE = {"Cache-Control": "no-store"}
_GZIP_FROM = 1 << 12
_HURRY_FROM = 32 << 20
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".wasm": "application/wasm",
    ".txt": "text/plain; charset=utf-8",
}


def media_type(path: Path) -> str:
    """Return the Content-Type of a static file, the same on every system."""
    return _MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")


def json_error(
    status: int, error: str, hint: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return an error reply; all errors have this form."""
    return JSONResponse({"error": error, "hint": hint}, status, {**(headers or {}), **NO_STORE})


class Body:
    """One version of a file's content, its entity tag, and its compressed copy once a client takes that."""

    __slots__ = ("_packed", "content", "etag")

    def __init__(self, content: bytes, etag: str) -> None:
        self.content = content
        self.etag = etag
        self._packed: tuple[bytes | None] | None = None

    @property
    def compressed(self) -> bytes | None:
        """The content as gzip, or None if that isn't worth it."""
        if self._packed is None:
            level = 1 if len(self.content) > _HURRY_FROM else 3
            worth = len(self.content) >= _GZIP_FROM
            packed = gzip.compress(self.content, compresslevel=level, mtime=0) if worth else self.content
            self._packed = (packed if len(packed) < len(self.content) else None,)
        return self._packed[0]

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return len(self.content) + len((self._packed and self._packed[0]) or b"")


def etag_of(content: bytes) -> str:
    """Return a strong entity tag, which depends on the content only."""
    return entity_tag(hashlib.sha256(content).hexdigest())


def body_of(content: bytes) -> Body:
    """Return the body of some content."""
    return Body(content, etag_of(content))


class BodyCache:
    """Bodies of recently read files, dropped as soon as the file changes, least recently used first.

    Args:
        max_bytes: Largest number of bytes in memory, counting both copies. A larger file is served but not kept.
    """

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Path, tuple[tuple[int, ...], Body]] = OrderedDict()
        self._lock = threading.Lock()

    def read(
        self,
        path: Path,
        check: Callable[[bytes], None] | None = None,
        made: Callable[[bytes], bytes] | None = None,
    ) -> Body:
        """Return the file's body. `check` is called once for every new version, and raises if it must not be served.

        The content is passed through `made` first; the entity tag stays that of the file.
        """
        version = file_version(path)
        with self._lock:
            version_and_body = self._entries.get(path)
            if version_and_body is not None and version_and_body[0] == version:
                self._entries.move_to_end(path)
                return version_and_body[1]
        content = path.read_bytes()
        served = content if made is None else made(content)
        if check is not None:
            check(served)
        body = Body(served, etag_of(content))
        with self._lock:
            self._entries.pop(path, None)
            if body.size <= self._max_bytes:
                self._entries[path] = (version, body)
            while sum(kept.size for _, kept in self._entries.values()) > self._max_bytes:
                self._entries.popitem(last=False)
        return body


def file_version(path: Path) -> tuple[int, ...]:
    """Return a key that changes whenever a file does, without reading it. Raises OSError."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def body_reply(request: Request, body: Body, media_type: str = "application/json") -> Response:
    """Return a reply with a body from memory: 304 if the client has it, compressed if the client accepts that."""
    headers = {"ETag": body.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if matches(request.headers.get("if-none-match"), body.etag):
        return Response(status_code=304, headers=headers)
    if accepts_gzip(request.headers.get("accept-encoding")) and body.compressed is not None:
        headers["Content-Encoding"] = "gzip"
        return Response(body.compressed, headers=headers, media_type=media_type)
    return Response(body.content, headers=headers, media_type=media_type)


class RangedFile(FileResponse):
    """A full file or the requested ranges. An invalid range gives the full file, as RFC 9110 allows."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []
        except RangeNotSatisfiable as error:
            message = "the range begins beyond the end of the file"
            raise HTTPException(416, message, {"Content-Range": f"bytes */{file_size}"}) from error


def file_reply(request: Request, path: Path, media_type: str = "application/octet-stream") -> Response:
    """Return a full file from disk, or the requested ranges; 304 if the client has it."""
    headers = {"Cache-Control": "no-cache"}
    reply = RangedFile(path, stat_result=path.stat(), media_type=media_type, headers=headers)
    if matches(request.headers.get("if-none-match"), reply.headers["etag"]):
        kept = ("etag", "last-modified", "cache-control")
        return Response(status_code=304, headers={name: reply.headers[name] for name in kept})
    return reply


def matches(header: str | None, etag: str) -> bool:
    """Return True if an If-None-Match header names this entity tag (weak comparison)."""
    if header is None:
        return False
    return header.strip() == "*" or etag in (tag.removeprefix("W/") for tag in _tags(header))


def matches_strongly(header: str, etag: str) -> bool:
    """Return True if an If-Match header names this entity tag; a weak tag never does."""
    return header.strip() == "*" or etag in _tags(header)


def _tags(header: str) -> list[str]:
    return [tag.strip() for tag in header.split(",")]


def accepts_gzip(header: str | None) -> bool:
    """Return True if an Accept-Encoding header allows gzip, by name or by `*`, with a weight above zero."""
    weights: dict[str, float] = {}
    for item in (header or "").lower().split(","):
        name, _, parameter = item.partition(";")
        key, _, value = parameter.strip().partition("=")
        try:
            weights[name.strip()] = float(value) if key.strip() == "q" else 1.0
        except ValueError:
            weights[name.strip()] = 0.0
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def contained(root: Path, relative: str) -> Path:
    """Return the real path of the file `relative` below `root`.

    Args:
        root: A folder; symbolic links that lead out of it are refused.
        relative: Segments joined by `/`, already percent-decoded.

    Raises:
        MissingFile: There is no such file, it is hidden, or it is outside the root.
    """
    missing = MissingFile(f"there is no file {relative[:200]!r}")
    segments = relative.split("/")
    if any(not part or part.startswith(".") or _FORBIDDEN_CHARACTERS & set(part) for part in segments):
        raise missing
    real_root = root.resolve()
    try:
        path = real_root.joinpath(*segments).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise missing from error
    if not path.is_relative_to(real_root) or not path.is_file():
        raise missing
    return path
