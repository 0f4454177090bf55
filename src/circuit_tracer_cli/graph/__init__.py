"""The attribution graph as a record: its files, influence, pruning, scores and paths. Knows no model, transcoder or prompt."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Edges": "edges",
    "EdgesBuilder": "edges",
    "Graph": "graph",
    "PruneResult": "prune",
    "Pruning": "graph",
    "compute_edge_influence": "influence",
    "compute_graph_scores": "influence",
    "compute_influence": "influence",
    "compute_node_influence": "influence",
    "find_threshold": "prune",
    "load_graph": "store",
    "normalize_matrix": "influence",
    "prune_graph": "prune",
    "pruned_graph": "prune",
    "save_graph": "store",
    "strongest_nodes": "paths",
    "strongest_paths": "paths",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """The public name, imported now, so that torch is loaded only by those who use it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_PUBLIC))
