"""Does the answer follow the place in the middle? Every question asked again with its features changed, by the tool's own engine.

Asked are the cities and the wording on which no feature was chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Literal

import torch

from circuit_tracer_cli.demo.corpus import TWO_HOP_TEMPLATES, fill
from circuit_tracer_cli.demo.facts_places import Place as Facts
from circuit_tracer_cli.demo.facts_places import countries, states
from circuit_tracer_cli.demo.places import place_edits, places
from circuit_tracer_cli.interventions.run import Constraints
from circuit_tracer_cli.interventions.spec import Intervention

if TYPE_CHECKING:
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.tokens import Tokens

FREE = Constraints(freeze_attention=False)
GROUPS = (("state", "capital"), ("state", "abbreviation"), ("country", "capital"))


@dataclass(frozen=True, slots=True)
class Question:
    """A two-hop question about a city, the place in between, and another place to put there instead."""

    prompt: str
    city: str
    place: str
    other: str
    answer: str
    other_answer: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a group of questions went; shares are of the questions that were answered right.

    Attributes:
        kind, relation: What was asked: "state", "capital".
        asked, right: Questions, and those answered right before any change.
        off_changes: The place's features off: another answer than before.
        swap_follows: The other place's features on as well: that place's answer.
        control_keeps: The other place's features off instead of the place's own: still the right answer.
    """

    kind: str
    relation: str
    asked: int
    right: int
    off_changes: float
    swap_follows: float
    control_keeps: float


def questions(kind: str, relation: str) -> list[Question]:
    """About every second city of every place, those that no feature was chosen on; the other place is the fifth on."""
    listed = states() if kind == "state" else countries()
    template = TWO_HOP_TEMPLATES[0]
    others = islice(cycle(listed), 5, None)
    return [
        Question(
            prompt=fill(template, place.attributes[relation], "two_hop", entity=city, kind=kind, relation=relation).prompt,
            city=city,
            place=place.name,
            other=other.name,
            answer=place.attributes[relation],
            other_answer=other.attributes[relation],
        )
        for place, other in zip(listed, others, strict=False)
        for city in _unseen(place)
    ]  # fmt: skip


def _unseen(place: Facts) -> Sequence[str]:
    return place.cities[1::2]


def city_position(tokens: Tokens, city: str) -> int:
    """Where the city's token is. Raises ValueError if it isn't in the prompt."""
    return tokens.strings.index(f" {city}")


def outcome(
    model: ReplacementModel,
    transcoders: Literal["clt", "plt"],
    kind: str,
    relation: str,
    asked: Sequence[Question],
    advance: Callable[[], None] = lambda: None,
) -> Outcome:
    """Ask each question as it is, then with the place off, swapped, and with the other place off."""
    known = places(transcoders)
    results = []
    for question in asked:
        tokens = model.tokenize(question.prompt)
        at = city_position(tokens, question.city)
        own, other = known[question.place], known[question.other]
        before, off, swapped, control = (
            _answer(model, tokens, some)
            for some in (
                [],
                place_edits(own, None, at),
                place_edits(own, other, at),
                place_edits(other, None, at),
            )
        )
        if before == question.answer:
            results.append((off != before, swapped == question.other_answer, control == before))
        advance()
    shares = torch.tensor(results, dtype=torch.float64).reshape(-1, 3).mean(0).tolist()
    return Outcome(kind, relation, len(asked), len(results), *shares)


def _answer(model: ReplacementModel, tokens: Tokens, some: list[Intervention]) -> str:
    logits = model.interventions.run(tokens, some, FREE).logits[-1]
    return str(model.tokenizer.decode([int(logits.argmax())])).removeprefix(" ")


def all_questions() -> Iterator[tuple[str, str, list[Question]]]:
    """Every group with its questions. Region, language, currency and continent are shared by places and left out."""
    for kind, relation in GROUPS:
        yield kind, relation, questions(kind, relation)
