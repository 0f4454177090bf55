"""Groups of a graph with their numbers and names: what `group_nodes` returns. numpy only, except for the graphs themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.graph.grouping import (
    ACROSS,
    LEVEL,
    Circuit,
    Floats,
    Members,
    Merge,
    circuit_of,
    dendrogram,
    partition,
)

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph

VERSION = 1
"""Version of the algorithm: the same version gives the same groups for the same graph."""
STABLE_AT = (0.9, 0.95, 0.98, 0.99)
"""Shares of the edges' influence at which a graph is grouped again, to measure stability."""
_SAYS = 0.5


@dataclass(frozen=True, slots=True)
class Quotient:
    """The graph of the groups: every group is one node, other nodes stay.

    Attributes:
        parts: Nodes of each part, groups first.
        weights: float64 `(G, G)`, row = target: sums of the direct effects of one part's members on another's; the diagonal has
            those within a part.
        positive, negative: The positive and the negative part of that sum.
        shares: float64 `(G, G)`: share of the absolute input of a part, its members weighted by `τ + w`.
        influence: float64 `(G)`: sum of the members' influence; `(w + influence) @ shares` gives the same.
        w: float64 `(G)`: weights of the targets.
    """

    parts: list[Members]
    weights: Floats
    positive: Floats
    negative: Floats
    shares: Floats
    influence: Floats
    w: Floats


def quotient(circuit: Circuit, groups: Sequence[Members]) -> Quotient:
    """Return the graph of the groups. Influence, and with it both scores, is that of the graph itself."""
    taken = {node for nodes in groups for node in nodes}
    parts = [*groups, *((node,) for node in range(len(circuit.ids)) if node not in taken)]
    of = np.zeros((len(parts), len(circuit.ids)))
    for part, nodes in enumerate(parts):
        of[part, list(nodes)] = 1
    reach = circuit.influence + circuit.w
    inner = of @ reach
    flow = of @ (reach[:, None] * np.abs(circuit.N)) @ of.T
    return Quotient(
        parts,
        of @ circuit.A @ of.T,
        of @ np.maximum(circuit.A, 0) @ of.T,
        of @ np.minimum(circuit.A, 0) @ of.T,
        flow / np.where(inner > 0, inner, 1)[:, None],
        of @ circuit.influence,
        of @ circuit.w,
    )


@dataclass(frozen=True, slots=True)
class Group:
    """One supernode.

    Attributes:
        name: Its name.
        nodes: Ids of its nodes.
        kept: True if it, or a part of it, was made by hand.
        numbers: `influence` (share of all influence), `coherence` (mean similarity inside minus that to the nearest other group,
            -2..2; None for a single feature or a single group), `stability` (mean overlap with the most similar group at four
            edge thresholds, 0..1); `measured` and `predicted` if a model was available (`validation/groups.py`).
    """

    name: str
    nodes: tuple[str, ...]
    kept: bool
    numbers: Mapping[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": self.name,
            "nodes": list(self.nodes),
            "kept": self.kept,
            "numbers": dict(self.numbers),
        }


@dataclass(frozen=True, slots=True)
class Grouping:
    """The result of grouping.

    Attributes:
        groups: The supernodes, most influential first.
        level, across_positions: How they were made.
        acyclic: True if no cycle leads through the groups; False only if a group made by hand is on one.
        numbers: `coverage` (share of the features' influence in groups), `edges` and `quotient_edges`, `inner` (share of the
            absolute weights inside groups), `stability` (mean adjusted Rand index at four edge thresholds).
        quotient: The graph of the groups; its parts are in the order of `groups`, then the other nodes by id.
        merges: The full dendrogram at one position, by node ids.
    """

    groups: list[Group]
    level: float
    across_positions: bool
    acyclic: bool
    numbers: Mapping[str, float | int | None]
    quotient: Quotient
    merges: list[tuple[str, str, float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For programs, and for the metadata of a graph."""
        return {
            "algorithm": "acyclic average linkage of attribution profiles",
            "version": VERSION,
            "level": self.level,
            "across_positions": self.across_positions,
            "across_level": ACROSS,
            "acyclic": self.acyclic,
            "numbers": dict(self.numbers),
            "groups": [group.to_dict() for group in self.groups],
        }


def group_nodes(
    graph: Graph,
    level: float = LEVEL,
    *,
    across_positions: bool = False,
    keep: Sequence[Sequence[str]] = (),
    labels: Mapping[tuple[int, int], str] | None = None,
) -> Grouping:
    """Group the features of a graph into supernodes. The same graph gives the same groups, whatever the order of its nodes.

    Args:
        graph: A pruned or raw graph; a raw one is pruned with the default thresholds.
        level: Smallest mean similarity at which two groups merge, 0 to 1. Lower values give fewer, larger groups.
        across_positions: Afterwards also merge groups at different positions that share a feature or are very similar.
        keep: Groups to start with, `[name, node id, …]` as in a graph file. They only grow.
        labels: Labels of features by (layer, feature); the default is those that the trace proposes.

    Returns:
        Groups, their numbers and the graph between them, which has no cycle.

    Raises:
        InvalidValue: The level isn't between 0 and 1, or a node is kept twice or isn't in the graph.
        UnsuitableValue: Too many nodes.
    """
    from circuit_tracer_cli.graph.proposals import proposals_of

    pruned = graph.prune()
    circuit = circuit_of(pruned)
    named = {node: one["text"] for node, one in proposals_of(graph.metadata, graph.prompt_tokens).items()}
    for node, layer, feature in zip(
        circuit.ids, circuit.layers.tolist(), circuit.features.tolist(), strict=True
    ):
        if text := (labels or {}).get((layer, feature)):
            named[node] = text
    named |= dict(
        zip(
            pruned.node_ids()[pruned.layout.logit_offset :],
            (t.token_str for t in graph.logit_targets),
            strict=True,
        )
    )
    tokens = graph.prompt_tokens or [str(position) for position in range(graph.n_pos)]
    return group_circuit(
        circuit, level, across_positions=across_positions, keep=keep, labels=named, tokens=tokens
    )


def group_circuit(
    circuit: Circuit,
    level: float,
    *,
    across_positions: bool,
    keep: Sequence[Sequence[str]],
    labels: Mapping[str, str],
    tokens: Sequence[str],
) -> Grouping:
    """Group nodes and edges of any origin; `labels` are by node id."""
    place = {node: at for at, node in enumerate(circuit.ids)}
    if unknown := [node for _, *nodes in keep for node in nodes if node not in place]:
        raise InvalidValue(f"{unknown[0]} isn't a node of the graph")
    seeds = [tuple(place[node] for node in nodes) for _, *nodes in keep]
    found = partition(circuit, level, across_positions=across_positions, seeds=seeds)
    again = [
        partition(_thinned(circuit, share), level, across_positions=across_positions, seeds=seeds).groups
        for share in STABLE_AT
    ]
    order = sorted(
        range(len(found.groups)), key=lambda at: (-circuit.influence[list(found.groups[at])].sum(), at)
    )
    groups = [found.groups[at] for at in order]
    kept = [_seed_of(nodes, seeds) for nodes in groups]
    names = _unique(
        [
            keep[seed][0] if seed is not None else name_of(circuit, nodes, labels, tokens)
            for nodes, seed in zip(groups, kept, strict=True)
        ]
    )
    total = float(circuit.influence.sum()) or 1.0
    coherence = _coherence(circuit, groups)
    return Grouping(
        [
            Group(
                name,
                tuple(circuit.ids[node] for node in nodes),
                seed is not None,
                {
                    "influence": float(circuit.influence[list(nodes)].sum()) / total,
                    "coherence": coherent,
                    "stability": float(np.mean([_overlap(nodes, other) for other in again])),
                },
            )
            for name, nodes, seed, coherent in zip(names, groups, kept, coherence, strict=True)
        ],
        level,
        across_positions,
        found.acyclic,
        _overall(circuit, groups, again),
        quotient(circuit, groups),
        [_named(circuit, merge) for merge in dendrogram(circuit, seeds)],
    )


def _named(circuit: Circuit, merge: Merge) -> tuple[str, str, float]:
    return circuit.ids[merge.first], circuit.ids[merge.second], merge.height


def _seed_of(nodes: Members, seeds: Sequence[Members]) -> int | None:
    return next((at for at, seed in enumerate(seeds) if seed and seed[0] in nodes), None)


def _thinned(circuit: Circuit, share: float) -> Circuit:
    """The circuit with the fewest edges that account for a share of the edges' influence."""
    strength = np.abs(circuit.N) * (circuit.influence + circuit.w)[:, None]
    order = np.argsort(-strength, axis=None, kind="stable")
    sums = np.cumsum(strength.ravel()[order])
    keep = np.zeros(strength.size, dtype=np.bool_)
    keep[order[: int(np.searchsorted(sums, share * sums[-1])) + 1]] = True
    return circuit.with_edges(keep.reshape(strength.shape))


def _overlap(nodes: Members, others: Sequence[Members]) -> float:
    """Shared nodes divided by all nodes, for a group and the most similar one of another grouping."""
    mine = set(nodes)
    return max((len(mine & set(other)) / len(mine | set(other)) for other in others), default=0.0)


def _coherence(circuit: Circuit, groups: Sequence[Members]) -> list[float | None]:
    column = {node: at for at, node in enumerate(circuit.members)}
    parts = [[column[node] for node in nodes if node in column] for nodes in groups]
    similarity = circuit.similarity
    found: list[float | None] = []
    for part in parts:
        others = [
            similarity[np.ix_(part, other)].mean() for other in parts if other is not part and other and part
        ]
        if len(part) < 2 or not others:
            found.append(None)
            continue
        inside = similarity[np.ix_(part, part)]
        pairs = len(part) * (len(part) - 1)
        found.append(float((inside.sum() - np.trace(inside)) / pairs - max(others)))
    return found


def _overall(
    circuit: Circuit, groups: Sequence[Members], again: Sequence[Sequence[Members]]
) -> dict[str, float | int | None]:
    features, grouped = circuit.members, sorted({node for nodes in groups for node in nodes})
    inside = sorted(set(features) & set(grouped))
    whole, of = float(circuit.influence[features].sum()), _labels(circuit, groups)
    targets, sources = circuit.A.nonzero()
    weights, inner = np.abs(circuit.A[targets, sources]), of[targets] == of[sources]
    between = {
        (int(of[t]), int(of[s])) for t, s, same in zip(targets, sources, inner, strict=True) if not same
    }
    return {
        "groups": len(groups),
        "coverage": float(circuit.influence[inside].sum()) / whole if whole else 0.0,
        "edges": len(weights),
        "quotient_edges": len(between),
        "inner": float(weights[inner].sum() / weights.sum()) if len(weights) else 0.0,
        "stability": float(
            np.mean([adjusted_rand(of[features], _labels(circuit, other)[features]) for other in again])
        )
        if features
        else None,
    }


def _labels(circuit: Circuit, groups: Sequence[Members]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A number for each node: that of its group, or its own."""
    of = np.arange(len(circuit.ids), dtype=np.int64) + len(groups)
    for at, nodes in enumerate(groups):
        of[list(nodes)] = at
    return of


def adjusted_rand(a: np.ndarray[Any, np.dtype[np.int64]], b: np.ndarray[Any, np.dtype[np.int64]]) -> float:
    """Adjusted Rand index of two labellings `(n)` (Hubert and Arabie 1985): 1 if they are the same, 0 as by chance."""

    def pairs(counts: np.ndarray[Any, np.dtype[np.int64]]) -> float:
        return float((counts * (counts - 1) / 2).sum())

    _, first, size_a = np.unique(a, return_inverse=True, return_counts=True)
    _, second, size_b = np.unique(b, return_inverse=True, return_counts=True)
    _, common = np.unique(first * len(size_b) + second, return_counts=True)
    of_a, of_b, of_all = pairs(size_a), pairs(size_b), len(a) * (len(a) - 1) / 2
    expected, most = of_a * of_b / of_all if of_all else 0.0, (of_a + of_b) / 2
    return 1.0 if most == expected else (pairs(common) - expected) / (most - expected)


def name_of(circuit: Circuit, nodes: Members, labels: Mapping[str, str], tokens: Sequence[str]) -> str:
    """The most influential word in the labels of a group; "say …" if the group acts on the outputs at its own position."""
    says = _says(circuit, nodes)
    counts = dict[str, float]()
    for node in nodes:
        text = labels.get(circuit.ids[node], "")
        for word in dict.fromkeys(_outputs(text) if says else _words(text)):
            counts[word] = counts.get(word, 0.0) + float(circuit.influence[node])
    if says and not counts and (raised := _raised(circuit, nodes, labels)):
        counts[raised] = 1.0
    where = " and ".join(dict.fromkeys(_shown(tokens, int(circuit.positions[node])) for node in nodes))
    if not counts:
        return f"{len(nodes)} features at {where}"
    word = min(counts.items(), key=lambda item: (-item[1], item[0]))[0]
    return f"say {word}" if says else f"{word}, at {where}"


def _raised(circuit: Circuit, nodes: Members, labels: Mapping[str, str]) -> str:
    """The target that a group raises most, if any."""
    effects = {
        at: float(circuit.A[at, list(nodes)].sum())
        for at, kind in enumerate(circuit.kinds)
        if kind == "logit"
    }
    best = max(effects, key=lambda at: effects[at], default=None)
    return "" if best is None or effects[best] <= 0 else " ".join(labels.get(circuit.ids[best], "").split())


def _says(circuit: Circuit, nodes: Members) -> bool:
    """True if most of a group's effect is on targets at its own position."""
    reach = circuit.influence + circuit.w
    out = np.abs(circuit.N[:, list(nodes)]).sum(1) * reach
    out[list(nodes)] = 0
    at = set(circuit.positions[list(nodes)].tolist())
    to_targets = sum(
        float(out[node])
        for node, kind in enumerate(circuit.kinds)
        if kind == "logit" and circuit.positions[node] in at
    )
    return bool(out.sum() > 0 and to_targets > _SAYS * out.sum())


def _words(text: str) -> list[str]:
    """The parts of a label that tell what it is about, without the tokens that drive it only on this prompt."""
    parts = [part.strip() for part in re.split(r"[,·→⊣…]", re.sub(r"^from [^→⊣]*", "", text))]
    return [word for part in parts if (word := re.sub(r"^(after|before)\s+", "", part))]


def _outputs(text: str) -> list[str]:
    """The parts of a label that tell what comes next: after an arrow or "before"."""
    before, _, after = text.partition("→")
    following = re.search(r"\bbefore ([^→]*)", before)
    return [*_words(after), *(_words(following[1]) if following else [])]


def _shown(tokens: Sequence[str], position: int) -> str:
    return (
        " ".join(tokens[position].split()) or f"position {position}"
        if position < len(tokens)
        else str(position)
    )


def _unique(names: Sequence[str]) -> list[str]:
    """Names, with a number after those that repeat."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return found


def with_numbers(grouping: Grouping, numbers: Sequence[Mapping[str, float | None]]) -> Grouping:
    """Return the result with more numbers for each group."""
    groups = [
        replace(group, numbers={**group.numbers, **more})
        for group, more in zip(grouping.groups, numbers, strict=True)
    ]
    return replace(grouping, groups=groups)
