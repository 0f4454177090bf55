"""What notebooks show: the viewer inline, tables, charts and supernode figures. Everything returned displays itself."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Html": "html",
    "GraphView": "show",
    "show_graph": "show",
    "Supernode": "figures",
    "InterventionGraph": "figures",
    "create_graph_visualization": "figures",
    "display_ablation_chart": "charts",
    "display_attribution_config": "tables",
    "display_generations_comparison": "tables",
    "display_token_probs": "tables",
    "display_top_features_comparison": "tables",
    "display_topk_token_predictions": "tables",
    "cleanup_cuda": "tables",
    "get_top_features": "tables",
    "get_topk": "tables",
    "get_unembed_vecs": "tables",
}
_ELSEWHERE = {
    "Feature": "circuit_tracer_cli.interventions.urls",
    "decode_url_features": "circuit_tracer_cli.interventions.urls",
    "extract_supernode_features": "circuit_tracer_cli.interventions.urls",
}

__all__ = sorted([*_PUBLIC, *_ELSEWHERE])


def __getattr__(name: str) -> Any:
    """The public name, imported now."""
    if name in _PUBLIC:
        module = f"{__name__}.{_PUBLIC[name]}"
    elif name in _ELSEWHERE:
        module = _ELSEWHERE[name]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return __all__
