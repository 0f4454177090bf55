"""How heads are written: `L14H3`. Imports no torch."""

from __future__ import annotations

import re

from circuit_tracer_cli.errors import InvalidValue

_HEAD = re.compile(r"[Ll](\d{1,4})[Hh](\d{1,4})")


def parse_head(text: str) -> tuple[int, int]:
    """Layer and head of `L14H3`. Raises InvalidValue."""
    found = _HEAD.fullmatch(text.strip())
    if found is None:
        raise InvalidValue(
            f"the head {text!r} is not written L14H3", hint="layer and head, both counted from 0"
        )
    return int(found[1]), int(found[2])


def head_name(layer: int, head: int) -> str:
    """`L14H3`."""
    return f"L{layer}H{head}"
