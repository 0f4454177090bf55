"""Does turning off what the graph names make the model say the other capital? `python -m benchmarks.why_not`.

Each of the demo's held-out questions has an answer and another answer. The graph ranks the features that push the first over the
second and says how many should be turned off; the model is run without them, and without as many others drawn at random.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from itertools import islice, zip_longest
from statistics import median

from circuit_tracer_cli import ReplacementModel, attribute
from circuit_tracer_cli.demo import Question, questions
from circuit_tracer_cli.graph.contrast import why_not
from circuit_tracer_cli.interventions.run import Constraints
from circuit_tracer_cli.validation.flip import Flip, Removal, find_flip
from circuit_tracer_cli.validation.subject import Subject

RANDOM_SETS = 5


def main() -> None:
    """Print how often the predicted removal flips the answer, how many features it takes, and the control."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--set", default="demo", choices=("demo", "demo-plt"))
    arguments = parser.parse_args()
    model = ReplacementModel.from_pretrained("demo", arguments.set)
    found: list[tuple[Flip, Removal | None]] = []
    controls: list[bool] = []
    largest_rest = 0.0
    for asked in _spread(arguments.questions):
        graph = attribute(
            asked.prompt, model, attribution_targets=[f" {asked.answer}", f" {asked.other_answer}"]
        )
        compared = why_not(graph, f" {asked.other_answer}", f" {asked.answer}")
        if compared.difference <= 0:
            continue
        largest_rest = max(largest_rest, abs(compared.rest))
        flip = find_flip(graph, model, compared.answer, compared.other)
        at = next((one for one in flip.measured if one.count == flip.predicted), None)
        found.append((flip, at))
        if flip.fewest is not None:
            ids = [graph.logit_targets[n].vocab_idx for n in (0, 1)]
            controls += _random_flips(Subject(graph, model), flip.fewest, ids)
    flips = [at for _, at in found if at is not None]
    fewest = [flip.fewest for flip, _ in found if flip.fewest is not None]
    print(f"{len(found)} questions that the model answers, set {arguments.set}")
    print(f"predicted to flip: {len(flips)}, with a median of {median(one.count for one in flips)} features")
    print(f"of these, flipped with attention pinned: {sum((one.frozen or 0) < 0 for one in flips)}")
    print(f"of these, flipped with nothing pinned: {sum(one.open < 0 for one in flips)}")
    print(f"flipped at last: {len(fewest)}, with a median of {median(fewest)} features")
    print(f"random sets of the sizes that flipped at last: {sum(controls)} of {len(controls)} flip")
    print(f"largest rest of a sum: {largest_rest:.3f}")


def _spread(count: int) -> Iterator[Question]:
    """Questions in turn from every kind and relation."""
    groups = [list(asked) for _, _, asked in questions()]
    return islice((one for row in zip_longest(*groups) for one in row if one is not None), count)


def _random_flips(subject: Subject, count: int, ids: list[int]) -> list[bool]:
    """Whether random features, as many, flip the answer too; several draws."""
    drawn, nodes = random.Random(0), subject.nodes("feature")
    outcomes = []
    for _ in range(RANDOM_SETS):
        chosen = drawn.sample(nodes, min(count, len(nodes)))
        edits = tuple(subject.edit(node, 0.0) for node in chosen)
        logits = subject.run(edits, Constraints(freeze_attention=False)).logits[-1]
        outcomes.append(bool(logits[ids[0]] < logits[ids[1]]))
    return outcomes


if __name__ == "__main__":
    main()
