"""The largest entries of a product of two thin matrices, found without the full product: pairs of sources of a score."""

from __future__ import annotations

import torch
from torch import Tensor

TILE = 4096
"""Rows and columns of the product in memory at once."""


def top_pairs(Q: Tensor, K: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The `n` largest entries by absolute value of `Qᵀ K`, exactly.

    Columns are taken from the longest to the shortest; since `|⟨q, k⟩| ≤ ‖q‖ ‖k‖`, hopeless ones are skipped.

    Args:
        Q: `(d_head, n_q)`.
        K: `(d_head, n_k)`.
        n: Number of entries; fewer are returned if fewer are non-zero.

    Returns:
        int64 `(n, 2)`, columns of `Q` and `K`, and the values `(n)`, strongest first.
    """
    q_norm, q_order = Q.norm(dim=0).sort(descending=True)
    k_norm, k_order = K.norm(dim=0).sort(descending=True)
    best = Q.new_zeros(0)
    places = torch.zeros(0, 2, dtype=torch.int64, device=Q.device)
    for i in range(0, len(q_order), TILE):
        for j in range(0, len(k_order), TILE):
            floor = float(best[-1].abs()) if len(best) >= n else 0.0
            if float(q_norm[i] * k_norm[j]) <= floor:
                break  # shorter keys can't do better
            rows, columns = q_order[i : i + TILE], k_order[j : j + TILE]
            tile = Q[:, rows].T @ K[:, columns]
            at = tile.abs().flatten().topk(min(n, tile.numel())).indices
            found = torch.stack((rows[at // tile.shape[1]], columns[at % tile.shape[1]]), 1)
            best, places = torch.cat((best, tile.flatten()[at])), torch.cat((places, found))
            keep = best.abs().argsort(descending=True, stable=True)[:n]
            best, places = best[keep], places[keep]
    there = best != 0
    return places[there], best[there]


def summed(factor: Tensor, groups: Tensor, count: int) -> Tensor:
    """The columns of `factor (d_head, n)` summed by group `(n)`, ignoring group -1: `(d_head, count)`."""
    own = groups >= 0
    return factor.new_zeros(len(factor), count).index_add_(
        1, groups[own].to(factor.device), factor[:, own.to(factor.device)]
    )
