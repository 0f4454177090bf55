"""What a viewer saves with a graph: the `qParams` object, validated and normalized."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.server.bodies import parsed

_HINT = "send qParams as in the graph file, with lists as arrays"


class Annotations(BaseModel):
    """`qParams`; keys that aren't listed here are kept as they are."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    pinnedIds: list[str] = []
    hiddenIds: list[str] = []
    supernodes: list[Annotated[list[str], Field(min_length=1)]] = []
    clerps: str | list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    linkType: Literal["input", "output", "either", "both"] = "both"
    clickedId: str = ""
    sg_pos: str = ""
    gridsnap: str = ""
    pruningThreshold: float = 0.0
    edgeThreshold: float = 0.0


def check_annotations(body: object) -> dict[str, Any]:
    """Return the annotations to store: nulls dropped, the rest as sent. Raises InvalidType, InvalidValue."""
    parsed(Annotations, body, _HINT)
    assert isinstance(body, dict)
    return {key: value for key, value in body.items() if value is not None}


def from_reference(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the reference's page sends as strings, converted to arrays and numbers. Raises as `check_annotations`."""
    return check_annotations(
        {
            key: _FROM_TEXT[key](key, value) if isinstance(value, str) and key in _FROM_TEXT else value
            for key, value in params.items()
        }
    )


def _comma_list(_key: str, text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _json_list(key: str, text: str) -> Any:
    try:
        return json.loads(text) if text else []
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"{key} isn't valid JSON", _HINT) from error


def _number(key: str, text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError as error:
        raise InvalidValue(f"{key} isn't a number", _HINT) from error


_FROM_TEXT: dict[str, Callable[[str, str], Any]] = {
    "pinnedIds": _comma_list,
    "hiddenIds": _comma_list,
    "supernodes": _json_list,
    "clerps": _json_list,
    "pruningThreshold": _number,
}
