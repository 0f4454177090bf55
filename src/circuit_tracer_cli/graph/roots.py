"""A graph with one of its own nodes as root instead of its targets: the same edges, but influence on that node."""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from circuit_tracer_cli.errors import UnsuitableValue
from circuit_tracer_cli.graph.graph import ROOT, Graph
from circuit_tracer_cli.graph.influence import as_array, compute_graph_scores, node_influence, row_scale
from circuit_tracer_cli.graph.layout import feature_id
from circuit_tracer_cli.graph.prune import cumulative_scores

_FEATURE = re.compile(r"(\d{1,9})/(\d{1,18})@(-?\d{1,9})")


def node_of(graph: Graph, name: str) -> int:
    """Return the node with an id of the JSON graph file, or written `layer/feature@position`. Raises UnsuitableValue."""
    written = _FEATURE.fullmatch(name.strip())
    wanted = name.strip()
    if written is not None:
        layer, feature, position = map(int, written.groups())
        wanted = feature_id(layer, feature, position + graph.n_pos if position < 0 else position)
    try:
        return graph.node_ids().index(wanted)
    except ValueError:
        raise UnsuitableValue(
            f"the graph has no node {name}",
            hint="`circuit-tracer show` lists the strongest nodes; features are written layer/feature@position",
        ) from None


def rooted_graph(graph: Graph, node: int | str | None) -> Graph:
    """Return the graph with another root: see `Graph.rooted`.

    A raw graph keeps all its edges, so its scores and pruning are exact for the new root. A pruned graph keeps only the nodes
    that reach the root, and scores and shares are those of its remaining edges.
    """
    metadata = {key: value for key, value in graph.metadata.items() if key != ROOT}
    if node is None:
        if graph.pruning is not None and ROOT in graph.metadata:
            raise UnsuitableValue(
                f"the graph was pruned for {graph.metadata[ROOT]}, so it can no longer explain its targets",
                "start from the raw graph",
            )
        return graph.replace(metadata=metadata)
    index = node_of(graph, node) if isinstance(node, str) else node
    _check_root(graph, index)
    rooted = graph.replace(metadata={**metadata, ROOT: graph.node_id(index)}, pruning=None)
    return rooted if graph.pruning is None else _within_pruned(graph, rooted, index)


def _check_root(graph: Graph, node: int) -> None:
    """Raise UnsuitableValue for a node that can't be explained."""
    if not 0 <= node < graph.n_nodes:
        raise UnsuitableValue(f"there is no node {node}: the graph has {graph.n_nodes}")
    name = graph.node_id(node)
    if graph.node_kind(node) in ("error", "token"):
        raise UnsuitableValue(
            f"{name} is an error or a token, which has no inputs to explain",
            "name a feature or a target",
        )
    if graph.pruning is not None and not bool(graph.pruning.node_mask[node]):
        raise UnsuitableValue(f"{name} was removed by pruning", "start from the raw graph")


def _within_pruned(graph: Graph, rooted: Graph, root: int) -> Graph:
    """The part of a pruned graph that leads to the root."""
    assert graph.pruning is not None
    edges, weights = rooted.edges, as_array(rooted.logit_weights)
    influence = torch.from_numpy(node_influence(edges, row_scale(edges), weights)).to(torch.float32)
    leads_there = influence.numpy() > 0
    leads_there[root] = True
    keep = torch.zeros(edges.nnz, dtype=torch.bool)
    for block in edges.blocks():
        keep[block.place] = torch.from_numpy(block.of_rows(leads_there) & leads_there.take(block.columns))
    mask = torch.from_numpy(leads_there.copy())
    layout = graph.layout
    mask[layout.token_offset : layout.logit_offset] = True
    replacement, completeness = compute_graph_scores(rooted)
    pruning = replace(
        graph.pruning,
        node_mask=mask.to(graph.pruning.node_mask.device),
        cumulative_scores=cumulative_scores(influence).to(edges.device),
        replacement_score=replacement,
        completeness_score=completeness,
        stability=None,
    )
    return rooted.replace(adjacency_matrix=edges.select(keep.to(edges.device)), pruning=pruning)
