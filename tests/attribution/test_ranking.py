"""Influence over the rows known so far, against its definition and the worked example of the specification."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.attribution.ranking import PartialInfluence, RowBlock, next_features


def partial_influence(rows: torch.Tensor, weights: torch.Tensor, nodes: list[int]) -> torch.Tensor:
    """The definition: `w N + w N² + …`, mass on nodes without a row being dropped."""
    normalised = rows.abs() / rows.abs().sum(1, keepdim=True).clamp_min(1e-8)
    product = torch.zeros(rows.shape[1])
    product[-len(weights) :] = weights
    influence = torch.zeros(rows.shape[1])
    for _ in range(128):
        product = product[nodes] @ normalised
        if not product.any():
            break
        influence += product
    return influence


def test_the_worked_example() -> None:
    """Nodes f0, f1, four errors, two tokens; the logit's row first, then f1's (spec/attribution.md 2.7)."""
    known = PartialInfluence(torch.tensor([0, 1]), 8, torch.tensor([0.6]), n_layers=2)
    known.add([RowBlock(torch.tensor([2]), torch.tensor([2]), torch.tensor([[1, 2, 0, -0.5, 0, 0.5, 0, 1]]))])
    torch.testing.assert_close(known.influence, torch.tensor([0.12, 0.24, 0, 0.06, 0, 0.06, 0, 0.12]))
    assert next_features(known.of_features(), torch.zeros(2, dtype=torch.bool), 1).tolist() == [1]
    known.add([RowBlock(torch.tensor([1]), torch.tensor([1]), torch.tensor([[3, 0, 0, 0.5, 0, 0, 0, 0.5]]))])
    torch.testing.assert_close(known.influence, torch.tensor([0.30, 0.24, 0, 0.09, 0, 0.06, 0, 0.15]))


@given(st.integers(0, 10_000))
def test_updates_equal_starting_anew(seed: int) -> None:
    """However the rows come in, the influence is that of all of them together."""
    generator = torch.Generator().manual_seed(seed)
    n_layers, per_layer, n_logits, n_tokens = 4, 3, 2, 3
    n = n_layers * per_layer
    layer_of = torch.arange(n) // per_layer
    width = n + n_tokens
    rows = torch.randn(n + n_logits, width + n_logits, generator=generator)
    rows[:, width:] = 0
    for target in range(n):
        rows[target, :n][layer_of >= layer_of[target]] = 0
    weights = torch.rand(n_logits, generator=generator)
    order = torch.randperm(n, generator=generator)
    known = PartialInfluence(torch.arange(n), width, weights, n_layers)
    logits = torch.arange(n, n + n_logits)
    known.add([RowBlock(logits, torch.full((n_logits,), n_layers), rows[n:, :width])])
    done = logits.tolist()
    nodes = {int(i): int(i) if i < n else width + int(i) - n for i in range(n + n_logits)}
    for chunk in order.split(5):
        chunk = chunk[torch.argsort(layer_of[chunk], descending=True, stable=True)]
        known.add([RowBlock(chunk, layer_of[chunk], rows[chunk, :width])])
        done += chunk.tolist()
        want = partial_influence(rows[done], weights, [nodes[i] for i in done])
        torch.testing.assert_close(known.influence, want[:width], atol=1e-5, rtol=1e-4)


def test_visited_features_are_not_chosen_again_and_ties_keep_their_order() -> None:
    visited = torch.tensor([False, True, False, False])
    assert next_features(torch.tensor([0.0, 9.0, 1.0, 0.0]), visited, 3).tolist() == [2, 0, 3]
