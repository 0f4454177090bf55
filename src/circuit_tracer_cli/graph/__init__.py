"""The attribution graph as a record: its files, influence, pruning, scores and paths. Independent of models and transcoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.edges import Edges as Edges
    from circuit_tracer_cli.graph.edges import EdgesBuilder as EdgesBuilder
    from circuit_tracer_cli.graph.graph import Graph as Graph
    from circuit_tracer_cli.graph.graph import Pruning as Pruning
    from circuit_tracer_cli.graph.influence import compute_edge_influence as compute_edge_influence
    from circuit_tracer_cli.graph.influence import compute_graph_scores as compute_graph_scores
    from circuit_tracer_cli.graph.influence import compute_influence as compute_influence
    from circuit_tracer_cli.graph.influence import compute_node_influence as compute_node_influence
    from circuit_tracer_cli.graph.influence import normalize_matrix as normalize_matrix
    from circuit_tracer_cli.graph.paths import strongest_nodes as strongest_nodes
    from circuit_tracer_cli.graph.paths import strongest_paths as strongest_paths
    from circuit_tracer_cli.graph.prune import PruneResult as PruneResult
    from circuit_tracer_cli.graph.prune import find_threshold as find_threshold
    from circuit_tracer_cli.graph.prune import prune_graph as prune_graph
    from circuit_tracer_cli.graph.prune import pruned_graph as pruned_graph
    from circuit_tracer_cli.graph.store import load_graph as load_graph
    from circuit_tracer_cli.graph.store import save_graph as save_graph

_PUBLIC = {
    "Edges": "circuit_tracer_cli.graph.edges",
    "EdgesBuilder": "circuit_tracer_cli.graph.edges",
    "Graph": "circuit_tracer_cli.graph.graph",
    "PruneResult": "circuit_tracer_cli.graph.prune",
    "Pruning": "circuit_tracer_cli.graph.graph",
    "compute_edge_influence": "circuit_tracer_cli.graph.influence",
    "compute_graph_scores": "circuit_tracer_cli.graph.influence",
    "compute_influence": "circuit_tracer_cli.graph.influence",
    "compute_node_influence": "circuit_tracer_cli.graph.influence",
    "find_threshold": "circuit_tracer_cli.graph.prune",
    "load_graph": "circuit_tracer_cli.graph.store",
    "normalize_matrix": "circuit_tracer_cli.graph.influence",
    "prune_graph": "circuit_tracer_cli.graph.prune",
    "pruned_graph": "circuit_tracer_cli.graph.prune",
    "save_graph": "circuit_tracer_cli.graph.store",
    "strongest_nodes": "circuit_tracer_cli.graph.paths",
    "strongest_paths": "circuit_tracer_cli.graph.paths",
}

if not TYPE_CHECKING:
    from circuit_tracer_cli.lazy import names

    __all__ = list(_PUBLIC)
    __getattr__, __dir__ = names(__name__, _PUBLIC)
    del names
