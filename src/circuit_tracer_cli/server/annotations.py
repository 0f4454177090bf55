"""What a viewer may save with a graph: the `qParams` object, checked and brought into one form."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from circuit_tracer_cli.errors import InvalidType, InvalidValue

LINK_TYPES = ("input", "output", "either", "both")
_HINT = "send qParams in the form that the graph file holds them, lists as arrays"


def check_annotations(body: object) -> dict[str, Any]:
    """The annotations as they are to be stored: nulls dropped, every known key of its type.

    Raises:
        InvalidType: It isn't an object, or a known key has another type.
        InvalidValue: `linkType` is none of the four, or a number isn't finite.
    """
    if not isinstance(body, dict):
        raise InvalidType("the annotations must be a JSON object", _HINT)
    given = {key: value for key, value in body.items() if value is not None}
    for key, value in given.items():
        problem = _CHECKS[key](value) if key in _CHECKS else None
        if problem:
            raise InvalidType(f"{key} must be {problem}", _HINT)
    if given.get("linkType", "both") not in LINK_TYPES:
        raise InvalidValue(f"linkType must be one of {', '.join(LINK_TYPES)}", _HINT)
    return given


def from_reference(params: Mapping[str, Any]) -> dict[str, Any]:
    """What the reference's page sends, where every value is a string, as arrays and numbers.

    Raises InvalidValue for text that can't be read so.
    """
    converted: dict[str, Any] = {}
    for key, value in params.items():
        is_text = isinstance(value, str)
        converted[key] = _FROM_TEXT[key](key, value) if is_text and key in _FROM_TEXT else value
    return check_annotations(converted)


def _comma_list(_key: str, text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _json_list(key: str, text: str) -> Any:
    try:
        return json.loads(text) if text else []
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"{key} isn't valid JSON", _HINT) from error


def _number(key: str, text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise InvalidValue(f"{key} isn't a number", _HINT) from error


def _string(value: object) -> str | None:
    return None if isinstance(value, str) else "a string"


def _strings(value: object) -> str | None:
    fine = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return None if fine else "an array of strings"


def _groups(value: object) -> str | None:
    fine = isinstance(value, list) and all(item and _strings(item) is None for item in value)
    return None if fine else "an array of [label, node_id, …]"


def _labels(value: object) -> str | None:
    if isinstance(value, str):
        return None
    fine = isinstance(value, list) and all(_strings(item) is None and len(item) == 2 for item in value)
    return None if fine else "an array of [feature id, label]"


def _finite(value: object) -> str | None:
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return None if fine else "a finite number"


_CHECKS: dict[str, Callable[[object], str | None]] = {
    "pinnedIds": _strings,
    "hiddenIds": _strings,
    "supernodes": _groups,
    "clerps": _labels,
    "linkType": _string,
    "clickedId": _string,
    "sg_pos": _string,
    "gridsnap": _string,
    "pruningThreshold": _finite,
    "edgeThreshold": _finite,
}

_FROM_TEXT: dict[str, Callable[[str, str], Any]] = {
    "pinnedIds": _comma_list,
    "hiddenIds": _comma_list,
    "supernodes": _json_list,
    "clerps": _json_list,
    "pruningThreshold": _number,
}
