"""The most likely next tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.graph.predictions import predictions_of, top_predictions


def test_the_most_likely_tokens_come_first_with_their_probabilities() -> None:
    logits = torch.tensor([0.5, 0.125, 0.25, 0.125]).log() + 3
    found = top_predictions(logits, "abcd".__getitem__, 2)
    assert found == [
        {"token": "a", "id": 0, "probability": pytest.approx(0.5)},
        {"token": "c", "id": 2, "probability": pytest.approx(0.25)},
    ]


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=30))
def test_ten_of_them_or_all(logits: list[float]) -> None:
    found = top_predictions(torch.tensor(logits), str)
    assert len(found) == min(10, len(logits))
    shares = [entry["probability"] for entry in found]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0
    assert sum(shares) <= 1 + 1e-6
    assert [int(entry["token"]) for entry in found] == [entry["id"] for entry in found]
    assert predictions_of({"top_predictions": found}) == found


def test_sixteen_bit_logits_are_summed_in_full() -> None:
    logits = torch.zeros(100_000, dtype=torch.bfloat16)
    assert top_predictions(logits, str)[0]["probability"] == pytest.approx(1e-5)


@pytest.mark.parametrize(
    "damaged", [None, 3, [3], [{"token": "a", "id": 1}], [{"token": "a", "id": 1.5, "probability": 1}]]
)
def test_damaged_ones_are_none(damaged: object) -> None:
    assert predictions_of({"top_predictions": damaged}) == []
    assert predictions_of({}) == []
