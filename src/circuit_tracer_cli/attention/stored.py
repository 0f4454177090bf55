"""Heads and reasons stored in a graph: the strongest heads of every edge, and why the strongest one looks where it looks.

They are in the graph's metadata, and on the links and nodes of its JSON file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from circuit_tracer_cli.attention.loadings import EdgeHeads, HeadLoadings, loadings, strongest_look
from circuit_tracer_cli.attention.prompt import FrozenPrompt
from circuit_tracer_cli.attention.qk import STRONGEST, QKAttribution, attend
from circuit_tracer_cli.errors import UnsuitableValue
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.heads import HEADS, REASONS
from circuit_tracer_cli.graph.roots import node_of

STORED = 4
"""Number of heads stored for each edge."""

LARGEST = 200_000
"""Largest number of edges; a graph with more should be pruned first."""


def edges_between_positions(graph: Graph) -> list[tuple[int, int]]:
    """All edges of a graph as (source, target)."""
    return [(source, target) for block in graph.edges.blocks() for source, target, _ in block.triples()]


def add_heads(prompt: FrozenPrompt) -> HeadLoadings:
    """Store the strongest heads by which every edge arrives in the graph's metadata, and return those of all edges.

    Raises:
        UnsuitableValue: The graph has too many edges.
    """
    graph = prompt.graph
    if graph.edges.nnz > LARGEST:
        raise UnsuitableValue(
            f"the graph has {graph.edges.nnz} edges, but heads can be stored for at most {LARGEST}",
            hint="prune it first: `circuit-tracer prune GRAPH -o pruned.safetensors`",
        )
    pairs = edges_between_positions(graph)
    found = loadings(prompt, pairs, "arrive", STORED)
    links: list[list[Any]] = []
    for (source, target), edge in zip(pairs, found, strict=True):
        if edge.heads:
            heads = [[one.layer, one.head, one.position, one.value] for one in edge.heads]
            links.append([source, target, heads, edge.rest])
    graph.metadata[HEADS] = {"by": "arrive", "links": links}
    return found


def why(prompt: FrozenPrompt, edge: EdgeHeads, n: int = STRONGEST) -> QKAttribution | None:
    """The score of the strongest look on an edge; None if no head carries it.

    For `arrive` the query is the target's position, for `leave` the key is the source's; for `through` it is the strongest
    look of the strongest head.
    """
    if not edge.heads:
        return None
    first = edge.heads[0]
    ends = node_of(prompt.graph, edge.source), node_of(prompt.graph, edge.target)
    if edge.by == "through" or first.position is None:
        query, key = strongest_look(prompt, ends, first.layer, first.head)
    elif edge.by == "leave":
        source_at = int(prompt.engine.columns.places(prompt.source_columns(ends[:1]))[1][0])
        query, key = first.position, source_at
    else:
        query, key = int(prompt.targets(ends[1:]).positions[0]), first.position
    return attend(prompt, first.layer, first.head, query, key, n=n)


def keep_reasons(graph: Graph, edges: Sequence[EdgeHeads], reasons: Sequence[QKAttribution | None]) -> int:
    """Store the reasons of edges in the graph's metadata, by target; the stronger of two edges into one node counts.

    Returns how many nodes have one now.
    """
    kept: dict[str, Any] = {}
    for edge, reason in sorted(zip(edges, reasons, strict=True), key=lambda one: abs(one[0].weight)):
        if reason is not None:
            look = {"layer": reason.layer, "head": reason.head, "query": reason.query, "key": reason.key}
            kept[edge.target] = {
                "look": {**look, "source": edge.source},
                "qk_tracing_results": reason.to_neuronpedia(),
            }
    graph.metadata[REASONS] = {**graph.metadata.get(REASONS, {}), **kept}
    return len(kept)
