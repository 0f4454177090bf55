"""Find, read and test circuits inside language models. Public names load on first use, so that importing costs nothing."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "ReplacementModel": "circuit_tracer_cli.replacement",
    "attribute": "circuit_tracer_cli.attribution.attribute",
    "AttributionTargets": "circuit_tracer_cli.attribution.targets",
    "CustomTarget": "circuit_tracer_cli.attribution.targets",
    "LogitTarget": "circuit_tracer_cli.types",
    "Graph": "circuit_tracer_cli.graph.graph",
    "head_loadings": "circuit_tracer_cli.attention.loadings",
    "load_graph": "circuit_tracer_cli.graph.store",
    "prune_graph": "circuit_tracer_cli.graph.prune",
    "compute_graph_scores": "circuit_tracer_cli.graph.scores",
    "create_graph_files": "circuit_tracer_cli.export.viewer",
    "serve": "circuit_tracer_cli.server.serve",
    "show_graph": "circuit_tracer_cli.notebook.show",
    "decode_url_features": "circuit_tracer_cli.interventions.urls",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    """The public name, imported now."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_PUBLIC))
