"""Why one target and not another: what pushes both, what pushes one alone, what holds the other down, with sums that add up.

Both targets are logits minus the vocabulary's mean, so the difference of their rows is the difference of the logits, but for
what no node carries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from circuit_tracer_cli.errors import UnsuitableValue
from circuit_tracer_cli.graph.edges import Array
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import signed_effects
from circuit_tracer_cli.graph.paths import Path, paths_into

LISTS = {
    "both": "pushes both",
    "answer_only": "pushes the answer only",
    "other_down": "holds the other down",
    "other_only": "pushes the other only",
    "answer_down": "holds the answer down",
}
"""The lists by name, and what they hold."""


@dataclass(frozen=True, slots=True)
class Push:
    """A source in one of the lists.

    Attributes:
        node: Its index.
        value: What it adds to the difference of the logits as far as this list is about it.
        answer, other: Its direct effects on the two logits.
        path: The strongest path from a token to it; None for a token or an error itself.
    """

    node: int
    value: float
    answer: float
    other: float
    path: Path | None


@dataclass(frozen=True, slots=True)
class WhyNot:
    """Two targets set against each other.

    Attributes:
        answer, other: Node indices of the two targets.
        difference: Logit of the answer minus logit of the other, from their probabilities.
        lists: The strongest of each of `LISTS`. A source that pushes both counts with the difference of its effects; any other
            counts with its effect on the answer in one list, and with that on the other in another.
        sums: Sum of each whole list; with `rest` they add up to `difference`.
        counts: Sources in each whole list.
        rest: What no node carries: biases, features that the limit on nodes left out, and a soft cap of the logits.
        left_out: Active features that aren't nodes.
    """

    answer: int
    other: int
    difference: float
    lists: dict[str, list[Push]]
    sums: dict[str, float]
    counts: dict[str, int]
    rest: float
    left_out: int


def why_not(graph: Graph, other: str | int, answer: str | int | None = None, n: int = 10) -> WhyNot:
    """Explain why a graph's answer beats another of its targets. No model is needed.

    Args:
        graph: Raw, with both as targets.
        other: The target that lost: its token (a leading space may be missing), `id:N`, or its number among the targets.
        answer: The one that it is compared with; the most likely other target when left out.
        n: Sources in each list; the sums are over all of them.

    Raises:
        UnsuitableValue: The graph is pruned, so that its rows aren't whole, or is asked about another root; one isn't a target
            of the graph, both are the same, or a probability is 0.
    """
    if graph.pruning is not None:
        raise UnsuitableValue("a pruned graph doesn't hold whole rows", "ask the raw graph")
    if graph.root is not None:
        raise UnsuitableValue("the graph explains one of its nodes, not its targets", "ask the raw graph")
    lost = target_number(graph, other)
    won = _most_likely(graph, lost) if answer is None else target_number(graph, answer)
    if won == lost:
        raise UnsuitableValue("both targets are the same", "name two targets")
    if graph.places[won].position != graph.places[lost].position:
        raise UnsuitableValue(
            "the two targets are at different positions, so their logits can't be compared",
            "name two targets at one position",
        )
    first = graph.layout.logit_offset
    rows = [_row(graph, first + number) for number in (won, lost)]
    values = _contributions(*rows)
    difference = _log(graph, won) - _log(graph, lost)
    sums = {name: float(value.sum()) for name, value in values.items()}
    chosen = {name: _strongest(value, n) for name, value in values.items()}
    shown = sorted({node for nodes in chosen.values() for node in nodes if node < graph.layout.n_features})
    paths = paths_into(graph, shown)
    return WhyNot(
        answer=first + won,
        other=first + lost,
        difference=difference,
        lists={
            name: [
                Push(
                    node,
                    float(values[name][node]),
                    float(rows[0][node]),
                    float(rows[1][node]),
                    paths.get(node),
                )
                for node in nodes
            ]
            for name, nodes in chosen.items()
        },
        sums=sums,
        counts={name: int(np.count_nonzero(value)) for name, value in values.items()},
        rest=difference - sum(sums.values()),
        left_out=len(graph.active_features) - graph.layout.n_features,
    )


def target_number(graph: Graph, wanted: str | int) -> int:
    """Return which of a graph's targets is meant. Raises UnsuitableValue for none, and for one that isn't a token."""
    targets = graph.logit_targets
    found = (
        _named(graph, wanted) if isinstance(wanted, str) else [n for n in (wanted,) if 0 <= n < len(targets)]
    )
    if not found:
        names = ", ".join(repr(target.token_str) for target in targets[:6])
        raise UnsuitableValue(
            f"{wanted!r} is not a target of the graph; it has {names}{' …' if len(targets) > 6 else ''}",
            "trace both: circuit-tracer attribute --target ANSWER --target OTHER",
        )
    positions = sorted({graph.places[number].position for number in found})
    if len(positions) > 1:
        raise UnsuitableValue(
            f"{wanted!r} is a target at positions {', '.join(map(str, positions))}",
            "trace it at one: circuit-tracer attribute --target",
        )
    direction = graph.places[found[0]].kind != "token" or targets[found[0]].vocab_idx >= graph.cfg.d_vocab
    if direction or "custom" in str(graph.metadata.get("targets", "")):
        raise UnsuitableValue(
            f"{targets[found[0]].token_str!r} isn't a token",
            "trace the two tokens: circuit-tracer attribute --target ANSWER --target OTHER",
        )
    return found[0]


def _named(graph: Graph, text: str) -> list[int]:
    """The targets with an id, with exactly this text, else with it behind a space."""
    targets = list(enumerate(graph.logit_targets))
    if text.startswith("id:"):
        return [number for number, target in targets if f"id:{target.vocab_idx}" == text]
    exact = [number for number, target in targets if target.token_str == text]
    return exact or [number for number, target in targets if target.token_str == f" {text}"]


def _most_likely(graph: Graph, but: int) -> int:
    probabilities = graph.logit_probabilities.tolist()
    here = graph.places[but].position
    others = [n for n, place in enumerate(graph.places) if n != but and place.position == here]
    if not others:
        raise UnsuitableValue(
            "the graph has one target there, so there is nothing to compare it with",
            "trace both: circuit-tracer attribute --target ANSWER --target OTHER",
        )
    return max(others, key=lambda number: probabilities[number])


def _log(graph: Graph, number: int) -> float:
    probability = float(graph.logit_probabilities[number])
    if not probability > 0:
        raise UnsuitableValue(
            f"{graph.logit_targets[number].token_str!r} has probability 0, so its logit isn't known",
            "name a token that is less unlikely",
        )
    return math.log(probability)


def _row(graph: Graph, target: int) -> Array:
    """float64 `(T)`: the direct effects on a target."""
    row = np.zeros(graph.n_nodes)
    sources, weights = graph.edges.row(target)
    row[sources.cpu().numpy()] = weights.cpu().numpy()
    return row


def _contributions(answer: Array, other: Array) -> dict[str, Array]:
    """What each source adds to the difference, by list; the five add up to `answer - other`."""
    both = (answer > 0) & (other > 0)
    return {
        "both": np.where(both, answer - other, 0),
        "answer_only": np.where(~both & (answer > 0), answer, 0),
        "other_down": np.where(other < 0, -other, 0),
        "other_only": np.where(~both & (other > 0), -other, 0),
        "answer_down": np.where(answer < 0, answer, 0),
    }


def _strongest(values: Array, n: int) -> list[int]:
    order = np.argsort(-np.abs(values), kind="stable")[:n].tolist()
    return [node for node in order if values[node]]


def total_effects(graph: Graph, answer: int, other: int) -> Array:
    """Return float64 `(m)`: what each feature adds to the difference of two targets over all paths.

    In the local replacement model with every active feature linear: turning one feature off takes so much away.
    """
    weights = np.zeros(graph.n_nodes)
    weights[answer], weights[other] = 1.0, -1.0
    scale = np.ones(graph.n_nodes)
    scale[: graph.layout.n_features] = _inverse(_activations(graph))
    return signed_effects(graph.edges, scale, weights)[: graph.layout.n_features]


def changes_without(graph: Graph, ranking: Sequence[int], answer: int, other: int) -> Array:
    """Return float64 `(len(ranking) + 1)`: the change of the difference of two targets with the first 0, 1, … features off.

    As the graph predicts it: a feature that stays on changes in proportion, by the sum of its inputs' changes, each times its
    edge, over its activation.
    """
    place = {node: rank for rank, node in enumerate(ranking)}
    change = np.zeros((graph.n_nodes, len(ranking) + 1))
    inverse = _inverse(_activations(graph))
    for node, rank in place.items():
        change[node, rank + 1 :] = -1.0
    for node, sources, weights in graph.edges.rows():
        if node >= graph.layout.n_features:
            break
        on = place.get(node, len(ranking)) + 1
        change[node, :on] = weights.astype(np.float64) @ change[sources, :on] * inverse[node]
    result: Array = (_row(graph, answer) - _row(graph, other)) @ change
    return result


def _activations(graph: Graph) -> Array:
    values: Array = graph.activation_values.cpu()[graph.selected_features.cpu()].double().numpy()
    return values


def _inverse(values: Array) -> Array:
    return np.divide(1.0, values, out=np.zeros_like(values), where=values != 0)
