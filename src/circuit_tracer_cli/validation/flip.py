"""What would make it the other token: the fewest features whose removal should turn the answer over, and whether it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from circuit_tracer_cli.graph.contrast import changes_without, total_effects
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.interventions.run import Constraints
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.validation.subject import Subject

START = 8
"""Features turned off first where the graph doesn't say how many should do."""
MOST_RUNS = 8
"""Runs of the unconstrained model that look for the fewest features."""


@dataclass(frozen=True, slots=True)
class Removal:
    """The first features of the ranking turned off together.

    Attributes:
        count: How many.
        predicted: Logit of the answer minus logit of the other, by the graph.
        frozen: The same in the model with attention patterns pinned; None where that wasn't run.
        open: The same with nothing pinned.
        top: Vocabulary index of the most likely token then, with nothing pinned.
    """

    count: int
    predicted: float
    frozen: float | None
    open: float
    top: int


@dataclass(frozen=True, slots=True)
class Flip:
    """What was looked for and found.

    Attributes:
        ranking: Feature nodes that push the answer over the other, those with the largest total effect first.
        before: The difference of the logits in the unmodified model.
        predicted: The fewest features that should do, by the graph; None if no number of them should.
        measured: The removals that were run, by count.
        fewest: Fewest features of those runs with which the other logit is the larger one; None if none does. Smaller sets
            of other features may do as well.
    """

    ranking: list[int]
    before: float
    predicted: int | None
    measured: list[Removal]
    fewest: int | None


def find_flip(graph: Graph, model: ReplacementModel, answer: int, other: int, most: int = 256) -> Flip:
    """Turn features off until another target beats the answer, those first that by the graph do most for the answer.

    Args:
        graph: Raw.
        model: The model and transcoders that it was made with.
        answer, other: Node indices of two token targets, as in `WhyNot`.
        most: Features turned off at most.

    Raises:
        ModelMismatch: The graph was made with something else.
        UnsuitableValue: The graph is asked about another root.
    """
    subject = Subject(graph, model)
    effects = total_effects(graph, answer, other)
    order = sorted(
        (node for node in range(len(effects)) if effects[node] > 0), key=lambda node: -effects[node]
    )
    ranking = order[:most]
    first = graph.layout.logit_offset
    ids = [graph.logit_targets[node - first].vocab_idx for node in (answer, other)]

    def difference(nodes: Sequence[int], constraints: Constraints) -> tuple[float, int]:
        edits = tuple(subject.edit(node, 0.0) for node in nodes)
        with model.zero_softcap():
            logits = subject.run(edits, constraints).logits[-1].double()
        return float(logits[ids[0]] - logits[ids[1]]), int(logits.argmax())

    free = Constraints(freeze_attention=False)
    before, _ = difference((), free)
    predicted = (before + changes_without(graph, ranking, answer, other)).tolist()
    opened: dict[int, tuple[float, int]] = {}

    def flips(count: int) -> bool:
        opened[count] = difference(ranking[:count], free)
        return opened[count][0] < 0

    enough = next((count for count, value in enumerate(predicted) if value < 0), None) if before > 0 else None
    start = enough or min(START, len(ranking))
    fewest = _search(flips, start, len(ranking)) if ranking and before > 0 else None
    pinned = {count for count in (enough, fewest) if count}
    measured = [
        Removal(
            count,
            predicted[count],
            difference(ranking[:count], Constraints())[0] if count in pinned else None,
            *opened[count],
        )
        for count in sorted(opened)
    ]
    return Flip(ranking, before, enough, measured, fewest)


def _search(holds: Callable[[int], bool], start: int, most: int) -> int | None:
    """The smallest count found in at most `MOST_RUNS` tries: doubled from `start` until it holds, then halved between."""
    low, high, runs = 0, start, 1
    while not holds(high):
        if high == most or runs == MOST_RUNS:
            return None
        low, high, runs = high, min(2 * high, most), runs + 1
    while high - low > 1 and runs < MOST_RUNS:
        middle, runs = (low + high) // 2, runs + 1
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
