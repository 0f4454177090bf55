"""What a graph's metadata keep of attention: heads of edges (`heads --all`), and why one looks there (`heads --why -o`).

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADS = "heads"
"""Key of a graph's metadata."""
REASONS = "qk_tracing"
"""The same for reasons: node id → `look` and `qk_tracing_results`."""


def link_extras(metadata: Mapping[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
    """(source, target) → the optional keys `heads` and `heads_rest` of that edge's link; empty for a graph without heads.

    `heads` is `[[layer, head, from position, value], …]`, strongest first; with `heads_rest` it adds up to the weight.
    """
    stored = metadata.get(HEADS)
    links = stored.get("links") if isinstance(stored, Mapping) else None
    return {
        (source, target): {"heads": heads, "heads_rest": rest} for source, target, heads, rest in links or ()
    }


def node_extras(metadata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Node id → the optional keys `qk_tracing_results`, in the shape of Neuronpedia's viewer, and `qk_look` of that node."""
    stored = metadata.get(REASONS)
    if not isinstance(stored, Mapping):
        return {}
    return {
        name: {"qk_tracing_results": one["qk_tracing_results"], "qk_look": one["look"]}
        for name, one in stored.items()
    }


def sources_of_reasons(metadata: Mapping[str, Any]) -> list[str]:
    """Ids of all nodes that reasons name, each once."""
    found: dict[str, None] = {}
    for extra in node_extras(metadata).values():
        told = extra["qk_tracing_results"]
        for q, k, _ in told["pair_wise_contributors"]:
            found |= {q: None, k: None}
        for side in ("top_q_marginal_contributors", "top_k_marginal_contributors"):
            found |= dict.fromkeys(name for name, _ in told[side])
    return list(found)
