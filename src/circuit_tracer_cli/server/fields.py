"""The parts of a request's body, each read strictly: the error names the part that is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from circuit_tracer_cli.errors import InvalidType, InvalidValue


def record(body: object, known: Iterable[str], example: str) -> dict[str, Any]:
    """The parts that aren't null. Raises InvalidType for what is no object, InvalidValue for a part that isn't known."""
    if not isinstance(body, dict):
        raise InvalidType("the body must be an object", f"for example {example}")
    names = list(known)
    unknown = sorted(set(body) - set(names))
    if unknown:
        raise InvalidValue(f"the body has an unknown part {unknown[0]!r}", f"known are {', '.join(names)}")
    return {key: value for key, value in body.items() if value is not None}


def text(given: Mapping[str, Any], name: str) -> str | None:
    """A text, or None where it isn't given. Raises InvalidType."""
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidType(f"{name} must be a text")
    return value


def texts(given: Mapping[str, Any], name: str, most: int) -> tuple[str, ...] | None:
    """An array of at most `most` texts, or None. Raises InvalidType, InvalidValue."""
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidType(f"{name} must be an array of texts")
    if len(value) > most:
        raise InvalidValue(f"{name} has {len(value)} parts, at most {most} are taken")
    return tuple(value)


def flag(given: Mapping[str, Any], name: str, default: bool) -> bool:
    """True or false. Raises InvalidType."""
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise InvalidType(f"{name} must be true or false")
    return value


def whole(given: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    """A whole number between two. Raises InvalidType, InvalidValue."""
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidType(f"{name} must be a whole number")
    if not least <= value <= most:
        raise InvalidValue(f"{name} is {value}, but must lie between {least} and {most}")
    return value


def number(given: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    """A number between two. Raises InvalidType, InvalidValue."""
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidType(f"{name} must be a number")
    if not least <= value <= most:
        raise InvalidValue(f"{name} is {value}, but must lie between {least} and {most}")
    return float(value)
