"""The heads that a graph's edges go through, as `heads --all` keeps them in the metadata. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADS = "heads"
"""Key of a graph's metadata."""


def link_extras(metadata: Mapping[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
    """(source, target) → the optional keys `heads` and `heads_rest` of that edge's link; empty for a graph without heads.

    `heads` is `[[layer, head, from position, value], …]`, strongest first; with `heads_rest` it adds up to the weight.
    """
    stored = metadata.get(HEADS)
    links = stored.get("links") if isinstance(stored, Mapping) else None
    return {
        (source, target): {"heads": heads, "heads_rest": rest} for source, target, heads, rest in links or ()
    }
