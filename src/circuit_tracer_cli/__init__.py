"""Find, read and test circuits inside language models. Public names load on first use, so that importing costs nothing.

Each public name appears twice below: in an import for type checkers, and in the table for the interpreter. A test keeps them
in step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuit_tracer_cli.attention.loadings import head_loadings as head_loadings
    from circuit_tracer_cli.attention.qk import qk_attribution as qk_attribution
    from circuit_tracer_cli.attribution.attribute import attribute as attribute
    from circuit_tracer_cli.attribution.target_texts import DirectionAt as DirectionAt
    from circuit_tracer_cli.attribution.target_texts import FeatureAt as FeatureAt
    from circuit_tracer_cli.attribution.target_texts import TokenAt as TokenAt
    from circuit_tracer_cli.attribution.targets import AttributionTargets as AttributionTargets
    from circuit_tracer_cli.attribution.targets import CustomTarget as CustomTarget
    from circuit_tracer_cli.errors import CircuitTracerError as CircuitTracerError
    from circuit_tracer_cli.expansion import expand as expand
    from circuit_tracer_cli.export.viewer import create_graph_files as create_graph_files
    from circuit_tracer_cli.graph.graph import Graph as Graph
    from circuit_tracer_cli.graph.groups import group_nodes as group_nodes
    from circuit_tracer_cli.graph.influence import compute_graph_scores as compute_graph_scores
    from circuit_tracer_cli.graph.prune import prune_graph as prune_graph
    from circuit_tracer_cli.graph.store import load_graph as load_graph
    from circuit_tracer_cli.interventions.spec import HeadEdit as HeadEdit
    from circuit_tracer_cli.interventions.urls import decode_url_features as decode_url_features
    from circuit_tracer_cli.many.diff import diff_graphs as diff_graphs
    from circuit_tracer_cli.many.merged_file import merge_graphs as merge_graphs
    from circuit_tracer_cli.many.tables import tables as tables
    from circuit_tracer_cli.notebook.show import show_graph as show_graph
    from circuit_tracer_cli.replacement import ReplacementModel as ReplacementModel
    from circuit_tracer_cli.server.serve import serve as serve
    from circuit_tracer_cli.transcoders.loading import load_transcoders as load_transcoders
    from circuit_tracer_cli.types import LogitTarget as LogitTarget

__version__ = "0.1.0"

_PUBLIC = {
    "AttributionTargets": "circuit_tracer_cli.attribution.targets",
    "CircuitTracerError": "circuit_tracer_cli.errors",
    "CustomTarget": "circuit_tracer_cli.attribution.targets",
    "DirectionAt": "circuit_tracer_cli.attribution.target_texts",
    "FeatureAt": "circuit_tracer_cli.attribution.target_texts",
    "Graph": "circuit_tracer_cli.graph.graph",
    "HeadEdit": "circuit_tracer_cli.interventions.spec",
    "LogitTarget": "circuit_tracer_cli.types",
    "ReplacementModel": "circuit_tracer_cli.replacement",
    "TokenAt": "circuit_tracer_cli.attribution.target_texts",
    "attribute": "circuit_tracer_cli.attribution.attribute",
    "compute_graph_scores": "circuit_tracer_cli.graph.influence",
    "create_graph_files": "circuit_tracer_cli.export.viewer",
    "decode_url_features": "circuit_tracer_cli.interventions.urls",
    "diff_graphs": "circuit_tracer_cli.many.diff",
    "expand": "circuit_tracer_cli.expansion",
    "group_nodes": "circuit_tracer_cli.graph.groups",
    "head_loadings": "circuit_tracer_cli.attention.loadings",
    "load_graph": "circuit_tracer_cli.graph.store",
    "load_transcoders": "circuit_tracer_cli.transcoders.loading",
    "merge_graphs": "circuit_tracer_cli.many.merged_file",
    "prune_graph": "circuit_tracer_cli.graph.prune",
    "qk_attribution": "circuit_tracer_cli.attention.qk",
    "serve": "circuit_tracer_cli.server.serve",
    "show_graph": "circuit_tracer_cli.notebook.show",
    "tables": "circuit_tracer_cli.many.tables",
}

if not TYPE_CHECKING:  # a type checker would accept every unknown name
    from circuit_tracer_cli.lazy import names

    __all__ = ["__version__", *_PUBLIC]
    __getattr__, __dir__ = names(__name__, _PUBLIC)
    del names
