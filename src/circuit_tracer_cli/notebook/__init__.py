"""Displays for notebooks: the viewer inline, tables, charts and supernode figures. Everything returned displays itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuit_tracer_cli.interventions.urls import Feature as Feature
    from circuit_tracer_cli.interventions.urls import decode_url_features as decode_url_features
    from circuit_tracer_cli.interventions.urls import extract_supernode_features as extract_supernode_features
    from circuit_tracer_cli.notebook.charts import display_ablation_chart as display_ablation_chart
    from circuit_tracer_cli.notebook.figures import InterventionGraph as InterventionGraph
    from circuit_tracer_cli.notebook.figures import Supernode as Supernode
    from circuit_tracer_cli.notebook.figures import create_graph_visualization as create_graph_visualization
    from circuit_tracer_cli.notebook.html import Html as Html
    from circuit_tracer_cli.notebook.show import GraphView as GraphView
    from circuit_tracer_cli.notebook.show import show_graph as show_graph
    from circuit_tracer_cli.notebook.tables import cleanup_cuda as cleanup_cuda
    from circuit_tracer_cli.notebook.tables import display_attribution_config as display_attribution_config
    from circuit_tracer_cli.notebook.tables import (
        display_generations_comparison as display_generations_comparison,
    )
    from circuit_tracer_cli.notebook.tables import display_token_probs as display_token_probs
    from circuit_tracer_cli.notebook.tables import (
        display_top_features_comparison as display_top_features_comparison,
    )
    from circuit_tracer_cli.notebook.tables import (
        display_topk_token_predictions as display_topk_token_predictions,
    )
    from circuit_tracer_cli.notebook.tables import get_top_features as get_top_features
    from circuit_tracer_cli.notebook.tables import get_topk as get_topk
    from circuit_tracer_cli.notebook.tables import get_unembed_vecs as get_unembed_vecs

_PUBLIC = {
    "Feature": "circuit_tracer_cli.interventions.urls",
    "GraphView": "circuit_tracer_cli.notebook.show",
    "Html": "circuit_tracer_cli.notebook.html",
    "InterventionGraph": "circuit_tracer_cli.notebook.figures",
    "Supernode": "circuit_tracer_cli.notebook.figures",
    "cleanup_cuda": "circuit_tracer_cli.notebook.tables",
    "create_graph_visualization": "circuit_tracer_cli.notebook.figures",
    "decode_url_features": "circuit_tracer_cli.interventions.urls",
    "display_ablation_chart": "circuit_tracer_cli.notebook.charts",
    "display_attribution_config": "circuit_tracer_cli.notebook.tables",
    "display_generations_comparison": "circuit_tracer_cli.notebook.tables",
    "display_token_probs": "circuit_tracer_cli.notebook.tables",
    "display_top_features_comparison": "circuit_tracer_cli.notebook.tables",
    "display_topk_token_predictions": "circuit_tracer_cli.notebook.tables",
    "extract_supernode_features": "circuit_tracer_cli.interventions.urls",
    "get_top_features": "circuit_tracer_cli.notebook.tables",
    "get_topk": "circuit_tracer_cli.notebook.tables",
    "get_unembed_vecs": "circuit_tracer_cli.notebook.tables",
    "show_graph": "circuit_tracer_cli.notebook.show",
}

if not TYPE_CHECKING:
    from circuit_tracer_cli.lazy import names

    __all__ = list(_PUBLIC)
    __getattr__, __dir__ = names(__name__, _PUBLIC)
    del names
