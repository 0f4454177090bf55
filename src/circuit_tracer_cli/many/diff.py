"""Comparison of two graphs: shared nodes, nodes in only one, nodes that only pruning cut, and why a target's value differs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from circuit_tracer_cli.errors import CircuitTracerError, InvalidValue
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.many.align import Alignment, Level, align, node_keys, packed_keys
from circuit_tracer_cli.many.facts import FEATURE, KINDS, LOGIT, Array, Facts, facts_of_graph, read_facts

Class = Literal["shared", "only_a", "only_b", "pruned_only", "unknown"]
CLASSES: tuple[Class, ...] = ("shared", "only_a", "only_b", "pruned_only", "unknown")
SHARED, ONLY_A, ONLY_B, PRUNED_ONLY, UNKNOWN = range(5)


@dataclass(frozen=True, slots=True)
class Column:
    """One graph's values over the union of nodes or edges, zero where absent.

    Attributes:
        share: Nodes: share of the features' influence. Edges: share of the target's input.
        flow: Nodes: influence. Edges: share times the target's influence.
        value: Nodes: activation. Edges: weight.
        kept: bool, kept by pruning.
        present: bool, known to the graph before pruning.
    """

    share: Array
    flow: Array
    value: Array
    kept: Array
    present: Array


@dataclass(frozen=True, slots=True)
class Change:
    """What one source adds to a target in both graphs.

    `b - a = by_activation + by_path`: a feature's weight is its activation times a gain, so the change is `(act_b - act_a) g_a`
    because it is more or less active, and `act_b (g_b - g_a)` because it reaches the target differently. If only one graph has
    the feature, the change is all by activation. Tokens and errors have no activation: theirs is by path. `key` is the source's
    key under the alignment of the two graphs.
    """

    node: str
    kind: str
    a: float
    b: float
    by_activation: float
    by_path: float
    key: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values."""
        names = ("node", "kind", "a", "b", "by_activation", "by_path")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class GraphDiff:
    """Two graphs compared.

    Attributes:
        a, b: The graphs.
        alignment: The matching of positions.
        keys: uint64 `(N)`, the union of the nodes kept in either graph, ascending.
        ids: `N` node ids, as in `a` if it has the node, else as in `b`.
        node_class: int8 `(N)`, an index into `CLASSES`.
        nodes: `Column` over the nodes of either graph.
        edge_ends: int64 `(M, 2)`: source and target of each edge of the union, as indices into `keys`.
        edge_class: int8 `(M)`.
        edges: `Column` over the edges of either graph.
        scores: Similarities in 0..1 and both graphs' own scores.
        target: Id of the target whose change is decomposed, in either graph.
        changes: Changes of that target, largest first. They sum to the difference of its input.
        noise: Share of influence below which a difference is noise; None if it wasn't measured.
        change_noise: The same for changes of a source's contribution; None if it wasn't measured.
    """

    a: Facts
    b: Facts
    alignment: Alignment
    keys: Array
    ids: list[str]
    node_class: Array
    nodes: tuple[Column, Column]
    edge_ends: Array
    edge_class: Array
    edges: tuple[Column, Column]
    scores: dict[str, float]
    target: tuple[str, str]
    changes: list[Change]
    noise: float | None = None
    change_noise: float | None = None

    def of_class(self, name: Class) -> list[str]:
        """Ids of the nodes of one class, most influential first."""
        chosen = np.flatnonzero(self.node_class == CLASSES.index(name))
        weight = np.maximum(self.nodes[0].flow, self.nodes[1].flow)[chosen]
        return [self.ids[i] for i in chosen[np.argsort(-weight, kind="stable")].tolist()]

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values, numbers unrounded; a score that the file doesn't say is None."""
        counts = {name: int((self.edge_class == i).sum()) for i, name in enumerate(CLASSES)}
        return {
            "a": self.a.name,
            "b": self.b.name,
            "alignment": {
                "level": self.alignment.level,
                "match": self.alignment.match,
                "slots": [
                    {"name": name, "a": a, "b": b}
                    for name, (a, b) in zip(self.alignment.names, self.alignment.pairs(), strict=True)
                ],
            },
            **{name: self.of_class(name) for name in CLASSES},
            "edges": counts,
            "scores": {name: value if math.isfinite(value) else None for name, value in self.scores.items()},
            "target": {"a": self.target[0], "b": self.target[1]},
            "noise": self.noise,
            "change_noise": self.change_noise,
            "nodes": [
                {
                    "node": self.ids[i],
                    "class": CLASSES[int(self.node_class[i])],
                    "share_a": float(self.nodes[0].share[i]),
                    "share_b": float(self.nodes[1].share[i]),
                    "noise": self.within_noise(i),
                }
                for i in self.largest_share_changes().tolist()
            ],
            "changes": [change.to_dict() for change in self.changes],
        }

    def within_noise(self, i: int) -> bool:
        """Whether the shares of a node differ by no more than noise, if that was measured."""
        moved = abs(float(self.nodes[0].share[i] - self.nodes[1].share[i]))
        return self.noise is not None and moved <= self.noise

    def largest_share_changes(self) -> Array:
        """int64: indices of the features, largest difference in their share of the influence first."""
        moved = np.abs(self.nodes[0].share - self.nodes[1].share)
        order = np.argsort(-moved, kind="stable")
        largest: Array = order[moved[order] > 0]
        return largest


def diff_graphs(
    a: Graph | str | os.PathLike[str],
    b: Graph | str | os.PathLike[str],
    *,
    align: Level | None = None,
    target: str | None = None,
) -> GraphDiff:
    """Compare two graphs, as `circuit-tracer diff` does.

    Args:
        a: A graph or the path of its file: `.safetensors`, `.pt` or the viewer's `.json`.
        b: The graph to compare it with.
        align: How positions are matched; None for `exact` if the prompts are equal, else `slots`.
        target: Id of the node in `a` or `b` whose change is decomposed; None for the most likely token.

    Raises:
        MissingFile: No such file.
        BadGraphFile: A file is damaged.
        CircuitTracerError: The graphs can't be aligned.
        InvalidValue: Neither graph has the target.
    """
    first, second = (
        facts_of_graph(graph, name) if isinstance(graph, Graph) else read_facts(Path(graph))
        for graph, name in ((a, "A"), (b, "B"))
    )
    return diff_facts(first, second, align, target)


def diff_facts(
    a: Facts,
    b: Facts,
    level: Level | None = None,
    target: str | None = None,
    noise: float | None = None,
    change_noise: float | None = None,
) -> GraphDiff:
    """Compare two graphs.

    Args:
        a: The first graph.
        b: The second.
        level: How positions are matched; None to choose (see `align`).
        target: Id of the node in `a` or `b` whose change is decomposed; None for the first target.
        noise, change_noise: Stored in the record.

    Raises:
        CircuitTracerError: The graphs can't be aligned.
        InvalidValue: Neither graph has the target.
    """
    alignment = align([a, b], level)
    keys_of = [node_keys(g, slots, alignment.match) for g, slots in zip((a, b), alignment.slots, strict=True)]
    target_nodes = _targets(a, b, keys_of, target)
    union = np.unique(np.concatenate([keys[g.kept] for g, keys in zip((a, b), keys_of, strict=True)]))
    nodes = tuple(
        _node_column(g, keys, union, slots, alignment)
        for g, keys, slots in zip((a, b), keys_of, alignment.slots, strict=True)
    )
    edge_keys = [_edge_keys(g, keys, union) for g, keys in zip((a, b), keys_of, strict=True)]
    edge_union = np.unique(np.concatenate(edge_keys))
    edges = tuple(_edge_column(g, keys, edge_union) for g, keys in zip((a, b), edge_keys, strict=True))
    n = max(1, len(union))
    ends = np.stack([edge_union % n, edge_union // n], axis=1)
    node_class = _classes(nodes, (a, b))
    return GraphDiff(
        a=a,
        b=b,
        alignment=alignment,
        keys=union,
        ids=_ids(union, (a, b), keys_of),
        node_class=node_class,
        nodes=(nodes[0], nodes[1]),
        edge_ends=ends,
        edge_class=_edge_classes(edges, ends, nodes),
        edges=(edges[0], edges[1]),
        scores=_scores(nodes, edges, (a, b)),
        target=(a.ids[target_nodes[0]], b.ids[target_nodes[1]]),
        changes=target_changes(a, b, keys_of, target_nodes),
        noise=noise,
        change_noise=change_noise,
    )


def _sum_over(keys: Array, values: Array, union: Array) -> Array:
    """float64 over `union`: the sum of the values of each key; other keys are ignored."""
    out = np.zeros(len(union))
    place = np.searchsorted(union, keys).clip(max=max(0, len(union) - 1))
    inside = np.isin(keys, union)
    np.add.at(out, place[inside], values[inside])
    return out


def _node_column(graph: Facts, keys: Array, union: Array, slots: Array, alignment: Alignment) -> Column:
    present = _sum_over(keys, np.ones(len(keys)), union) > 0
    if graph.graph is not None and alignment.match == "feature":
        active = graph.graph.active_features.cpu().numpy()
        all_active = packed_keys(
            np.full(len(active), FEATURE), active[:, 0] + 1, slots[active[:, 1]], active[:, 2]
        )
        present |= np.isin(union, all_active)
    return Column(
        share=_sum_over(keys, graph.share, union),
        flow=_sum_over(keys, graph.influence, union),
        value=_sum_over(keys, np.nan_to_num(graph.activation), union),
        kept=_sum_over(keys[graph.kept], np.ones(int(graph.kept.sum())), union) > 0,
        present=present,
    )


def _edge_keys(graph: Facts, keys: Array, union: Array) -> Array:
    """int64 `(E)`: target index times the number of nodes plus source index."""
    place = np.searchsorted(union, keys)
    return place[graph.target] * max(1, len(union)) + place[graph.source]


def _edge_column(graph: Facts, keys: Array, union: Array) -> Column:
    kept = np.isin(union, keys)
    return Column(
        share=_sum_over(keys, graph.edge_share, union),
        flow=_sum_over(keys, graph.flow, union),
        value=_sum_over(keys, graph.weight, union),
        kept=kept,
        present=kept,
    )


def _classes(columns: Sequence[Column], graphs: Sequence[Facts]) -> Array:
    """A node that one graph keeps and the other one cut differs only by pruning; a viewer file doesn't tell."""
    a, b = columns
    out = np.full(len(a.kept), SHARED, dtype=np.int8)
    for column, other, graph, only in ((a, b, graphs[1], ONLY_A), (b, a, graphs[0], ONLY_B)):
        alone = column.kept & ~other.kept
        out[alone & other.present] = PRUNED_ONLY
        out[alone & ~other.present] = only if graph.graph is not None else UNKNOWN
    return out


def _edge_classes(columns: Sequence[Column], ends: Array, nodes: Sequence[Column]) -> Array:
    """An edge that only one graph keeps, between nodes that both have, may exist in the other below the threshold."""
    a, b = columns
    out = np.full(len(a.kept), SHARED, dtype=np.int8)
    for column, other, their_nodes, only in ((a, b, nodes[1], ONLY_A), (b, a, nodes[0], ONLY_B)):
        alone = column.kept & ~other.kept
        known: Array = np.all(their_nodes.present[ends], axis=1)
        out[alone] = np.where(known[alone], PRUNED_ONLY, only)
    return out


def _ids(union: Array, graphs: Sequence[Facts], keys_of: Sequence[Array]) -> list[str]:
    names: list[str] = [""] * len(union)
    for graph, keys in reversed(list(zip(graphs, keys_of, strict=True))):
        order = np.argsort(keys, kind="stable")
        places = np.searchsorted(keys, union, sorter=order).clip(max=len(keys) - 1)
        nodes = order[places]
        for i in np.flatnonzero(keys[nodes] == union).tolist():
            names[i] = graph.ids[int(nodes[i])]
    return names


def _scores(nodes: Sequence[Column], edges: Sequence[Column], graphs: Sequence[Facts]) -> dict[str, float]:
    """Similarities of kept nodes and of flows, 1 for equal graphs; and each graph's own scores."""
    (na, nb), (ea, eb) = nodes, edges
    either = float((na.kept | nb.kept).sum())
    largest = float(np.maximum(ea.flow, eb.flow).sum())
    norms = float(np.linalg.norm(ea.flow) * np.linalg.norm(eb.flow))
    return {
        "jaccard": float((na.kept & nb.kept).sum()) / either if either else 1.0,
        "weighted_jaccard": float(np.minimum(ea.flow, eb.flow).sum()) / largest if largest else 1.0,
        "cosine": float(ea.flow @ eb.flow) / norms if norms else 1.0,
        "shared_influence": 1 - float(np.abs(na.share - nb.share).sum()) / 2,
        "replacement_a": graphs[0].replacement,
        "replacement_b": graphs[1].replacement,
        "completeness_a": graphs[0].completeness,
        "completeness_b": graphs[1].completeness,
    }


def _targets(a: Facts, b: Facts, keys_of: Sequence[Array], target: str | None) -> tuple[int, int]:
    """The node in both graphs whose change is decomposed. Raises InvalidValue, CircuitTracerError."""
    if target is None:
        first = int(a.target_nodes[0])
        same = np.flatnonzero(keys_of[1] == keys_of[0][first])
        return first, int(same[0]) if len(same) else int(b.target_nodes[0])
    for here, (own, other) in enumerate(((a, b), (b, a))):
        if target not in own.ids:
            continue
        node = own.ids.index(target)
        same = np.flatnonzero(keys_of[1 - here] == keys_of[here][node])
        if not len(same) and own.kind[node] == LOGIT:
            same = other.target_nodes[:1]
        if not len(same):
            raise CircuitTracerError(
                f"{other.name} has no node that matches {target}", "choose one that both graphs have"
            )
        pair = (node, int(same[0]))
        return pair if here == 0 else (pair[1], pair[0])
    raise InvalidValue(f"neither graph has a node {target}", "circuit-tracer show GRAPH lists node ids")


def _row(graph: Facts, node: int) -> tuple[Array, Array]:
    """Sources and weights of a node's whole input in the file, cut by pruning or not."""
    if graph.graph is not None:
        sources, weights = graph.graph.edges.row(node)
        return sources.cpu().numpy().astype(np.int64), weights.double().cpu().numpy()
    here = graph.target == node
    return graph.source[here], graph.weight[here]


def target_changes(a: Facts, b: Facts, keys_of: Sequence[Array], targets: tuple[int, int]) -> list[Change]:
    """Why a target's input differs between two graphs, by source, largest change first."""
    rows = [_row(graph, node) for graph, node in zip((a, b), targets, strict=True)]
    source_keys = [keys[sources] for keys, (sources, _) in zip(keys_of, rows, strict=True)]
    union = np.unique(np.concatenate(source_keys))
    weight = [_sum_over(keys, row[1], union) for keys, row in zip(source_keys, rows, strict=True)]
    active = [
        _sum_over(keys, np.nan_to_num(graph.activation[row[0]]), union)
        for graph, keys, row in zip((a, b), source_keys, rows, strict=True)
    ]
    kind = (union >> np.uint64(62)).astype(np.int64)
    has = [value != 0 for value in active]
    gain = [np.divide(w, x, out=np.zeros_like(w), where=x != 0) for w, x in zip(weight, active, strict=True)]
    change = weight[1] - weight[0]
    of_both = (active[1] - active[0]) * gain[0]
    by_activation = np.where(kind == FEATURE, np.where(has[0] & has[1], of_both, change), 0.0)
    order = np.argsort(-np.abs(change), kind="stable")
    ids = _ids(union, (a, b), keys_of)
    return [
        Change(
            node=ids[i],
            kind=KINDS[int(kind[i])],
            a=float(weight[0][i]),
            b=float(weight[1][i]),
            by_activation=float(by_activation[i]),
            by_path=float(change[i] - by_activation[i]),
            key=int(union[i]),
        )
        for i in order.tolist()
    ]


def threshold_noise(graph: Facts) -> float:
    """Return how much shares of influence change when only the pruning changes: the 95th percentile over the kept features.

    Shares of the graph pruned at the defaults are compared with those of the same graph pruned at 0.9 and 0.99. Raises
    CircuitTracerError for a graph that was pruned already.
    """
    from circuit_tracer_cli.graph.prune import pruned_graph

    if graph.graph is None or not graph.whole:
        raise CircuitTracerError(
            f"{graph.name} is pruned, so its noise can't be measured",
            "pass the raw graph to --noise",
        )
    facts = [
        facts_of_graph(pruned_graph(graph.graph, *thresholds), graph.name)
        for thresholds in ((None, None), (0.9, 0.99))
    ]
    return share_noise(facts[0], facts[1])


NOISE_QUANTILE = 0.95


def share_noise(graph: Facts, again: Facts) -> float:
    """Return how much shares of influence differ between two graphs of one prompt that should be equal.

    The 95th percentile of the absolute differences over the features that `graph` keeps.

    Args:
        graph: The original graph.
        again: The same prompt, with other pruning or traced in another dtype.
    """
    positions = np.arange(graph.n_pos)
    kept = graph.kept & (graph.kind == FEATURE)
    if not kept.any():
        return 0.0
    keys = node_keys(graph, positions)[kept]
    order = np.argsort(keys)
    other = _sum_over(node_keys(again, positions), again.share, keys[order])
    return float(np.quantile(np.abs(graph.share[kept][order] - other), NOISE_QUANTILE))


def changes_noise(graph: Facts, again: Facts, target: str | None = None) -> float:
    """Return how much sources' contributions to a target differ between two traces of one prompt: the 95th percentile.

    Args:
        graph: The original graph.
        again: The same prompt traced in another dtype.
        target: Id of the target; None, or an id that `graph` lacks, for the first target.
    """
    moved = [
        abs(change.b - change.a)
        for change in diff_facts(graph, again, "exact", target if target in graph.ids else None).changes
    ]
    return float(np.quantile(moved, NOISE_QUANTILE)) if moved else 0.0


def path_lengths(graph: Facts, longest: int = 64) -> Array:
    """float64 `(n)`: the share of the targets' influence that starts at tokens and errors and takes 1, 2, … edges.

    Works for any two graphs of a prompt, whatever their transcoders: a cross-layer set has shorter paths than a per-layer one.
    """
    n = len(graph.kind)
    weights = np.zeros(n)
    for node, (_, _, weight) in zip(graph.target_nodes.tolist(), graph.targets, strict=True):
        weights[node] = weight
    entering = np.zeros(n)
    np.add.at(entering, graph.target, graph.edge_share)
    share = graph.edge_share / np.where(entering > 0, entering, 1)[graph.target]
    ends = graph.kind != FEATURE
    found: list[float] = []
    current = weights
    while current.any() and len(found) < longest:
        following = np.zeros(n)
        np.add.at(following, graph.source, share * current[graph.target])
        found.append(float(following[ends].sum()))
        current = np.where(ends, 0.0, following)
    total = sum(found)
    return np.array(found) / total if total else np.array(found)
