"""Attention in a graph's metadata: heads of edges (`heads --all`), and why one looks there (`heads --why -o`).

Imports no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

HEADS = "heads"
"""Key of a graph's metadata."""
REASONS = "qk_tracing"
"""The same for reasons: node id → `look` and `qk_tracing_results`."""


_SOURCE = re.compile(r"(E|\d{1,9})_(-1|\d{1,18})_(\d{1,9})")
_SIDES = ("top_q_marginal_contributors", "top_k_marginal_contributors")


def link_extras(metadata: Mapping[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
    """(source, target) → the optional keys `heads` and `heads_rest` of that edge's link; empty for a graph without heads.

    `heads` is `[[layer, head, from position, value], …]`, strongest first; with `heads_rest` it adds up to the weight. Damaged
    entries are left out.
    """
    stored = metadata.get(HEADS)
    links = stored.get("links") if isinstance(stored, Mapping) else None
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for link in links if isinstance(links, list) else ():
        if not isinstance(link, list) or len(link) != 4:
            continue
        source, target, heads, rest = link
        whole = isinstance(heads, list) and all(_is_row(head, 4) for head in heads)
        if whole and isinstance(source, int) and isinstance(target, int) and _is_number(rest):
            found[source, target] = {"heads": heads, "heads_rest": rest}
    return found


def node_extras(metadata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Node id → the optional keys `qk_tracing_results`, in the shape of Neuronpedia's viewer, and `qk_look` of that node.

    Damaged entries are left out.
    """
    stored = metadata.get(REASONS)
    found: dict[str, dict[str, Any]] = {}
    for name, one in stored.items() if isinstance(stored, Mapping) else ():
        told = one.get("qk_tracing_results") if isinstance(one, Mapping) else None
        if isinstance(told, Mapping) and isinstance(one.get("look"), Mapping) and _is_reason(told):
            found[name] = {"qk_tracing_results": told, "qk_look": one["look"]}
    return found


def sources_of_reasons(metadata: Mapping[str, Any]) -> list[str]:
    """Ids of all nodes named in reasons, each once."""
    found: dict[str, None] = {}
    for extra in node_extras(metadata).values():
        told = extra["qk_tracing_results"]
        for q, k, _ in told["pair_wise_contributors"]:
            found |= {q: None, k: None}
        for side in _SIDES:
            found |= dict.fromkeys(name for name, _ in told[side])
    return list(found)


def _is_reason(told: Mapping[str, Any]) -> bool:
    rows = [("pair_wise_contributors", 3), *((side, 2) for side in _SIDES)]
    return all(
        isinstance(told.get(key), list) and all(_is_named_row(row, width) for row in told[key])
        for key, width in rows
    )


def _is_named_row(row: Any, width: int) -> bool:
    return (
        isinstance(row, list)
        and len(row) == width
        and all(isinstance(name, str) and _SOURCE.fullmatch(name) for name in row[:-1])
        and _is_number(row[-1])
    )


def _is_row(row: Any, width: int) -> bool:
    return isinstance(row, list) and len(row) == width and all(map(_is_number, row))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
