"""MLP inputs and outputs of the demo model on the unique prefixes of the corpus: what transcoders train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.corpus import Sentence
from training.dataset import Rows
from training.model import DemoTransformer

# How often a position is drawn, relative to an ordinary one.
ANSWER_FACTOR = 3.0
ENTITY_FACTOR = 2.0
TASK_FACTORS = {"antonym": 4.0, "translation": 3.0, "attribute": 2.0, "induction": 1.0}
INDUCTION_LIMIT = 2500
PLACE_KINDS = ("state", "country")


@dataclass
class Activations:
    """Per unique prefix: MLP inputs and outputs (layers, tokens, width), how often it is drawn, whether it predicts an
    answer, whether it ends in the city or place asked about."""

    inputs: Tensor
    outputs: Tensor
    weight: Tensor
    answer: Tensor
    place: Tensor


def collect(model: DemoTransformer, rows: Rows, sentences: Sequence[Sentence]) -> Activations:
    """Run the model over the sentences and keep every prefix once, without position 0 and the last token.

    A prefix is drawn as often as the root of its number of occurrences, times the factors above.
    """
    seen: dict[tuple[int, ...], int] = {}
    inputs, outputs, factors, answers, places = [], [], [], [], []
    induction = [i for i, s in enumerate(sentences) if s.task == "induction"]
    keep = torch.tensor(sorted(set(range(len(sentences))) - set(induction[INDUCTION_LIMIT:])))
    for part in keep[rows.lengths[keep].argsort(stable=True)].split(512):
        chunk = rows.select(part)
        with torch.no_grad():
            trace = model(chunk.ids)
        fresh, factor = _fresh_positions(chunk, [sentences[i].task for i in part.tolist()], seen)
        picked = torch.tensor(fresh).T
        inputs.append(torch.stack([x[picked[0], picked[1]] for x in trace.mlp_inputs]))
        outputs.append(torch.stack([y[picked[0], picked[1]] for y in trace.mlp_outputs]))
        answers.append(picked[1] == chunk.answer_at[picked[0]] - 1)
        of_place = torch.tensor([sentences[i].kind in PLACE_KINDS for i in part.tolist()])
        places.append((picked[1] == chunk.entity_at[picked[0]]) & of_place[picked[0]])
        factors.extend(factor)
    weight = torch.tensor(factors) * torch.tensor(list(seen.values())).sqrt()
    whole = (
        torch.cat(inputs, dim=1),
        torch.cat(outputs, dim=1),
        weight,
        torch.cat(answers),
        torch.cat(places),
    )
    return Activations(*whole)


def _fresh_positions(
    chunk: Rows, tasks: Sequence[str], seen: dict[tuple[int, ...], int]
) -> tuple[list[tuple[int, int]], list[float]]:
    """Positions whose prefix was not seen before, with their factors; counts all prefixes in `seen`."""
    fresh, weights = [], []
    for row, (tokens, length) in enumerate(zip(chunk.ids.tolist(), chunk.lengths.tolist(), strict=True)):
        for position in range(1, length - 1):
            prefix = tuple(tokens[: position + 1])
            seen[prefix] = seen.get(prefix, 0) + 1
            if seen[prefix] > 1:
                continue
            weight = TASK_FACTORS.get(tasks[row], 1.0)
            if position == int(chunk.answer_at[row]) - 1:
                weight *= ANSWER_FACTOR
            if position == int(chunk.entity_at[row]):
                weight *= ENTITY_FACTOR
            fresh.append((row, position))
            weights.append(weight)
    return fresh, weights
