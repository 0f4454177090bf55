"""A graph's nodes as plain values, and the graph as a networkx graph, a pandas table, or HTML for a notebook."""

from __future__ import annotations

import html
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_tracer_cli.errors import CircuitTracerError
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import compute_graph_scores, compute_node_influence
from circuit_tracer_cli.graph.layout import NodeKind

if TYPE_CHECKING:
    import networkx
    import pandas


MOST_EDGES = 20_000_000
"""Above this number of edges, nothing is computed for display."""
_N_NODES, _N_TARGETS, _LONGEST = 8, 5, 300


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as plain values; fields that don't apply to its kind are None.

    Attributes:
        index: Index in the graph's node order.
        node_id: As in the JSON graph file.
        kind: feature, error, token or logit; a target that is a feature counts as one.
        layer: Layer of a feature or error.
        position: Position in the prompt; for a logit, the one that it is predicted at.
        feature: Number of a feature within its layer.
        activation: Activation of a feature.
        token: The prompt token of a token node, the target of a logit node, as text.
        vocab_idx: Vocabulary index of a token or logit.
        probability: Probability of a target, or its weight.
        influence: Cumulative influence score, if the graph is pruned; targets and roots have none.
    """

    index: int
    node_id: str
    kind: NodeKind
    position: int
    layer: int | None = None
    feature: int | None = None
    activation: float | None = None
    token: str | None = None
    vocab_idx: int | None = None
    probability: float | None = None
    influence: float | None = None


def iter_nodes(graph: Graph) -> Iterator[NodeView]:
    """The kept nodes of a pruned graph, all nodes of another, in node order."""
    kept = [True] * graph.n_nodes if graph.pruning is None else graph.pruning.node_mask.tolist()
    scores = None if graph.pruning is None else graph.pruning.cumulative_scores.tolist()
    features = graph.active_features[graph.selected_features].tolist()
    activations = graph.activation_values[graph.selected_features.to(graph.activation_values.device)].tolist()
    root = graph.root
    for index, node_id in enumerate(graph.node_ids()):
        if kept[index]:
            influence = scores[index] if scores and index != root else None
            yield _view(graph, index, node_id, influence, features, activations)


def _view(
    graph: Graph,
    index: int,
    node_id: str,
    influence: float | None,
    features: list[list[int]],
    activations: list[float],
) -> NodeView:
    layout = graph.layout
    kind = layout.kind(index)
    if kind == "feature":
        layer, position, feature = features[index]
        return NodeView(
            index, node_id, kind, position, layer, feature, activation=activations[index], influence=influence
        )
    if kind == "error":
        layer, position = layout.error_place(index)
        return NodeView(index, node_id, kind, position, layer, influence=influence)
    if kind == "token":
        position = layout.token_position(index)
        token = graph.prompt_tokens[position] if graph.prompt_tokens else None
        vocab_idx = int(graph.input_tokens[position])
        return NodeView(index, node_id, kind, position, token=token, vocab_idx=vocab_idx, influence=influence)
    place = index - layout.logit_offset
    target, probability = graph.logit_targets[place], float(graph.logit_probabilities[place])
    at = graph.places[place]
    if at.kind == "feature":
        row = graph.target_rows()[place]
        activation = None if row is None else float(graph.activation_values[row])
        feature = target.vocab_idx
        return NodeView(
            index, node_id, "feature", at.position, at.layer, feature, activation, probability=probability
        )
    return NodeView(
        index,
        node_id,
        kind,
        at.position,
        token=target.token_str,
        vocab_idx=target.vocab_idx,
        probability=probability,
    )


def to_networkx(graph: Graph) -> networkx.DiGraph[str]:
    """A directed graph over node ids, edges from source to target with their signed `weight`.

    Nodes carry what `NodeView` has for their kind. Raises CircuitTracerError if networkx isn't installed.
    """
    result: networkx.DiGraph[str] = _optional("networkx").DiGraph(prompt=graph.input_string)
    for node in iter_nodes(graph):
        values = {name: getattr(node, name) for name in NodeView.__slots__ if name != "node_id"}
        result.add_node(node.node_id, **{name: value for name, value in values.items() if value is not None})
    names = graph.node_ids()
    for block in graph.edges.blocks():
        result.add_weighted_edges_from((names[s], names[t], weight) for s, t, weight in block.triples())
    return result


def to_dataframe(graph: Graph) -> pandas.DataFrame:
    """One line per edge: `source`, `target` (node ids, as categories), `source_kind`, `target_kind`, `weight` (float32).

    Raises CircuitTracerError if pandas isn't installed.
    """
    library = _optional("pandas")
    names = graph.node_ids()
    kinds = [graph.layout.kind(i) for i in range(graph.n_nodes)]
    order: list[NodeKind] = ["feature", "error", "token", "logit"]
    codes = [order.index(kind) for kind in kinds]
    columns: dict[str, Any] = {}
    targets = np.repeat(np.arange(graph.n_nodes), graph.edges.indptr.diff().cpu().numpy())
    sources = graph.edges.indices.cpu().numpy()
    for name, nodes in (("source", sources), ("target", targets)):
        columns[name] = library.Categorical.from_codes(nodes, categories=names)
    lookup = np.array(codes)
    for name, nodes in (("source_kind", sources), ("target_kind", targets)):
        columns[name] = library.Categorical.from_codes(lookup[nodes], categories=order)
    columns["weight"] = graph.edges.values.cpu().numpy()
    table: pandas.DataFrame = library.DataFrame(columns)
    return table


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CircuitTracerError(f"{name} isn't installed", f"pip install {name}") from error


def graph_card(graph: Graph) -> str:
    """Return a graph's summary, scores and strongest nodes as HTML for notebooks; all text is escaped."""
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
    """Nodes with the largest influence, without the targets."""
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
