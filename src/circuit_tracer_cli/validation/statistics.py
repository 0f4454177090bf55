"""Rank correlation, divergence, vector agreement, and seeded draws of nodes. Independent of graphs and models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ranks(values: Tensor) -> Tensor:
    """Ranks from 0 of `values (n)` in float64; equal values share the mean of their ranks."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    mean: Tensor = (2 * last - counts - 1).to(torch.float64) / 2
    return mean.index_select(0, place)


def spearman(x: Tensor, y: Tensor) -> float | None:
    """Spearman's rank correlation of `x (n)` and `y (n)`; None for fewer than three values or when either is constant."""
    if len(x) < 3:
        return None
    a, b = ranks(x), ranks(y)
    a, b = a - a.mean(), b - b.mean()
    scale = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / scale if scale > 0 else None


def kl_divergence(before: Tensor, after: Tensor) -> float:
    """KL(before ‖ after) in nats of two distributions given by logits `(vocab)`."""
    p, q = before.double().log_softmax(-1), after.double().log_softmax(-1)
    return max(0.0, float((p.exp() * (p - q)).sum()))


def cosine(x: Tensor, y: Tensor) -> float:
    """Cosine between two tensors as flat vectors; 0 if either is zero."""
    a, b = x.double().flatten(), y.double().flatten()
    scale = float(a.norm() * b.norm())
    return float(a @ b) / scale if scale > 0 else 0.0


def nmse(predicted: Tensor, measured: Tensor) -> float:
    """Squared error of a prediction divided by the square of the measurement; 0 if both are zero."""
    wrong = float((predicted.double() - measured.double()).square().sum())
    whole = float(measured.double().square().sum())
    return wrong / whole if whole > 0 else float(wrong > 0)


def sample(nodes: Sequence[int], count: int, seed: int) -> list[int]:
    """At most `count` of the nodes, drawn without replacement, ascending."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(nodes), generator=generator)[:count]
    return sorted(nodes[index] for index in drawn.tolist())


def strong_and_random(nodes: Sequence[int], strength: Tensor, count: int, seed: int) -> list[int]:
    """At most `count` of the nodes: half of them with the largest `strength (T)`, the others drawn from the rest; ascending."""
    ranked = sorted(nodes, key=lambda node: (-float(strength[node]), node))
    strong = ranked[: (count + 1) // 2]
    return sorted(strong + sample(sorted(ranked[len(strong) :]), count - len(strong), seed))
