"""Rank correlation, divergence, agreement of vectors, samples."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.validation.statistics import (
    cosine,
    kl_divergence,
    nmse,
    ranks,
    sample,
    spearman,
    strong_and_random,
)

lists = st.lists(st.integers(-5, 5), min_size=3, max_size=20)


@given(lists)
def test_ranks_are_mean_places_in_the_sorted_list(values: list[int]) -> None:
    ordered = sorted(values)
    expected = [
        sum(i for i, other in enumerate(ordered) if other == value) / ordered.count(value) for value in values
    ]
    assert ranks(torch.tensor(values)).tolist() == pytest.approx(expected)


@given(lists)
def test_spearman_knows_only_order(values: list[int]) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    if x.min() == x.max():
        assert spearman(x, x) is None
        return
    assert spearman(x, x.exp()) == pytest.approx(1)
    assert spearman(x, -x) == pytest.approx(-1)


def test_spearman_of_an_example() -> None:
    x, y = torch.tensor([1.0, 2, 3, 4, 5]), torch.tensor([5.0, 6, 7, 8, 7])
    assert spearman(x, y) == pytest.approx(0.8207826816681233)
    assert spearman(x[:2], y[:2]) is None


def test_divergence_and_agreement() -> None:
    half, quarter = torch.log(torch.tensor([0.5, 0.5])), torch.log(torch.tensor([0.25, 0.75]))
    assert kl_divergence(half, quarter) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert kl_divergence(half, half) == 0
    x = torch.tensor([3.0, 4.0])
    assert cosine(x, 2 * x) == pytest.approx(1)
    assert cosine(x, torch.zeros(2)) == 0
    assert nmse(1.1 * x, x) == pytest.approx(0.01)
    assert nmse(x, torch.zeros(2)) == 1
    assert nmse(torch.zeros(2), torch.zeros(2)) == 0


def test_samples_repeat_and_stay_inside() -> None:
    nodes = list(range(3, 40, 2))
    assert sample(nodes, 6, seed=1) == sample(nodes, 6, seed=1) != sample(nodes, 6, seed=2)
    assert sample(nodes, 99, seed=0) == nodes
    assert sample([], 5, seed=0) == []


def test_half_of_a_mixed_sample_is_the_strongest() -> None:
    strength = torch.arange(30).float()
    drawn = strong_and_random(list(range(20)), strength, 6, seed=0)
    assert drawn[-3:] == [17, 18, 19]
    assert len(set(drawn)) == 6
    assert max(drawn) < 20
