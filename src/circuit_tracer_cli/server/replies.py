"""The replies that routes give: JSON errors, bodies with validators and compression, files with ranges."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import IO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from circuit_tracer_cli.server.bodies import Body
from circuit_tracer_cli.server.ranges import UnsatisfiableRange, parse_range

_CHUNK = 1 << 18


def json_error(
    status: int, error: str, hint: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The one form of every error."""
    reply = JSONResponse({"error": error, "hint": hint}, status, headers)
    reply.headers["Cache-Control"] = "no-store"
    return reply


def body_reply(request: Request, body: Body, media_type: str = "application/json") -> Response:
    """A body in memory: 304 if the client has it, compressed if the client takes that."""
    headers = {"ETag": body.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if matches(request.headers.get("if-none-match"), body.etag):
        return Response(status_code=304, headers=headers)
    if accepts_gzip(request.headers.get("accept-encoding")) and body.compressed is not None:
        headers["Content-Encoding"] = "gzip"
        return Response(body.compressed, headers=headers, media_type=media_type)
    return Response(body.content, headers=headers, media_type=media_type)


def bytes_reply(request: Request, content: bytes, etag: str) -> Response:
    """Bytes in memory, whole or in the range asked for; 304 if the client has them."""
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Accept-Ranges": "bytes"}
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
    try:
        part = parse_range(wanted, len(content))
    except UnsatisfiableRange:
        return _beyond_the_end(len(content))
    start, stop = part or (0, len(content))
    if part:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
    return Response(content[start:stop], 206 if part else 200, headers, "application/octet-stream")


def _beyond_the_end(size: int) -> Response:
    hint = f"the file has {size} bytes"
    return json_error(
        416, "the range begins beyond the end of the file", hint, {"Content-Range": f"bytes */{size}"}
    )


def file_reply(request: Request, path: Path, media_type: str) -> Response:
    """A file straight from the disk, whole or in the range asked for."""
    status = path.stat()
    etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Accept-Ranges": "bytes"}
    headers["Last-Modified"] = formatdate(status.st_mtime, usegmt=True)
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    condition = request.headers.get("if-range", etag)
    wanted = request.headers.get("range") if condition in (etag, headers["Last-Modified"]) else None
    try:
        part = parse_range(wanted, status.st_size)
    except UnsatisfiableRange:
        return _beyond_the_end(status.st_size)
    start, stop = part or (0, status.st_size)
    headers["Content-Length"] = str(stop - start)
    if part:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{status.st_size}"
    code = 206 if part else 200
    if request.method == "HEAD":
        return Response(status_code=code, headers=headers, media_type=media_type)
    return StreamingResponse(_chunks(path.open("rb"), start, stop), code, headers, media_type)


async def _chunks(file: IO[bytes], start: int, stop: int) -> AsyncIterator[bytes]:
    try:
        await run_in_threadpool(file.seek, start)
        while start < stop:
            chunk = await run_in_threadpool(file.read, min(_CHUNK, stop - start))
            if not chunk:
                return
            start += len(chunk)
            yield chunk
    finally:
        file.close()


def matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names this entity tag (weak comparison)."""
    if header is None:
        return False
    return header.strip() == "*" or etag in (tag.removeprefix("W/") for tag in _tags(header))


def matches_strongly(header: str, etag: str) -> bool:
    """Whether an If-Match header names this entity tag; a weak tag never does."""
    return header.strip() == "*" or etag in _tags(header)


def _tags(header: str) -> list[str]:
    return [tag.strip() for tag in header.split(",")]


def accepts_gzip(header: str | None) -> bool:
    """Whether an Accept-Encoding header allows gzip, by name or by `*`, with a weight above zero."""
    weights: dict[str, float] = {}
    for item in (header or "").lower().split(","):
        name, _, parameter = item.partition(";")
        weights[name.strip()] = _weight(parameter)
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
