"""Turning features off until another token wins, on the demo."""

from __future__ import annotations

import pytest

from circuit_tracer_cli import ReplacementModel
from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.graph.contrast import WhyNot, changes_without, why_not
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.interventions.run import Constraints
from circuit_tracer_cli.validation import flip
from circuit_tracer_cli.validation.flip import Flip, find_flip
from circuit_tracer_cli.validation.subject import Subject

PROMPT = "Fact: the capital of the state containing Dallas is"


@pytest.fixture(scope="module")
def model() -> ReplacementModel:
    return ReplacementModel.from_pretrained("demo", "demo")


@pytest.fixture(scope="module")
def asked(model: ReplacementModel) -> tuple[Graph, WhyNot, Flip]:
    graph = attribute(PROMPT, model, attribution_targets=[" Austin", " Sacramento"])
    found = why_not(graph, "Sacramento")
    return graph, found, find_flip(graph, model, found.answer, found.other)


def test_what_is_reported_is_what_a_run_without_these_features_gives(
    asked: tuple[Graph, WhyNot, Flip], model: ReplacementModel
) -> None:
    graph, found, turned = asked
    subject = Subject(graph, model)
    assert turned.before == pytest.approx(found.difference, abs=1e-4)
    assert turned.fewest is not None
    assert len(turned.measured) <= flip.MOST_RUNS + 1
    ids = [target.vocab_idx for target in graph.logit_targets]
    for one in turned.measured:
        off = turned.ranking[: one.count]
        logits = subject.run([subject.edit(n, 0.0) for n in off], Constraints(freeze_attention=False)).logits[
            -1
        ]
        assert one.open == pytest.approx(float(logits[ids[0]] - logits[ids[1]]), abs=1e-4)
        assert one.top == int(logits.argmax())
        change = changes_without(graph, off, found.answer, found.other)[-1]
        assert one.predicted == pytest.approx(turned.before + change, abs=1e-6)
    by_count = {one.count: one for one in turned.measured}
    assert by_count[turned.fewest].open < 0
    assert turned.predicted in by_count
    assert by_count[turned.predicted].frozen is not None


def test_the_prediction_turns_over_where_it_says(asked: tuple[Graph, WhyNot, Flip]) -> None:
    graph, found, turned = asked
    assert turned.predicted is not None
    changes = changes_without(graph, turned.ranking, found.answer, found.other)[: turned.predicted + 1]
    assert (turned.before + changes < 0).tolist() == [False] * turned.predicted + [True]


def test_too_few_features_flip_nothing(asked: tuple[Graph, WhyNot, Flip], model: ReplacementModel) -> None:
    graph, found, _ = asked
    turned = find_flip(graph, model, found.answer, found.other, most=1)
    assert (turned.fewest, turned.predicted, len(turned.ranking)) == (None, None, 1)
    backwards = find_flip(graph, model, found.other, found.answer, most=1)
    assert backwards.before < 0
    assert backwards.fewest is None


@pytest.mark.parametrize("limit", [1, 2, 5, 13, 64])
@pytest.mark.parametrize("start", [1, 3, 64])
def test_the_search_finds_the_limit_of_a_monotone_rule(limit: int, start: int) -> None:
    tried: list[int] = []

    def holds(count: int) -> bool:
        tried.append(count)
        return count >= limit

    found = flip._search(holds, start, 64)
    assert len(tried) <= flip.MOST_RUNS
    assert found is not None
    assert found >= limit
    if len(tried) < flip.MOST_RUNS:
        assert found == limit
    assert flip._search(lambda count: False, start, 64) is None
