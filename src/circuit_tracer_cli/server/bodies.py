"""Request bodies: limited in size, strict JSON, read into pydantic models whose errors name the invalid part."""

from __future__ import annotations

import json
import math
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from circuit_tracer_cli.errors import InvalidType, InvalidValue, UsageError

_WORDS = {
    "extra_forbidden": "unknown key",
    "missing": "missing",
    "string_type": "must be a string",
    "list_type": "must be an array",
    "bool_type": "must be true or false",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
}


class RequestBody(BaseModel):
    """A request's body: keys of exact types and no others. A null counts as absent."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


Known = TypeVar("Known", bound=BaseModel)


def parsed(kind: type[Known], value: object, hint: str | None = None) -> Known:
    """Return a body's value as a model.

    Raises:
        InvalidType: It isn't an object, or a key has another type.
        InvalidValue: A key is unknown, or its value is out of bounds.
    """
    if not isinstance(value, dict):
        raise InvalidType("the body must be a JSON object", hint)
    try:
        return kind.model_validate({key: part for key, part in value.items() if part is not None})
    except ValidationError as error:
        raise _in_words(error, hint or f"known keys: {', '.join(kind.model_fields)}") from None


def _in_words(error: ValidationError, hint: str) -> UsageError:
    """The first error, as a sentence."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part)[:80] for part in first["loc"][:3]) or "the body"
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "must")
    words = _WORDS.get(first["type"], message[:1].lower() + message[1:])
    kind = (
        InvalidType if first["type"].endswith("_type") or first["type"] == "int_from_float" else InvalidValue
    )
    return kind(f"{place}: {words}", hint)


async def json_body(request: Request, limit: int) -> Any:
    """Return the body's value. Raises HTTPException: 413 for more than `limit` bytes, 400 if it isn't JSON."""
    return await run_in_threadpool(as_json, await limited_body(request, limit))


async def limited_body(request: Request, limit: int) -> bytes:
    """Return the body's bytes. Raises HTTPException 413 for more than `limit`."""
    too_large = HTTPException(413, f"the body is larger than {limit >> 20} MiB")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise too_large
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            raise too_large
    return bytes(content)


def as_json(content: bytes) -> Any:
    """Return the value of a JSON document without NaN and Infinity. Raises HTTPException 400."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not a JSON number")

    def finite(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            refuse(text)
        return value

    try:
        return json.loads(content, parse_constant=refuse, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "the body isn't valid JSON") from error
