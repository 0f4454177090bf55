"""How much of a graph's influence is explained by features and tokens rather than errors (Ameisen et al. 2025)."""

from __future__ import annotations

import numpy as np

from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import as_array, masked_magnitudes, node_influence, row_scale


def compute_graph_scores(graph: Graph) -> tuple[float, float]:
    """Replacement and completeness score, both in 0..1.

    Replacement is the share of influence that starts at tokens rather than errors. Completeness is the influence-weighted share
    of each node's incoming weight that doesn't come from errors. For a pruned graph both are those of the graph before.
    """
    if graph.pruning is not None:
        return graph.pruning.replacement_score, graph.pruning.completeness_score
    edges, layout, weights = graph.edges, graph.layout, as_array(graph.logit_weights)
    scale = row_scale(edges)
    influence = node_influence(edges, scale, weights)
    from_errors = float(influence[layout.error_offset : layout.token_offset].sum())
    from_tokens = float(influence[layout.token_offset : layout.logit_offset].sum())
    errors_in = np.zeros(edges.n)
    for block in edges.blocks():
        is_error = (block.columns >= layout.error_offset) & (block.columns < layout.token_offset)
        rows, weight = block.reduce_rows(np.add, masked_magnitudes(block) * is_error)
        errors_in[rows] += weight
    reach = influence + weights
    explained = float(((1 - errors_in * scale) * reach).sum())
    return _share(from_tokens, from_tokens + from_errors), _share(explained, float(reach.sum()))


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
