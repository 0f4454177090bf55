"""Is there a "Texas" in the middle? Features of the intermediate place, and what changing them does.

Feature sets are chosen on some cities and templates and scored on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch import Tensor

from circuit_tracer_cli.demo import Question
from training.corpus import TWO_HOP_TEMPLATES, Sentence, fill
from training.dataset import Rows, make_rows
from training.facts import Place, countries, states
from training.measure_model import Bench
from training.model import Edit
from training.shipped import ShippedSet

CHOOSING_TEMPLATES = TWO_HOP_TEMPLATES[1:]
SCORING_TEMPLATE = TWO_HOP_TEMPLATES[0]
UNIQUE_RELATIONS = {"state": ("capital", "abbreviation"), "country": ("capital",)}
RECALL = 0.5
PRECISION = 0.12
TIE = 1e-4


@dataclass
class FeatureSets:
    """Features of each place at its cities' tokens, judged on the choosing prompts.

    Attributes:
        mask: Active on at least half of the place's prompts, and not too often elsewhere: (places, layers, features).
        about: Most of the ten prompts with the largest activations are the place's; same shape.
        value: Mean activation where active; same shape.
        best: The single feature with the best F1 for the place (of equals the more active one), as layer * features +
            feature: (places,).
    """

    mask: Tensor
    about: Tensor
    value: Tensor
    best: Tensor


def questions(kind: str, relations: Sequence[str], templates: Sequence[str], odd: bool) -> list[Sentence]:
    """Two-hop questions about every second city of every place."""
    return [
        fill(
            template,
            place.attributes[relation],
            "two_hop",
            entity=city,
            kind=kind,
            relation=relation,
            concept=index,
        )
        for index, place in enumerate(_places(kind))
        for city in place.cities[int(odd) :: 2]
        for relation in relations
        for template in templates
    ]


def scoring_questions(kind: str, relation: str) -> list[Question]:
    """About every second city of every place, those that no feature was chosen on; the other place is the fifth on."""
    listed = _places(kind)
    others = islice(cycle(listed), 5, None)
    return [
        Question(
            prompt=fill(
                SCORING_TEMPLATE,
                place.attributes[relation],
                "two_hop",
                entity=city,
                kind=kind,
                relation=relation,
            ).prompt,
            city=city,
            place=place.name,
            other=other.name,
            answer=place.attributes[relation],
            other_answer=other.attributes[relation],
        )
        for place, other in zip(listed, others, strict=False)
        for city in place.cities[1::2]
    ]


def _places(kind: str) -> list[Place]:
    return states() if kind == "state" else countries()


def entity_activations(bench: Bench, rows: Rows, transcoders: ShippedSet) -> Tensor:
    """Feature activations at the entity's token: (rows, layers, features)."""
    with torch.no_grad():
        inputs = bench.model(rows.ids).mlp_inputs
    at = (torch.arange(len(rows.ids)), rows.entity_at)
    return torch.stack([transcoders.encode(x[at], layer) for layer, x in enumerate(inputs)], dim=1)


def f1_scores(active: Tensor, concept: Tensor, places: int) -> Tensor:
    """F1 of "active exactly on this place's cities": (places, layers, features)."""
    own = torch.zeros(places, len(concept)).scatter_(0, concept[None], 1.0)
    hits = torch.einsum("pr,rlf->plf", own, active.float())
    return 2 * hits / (active.sum(0) + own.sum(1)[:, None, None])


def choose_sets(
    bench: Bench, transcoders: ShippedSet, kind: str, precision: float = PRECISION
) -> FeatureSets:
    """Features that mark each place, judged on the choosing cities and templates."""
    sentences = questions(kind, ("capital",), CHOOSING_TEMPLATES, odd=False)
    rows = make_rows(sentences, bench.table, bench.tokenizer)
    activations = entity_activations(bench, rows, transcoders)
    active = activations > 0
    places = len(_places(kind))
    own = torch.zeros(places, len(rows.concept)).scatter_(0, rows.concept[None], 1.0)
    hits = torch.einsum("pr,rlf->plf", own, active.float())
    recall = hits / own.sum(1)[:, None, None]
    exact = hits / active.sum(0).clamp(min=1)
    mean = torch.einsum("pr,rlf->plf", own, activations) / hits.clamp(min=1)
    everywhere = hits / own.sum(1)[:, None, None] * mean
    best = (f1_scores(active, rows.concept, places) + TIE * everywhere).flatten(1).argmax(1)
    strongest = activations.topk(10, dim=0)
    top = (
        torch.nn.functional.one_hot(rows.concept[strongest.indices], places)
        * (strongest.values > 0)[..., None]
    )
    about = top.sum(0).movedim(-1, 0) >= 6
    return FeatureSets((recall >= RECALL) & (exact >= precision), about, mean, best)


def place_features(names: Sequence[str], sets: FeatureSets) -> dict[str, list[tuple[int, int, float]]]:
    """The set of every place as (layer, feature, mean activation), by the place's name."""
    return {
        name: [
            (layer, feature, round(float(value[layer, feature]), 3))
            for layer, feature in mask.nonzero().tolist()
        ]
        for name, mask, value in zip(names, sets.mask, sets.value, strict=True)
    }


def places_with_feature(bench: Bench, transcoders: ShippedSet, sets: FeatureSets, kind: str) -> list[float]:
    """Per place, the F1 of its chosen best feature on the scoring cities and template."""
    sentences = questions(kind, ("capital",), (SCORING_TEMPLATE,), odd=True)
    rows = make_rows(sentences, bench.table, bench.tokenizer)
    active = entity_activations(bench, rows, transcoders) > 0
    scores = f1_scores(active, rows.concept, len(sets.best)).flatten(1)
    chosen: list[float] = scores.gather(1, sets.best[:, None])[:, 0].tolist()
    return chosen


def feature_edit(transcoders: ShippedSet, at: Tensor, mask: Tensor, value: Tensor) -> Edit:
    """Set the masked features at position `at` of each row to `value`; everything later is computed anew."""
    pending: dict[int, Tensor] = {}
    rows = torch.arange(len(at))

    def edit(layer: int, x: Tensor, output: Tensor) -> Tensor:
        current = transcoders.encode(x[rows, at], layer)
        change = torch.where(mask[:, layer], value[:, layer] - current, 0.0)
        for step in range(transcoders.decoder[layer].shape[1]):
            written = change @ transcoders.decoder[layer][:, step]
            pending[layer + step] = pending.get(layer + step, torch.zeros_like(written)) + written
        output = output.clone()
        output[rows, at] += pending.pop(layer)
        return output

    return edit


def interventions(bench: Bench, transcoders: ShippedSet, sets: FeatureSets, kind: str) -> dict[str, float]:
    """Turn a place's features off, or swap them for another place's, at the city's token."""
    sentences = questions(kind, UNIQUE_RELATIONS[kind], (SCORING_TEMPLATE,), odd=True)
    rows = make_rows(sentences, bench.table, bench.tokenizer)
    at = (torch.arange(len(rows.ids)), rows.answer_at - 1)
    with torch.no_grad():
        before = bench.model(rows.ids).logits[at].softmax(-1)
    wanted = rows.ids[torch.arange(len(rows.ids)), rows.answer_at]
    right = before.argmax(-1) == wanted
    shift = torch.randint(1, len(sets.best), rows.concept.shape, generator=torch.Generator().manual_seed(7))
    donor = (rows.concept + shift) % len(sets.best)
    own, other = sets.mask[rows.concept], sets.mask[donor]
    zero = torch.zeros_like(sets.value[donor])
    new = torch.where(other, sets.value[donor], zero)
    with torch.no_grad():
        off = (
            bench.model(rows.ids, feature_edit(transcoders, rows.entity_at, own, zero)).logits[at].softmax(-1)
        )
        swapped = bench.model(rows.ids, feature_edit(transcoders, rows.entity_at, own | other, new)).logits[
            at
        ]
    theirs = bench.table.tokens[rows.relation, donor]
    return {
        "prompts": float(right.sum()),
        "set size": own.sum((1, 2)).float().mean().item(),
        "off changes answer": (off.argmax(-1) != wanted)[right].float().mean().item(),
        "p(answer) before": before.gather(1, wanted[:, None])[right].mean().item(),
        "p(answer) after off": off.gather(1, wanted[:, None])[right].mean().item(),
        "swap gives other's answer": (swapped.argmax(-1) == theirs)[right].float().mean().item(),
    }
