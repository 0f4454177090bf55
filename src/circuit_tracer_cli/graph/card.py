"""A graph in a few lines of HTML, for notebooks: what it is, its scores, its strongest nodes. All text is escaped."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from circuit_tracer_cli.graph.influence import compute_node_influence
from circuit_tracer_cli.graph.scores import compute_graph_scores

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph

MOST_EDGES = 20_000_000
"""Beyond so many edges nothing is computed for the sake of display."""
_N_NODES, _N_TARGETS, _LONGEST = 8, 5, 300


def graph_card(graph: Graph) -> str:
    """The HTML."""
    layout = graph.layout
    counts = (
        f"{layout.n_features:,} features, {layout.n_layers * layout.n_pos:,} errors, {layout.n_pos:,} tokens, "
        f"{graph.edges.nnz:,} edges{'; pruned' if graph.pruning else ''}"
    )
    targets = ", ".join(
        f"<code>{_text(target.token_str or target.vocab_idx)}</code> {probability:.3f}"
        for target, probability in list(
            zip(graph.logit_targets, graph.logit_probabilities.tolist(), strict=True)
        )[:_N_TARGETS]
    )
    rows = [("prompt", _text(graph.input_string)), ("targets", targets), ("graph", counts)]
    rows.append(("transcoders", _text(graph.scan if isinstance(graph.scan, str) else "one per layer")))
    if graph.edges.nnz <= MOST_EDGES:
        replacement, completeness = _scores(graph)
        rows.append(("scores", f"replacement {replacement:.3f}, completeness {completeness:.3f}"))
        rows.append(("strongest", _strongest(graph)))
    body = "".join(
        f'<tr><th style="text-align:left;vertical-align:top">{name}</th><td style="text-align:left">{value}</td></tr>'
        for name, value in rows
    )
    return f"<table><tbody>{body}</tbody></table>"


def _scores(graph: Graph) -> tuple[float, float]:
    if graph.pruning is not None:
        return graph.pruning.replacement_score, graph.pruning.completeness_score
    return compute_graph_scores(graph)


def _strongest(graph: Graph) -> str:
    """Nodes with the largest influence, but for the targets themselves."""
    influence = compute_node_influence(graph.edges, graph.logit_weights)[: graph.layout.logit_offset]
    best = influence.topk(min(_N_NODES, len(influence)))
    total = float(influence.sum()) or 1.0
    return "<br>".join(
        f"<code>{_text(_name(graph, node))}</code> {value / total:.1%}"
        for node, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    )


def _name(graph: Graph, node: int) -> str:
    """A node as `show` writes it, with its token."""
    layout, tokens = graph.layout, graph.prompt_tokens
    kind = layout.kind(node)
    if kind == "feature":
        layer, position, feature = graph.active_features[graph.selected_features[node]].tolist()
        name = f"{layer}/{feature}@{position}"
    elif kind == "error":
        layer, position = layout.error_place(node)
        name = f"error {layer}@{position}"
    else:
        position = layout.token_position(node)
        name = f"token @{position}"
    return f"{name} {tokens[position]!r}" if tokens else name


def _text(value: object) -> str:
    shown = str(value)
    return html.escape(shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…", quote=True)
