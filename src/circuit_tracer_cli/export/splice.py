"""Reads the outermost level of a JSON object, and replaces one value without touching another byte."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from circuit_tracer_cli.errors import BadGraphFile

_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class TopLevel:
    """The values of a JSON object and the range of each one's text."""

    values: dict[str, Any]
    spans: dict[str, tuple[int, int]]
    end: int
    """Position of the closing brace."""


def read_top_level(text: str, only: frozenset[str] | None = None, *, strict: bool = True) -> TopLevel:
    """Parse one JSON object.

    Args:
        text: The whole document.
        only: Stop as soon as these keys have been seen; what follows is then not checked.
        strict: Refuse NaN and Infinity, which Python writes and JSON doesn't have.

    Raises:
        BadGraphFile: It isn't JSON, or not an object.
    """
    try:
        return _walk(text, only, strict)
    except (ValueError, IndexError) as error:
        raise BadGraphFile(
            f"not valid JSON: {error}", "write the file again with `circuit-tracer export`"
        ) from error
    except RecursionError as error:
        raise BadGraphFile("not a graph file: nested too deeply") from error


def replace_value(text: str, top: TopLevel, key: str, value: str) -> str:
    """Return the document with the value of `key` replaced by the JSON text `value`, or added at the end."""
    if key in top.spans:
        start, stop = top.spans[key]
        return text[:start] + value + text[stop:]
    comma = ", " if top.values else ""
    return f"{text[: top.end]}{comma}{json.dumps(key)}: {value}{text[top.end :]}"


def _walk(text: str, only: frozenset[str] | None, strict: bool) -> TopLevel:
    decode = json.JSONDecoder(parse_constant=_refuse_constant if strict else None).raw_decode
    values: dict[str, Any] = {}
    spans: dict[str, tuple[int, int]] = {}
    at = _expect(text, 0, "{")
    if text[_skip(text, at)] == "}":
        return _finish(text, values, spans, _skip(text, at))
    while True:
        key, at = decode(text, _skip(text, at))
        if not isinstance(key, str):
            raise ValueError("a key isn't a string")
        start = _skip(text, _expect(text, at, ":"))
        values[key], at = decode(text, start)
        spans[key] = (start, at)
        if only is not None and only <= values.keys():
            return TopLevel(values, spans, at)
        at = _skip(text, at)
        if text[at] == "}":
            return _finish(text, values, spans, at)
        at = _expect(text, at, ",")


def _finish(text: str, values: dict[str, Any], spans: dict[str, tuple[int, int]], end: int) -> TopLevel:
    if _skip(text, end + 1) != len(text):
        raise ValueError("there is text after the closing brace")
    return TopLevel(values, spans, end)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _expect(text: str, at: int, character: str) -> int:
    at = _skip(text, at)
    if text[at] != character:
        raise ValueError(f"expected {character!r} at character {at}")
    return at + 1


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
