"""The bodies of requests: limited in size, and strict JSON."""

from __future__ import annotations

import json
import math

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request


async def json_body(request: Request, limit: int) -> object:
    """The body's value. Raises HTTPException: 413 for more than `limit` bytes, 400 for what isn't JSON."""
    content = await _limited_body(request, limit)
    try:
        return await run_in_threadpool(_strict_json, content)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "the body isn't valid JSON") from error


async def _limited_body(request: Request, limit: int) -> bytes:
    too_large = HTTPException(413, f"the body is larger than {limit >> 20} MiB")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise too_large
    return bytes(content)


def _strict_json(content: bytes) -> object:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not a JSON number")

    def finite(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            refuse(text)
        return value

    return json.loads(content, parse_constant=refuse, parse_float=finite)
