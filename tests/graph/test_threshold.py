from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.graph.prune import check_threshold, find_threshold

SCORES = st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=60)


def by_sorting(scores: torch.Tensor, threshold: float) -> float:
    """The definition: sort, sum up, first place where the share is reached, never past the last score above zero."""
    ranked = np.sort(scores.double().numpy())[::-1]
    ranked = ranked[ranked > 0]
    if not len(ranked):
        return math.inf
    share = ranked.cumsum() / ranked.sum()
    place = (
        int(np.argmax(share >= threshold))
        if threshold < 1 and (share >= threshold).any()
        else len(ranked) - 1
    )
    return float(ranked[place])


@given(SCORES, st.sampled_from([0.0, 0.25, 0.5, 0.8, 0.98, 1.0]))
def test_equals_sorting(values: list[float], threshold: float) -> None:
    scores = torch.tensor(values)
    found = float(find_threshold(scores, threshold))
    expected = by_sorting(scores, threshold)
    if found != expected:  # sums in another order may round to the other side of the threshold, never further
        near = [by_sorting(scores, min(1.0, max(0.0, threshold + shift))) for shift in (-1e-12, 1e-12)]
        assert found in near


@given(SCORES)
def test_one_keeps_exactly_what_is_above_zero(values: list[float]) -> None:
    scores = torch.tensor(values)
    assert torch.equal(scores >= find_threshold(scores, 1.0), scores > 0)


def test_one_keeps_scores_that_vanish_in_the_sum() -> None:
    scores = torch.tensor([1.0, 1e-30, 0.0])
    assert float(find_threshold(scores, 1.0)) == pytest.approx(1e-30)
    assert float(find_threshold(scores, 0.999999)) == 1.0


@given(SCORES)
def test_zero_keeps_only_the_largest(values: list[float]) -> None:
    scores = torch.tensor(values)
    if scores.any():
        assert torch.equal(scores >= find_threshold(scores, 0.0), scores == scores.max())


def test_ties_are_kept_together() -> None:
    scores = torch.tensor([2.0, 1.0, 1.0, 1.0])
    assert int((scores >= find_threshold(scores, 0.5)).sum()) == 4


def test_nothing_above_zero() -> None:
    assert math.isinf(find_threshold(torch.zeros(3), 0.5))
    assert math.isinf(find_threshold(torch.tensor([-1.0]), 1.0))
    assert math.isinf(find_threshold(torch.zeros(0), 0.0))


def test_double_scores_keep_their_own_value() -> None:
    scores = torch.tensor([1 / 3, 1 / 7], dtype=torch.float64)
    assert (scores >= find_threshold(scores, 0.5)).tolist() == [True, False]
    assert (scores >= find_threshold(scores, 1.0)).tolist() == [True, True]


def test_many_scores_over_several_blocks() -> None:
    scores = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    ranked, _ = scores.double().sort(descending=True)
    share = ranked.cumsum(0) / ranked.sum()
    for threshold in (0.1, 0.8, 0.98):
        expected = ranked[int((share >= threshold).nonzero()[0])]
        assert float(find_threshold(scores, threshold)) == float(expected)


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf])
def test_outside_is_refused(value: float) -> None:
    with pytest.raises(InvalidValue, match="between 0 and 1"):
        check_threshold(value, "node_threshold")
    with pytest.raises(ValueError, match="between 0 and 1"):
        find_threshold(torch.ones(2), value)
