"""From an edge to the score behind it: why the head that carries most of it looks where it looks."""

from __future__ import annotations

from circuit_tracer_cli.attention.loadings import EdgeHeads, strongest_look
from circuit_tracer_cli.attention.prompt import FrozenPrompt
from circuit_tracer_cli.attention.qk import STRONGEST, QKAttribution, attend
from circuit_tracer_cli.graph.roots import node_of


def why(prompt: FrozenPrompt, edge: EdgeHeads, n: int = STRONGEST) -> QKAttribution | None:
    """The score of the strongest look on an edge; None where no head carries it.

    For `arrive` the query is the target's position, for `leave` the key is the source's; `through` takes the look of its
    strongest head that carries most.
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
