"""How targets are grouped into blocks for the engine, and in which order. Knows positions and layers only.

The order never changes a result: it is chosen so that the engine computes few positions that a target doesn't need.
"""

from __future__ import annotations

import torch
from torch import Tensor

WASTE = 0.08
"""The share of positions in a block that may lie after their row's own target."""

SMALLEST_WORK = 192
"""Blocks of fewer rows times positions than this are filled up whatever the waste: matrix products that small are slow."""


def plan_blocks(layers: Tensor, positions: Tensor, largest_work: int) -> list[Tensor]:
    """Index tensors of the blocks, each sorted by layer from high to low.

    Args:
        layers: `(n)` layer of each target.
        positions: `(n)` position of each target.
        largest_work: Most rows times positions in one block.
    """
    order = torch.argsort(positions, descending=True, stable=True)
    wanted = (positions[order] + 1).tolist()
    blocks: list[Tensor] = []
    start = 0
    while start < len(wanted):
        end = _block_end(wanted, start, largest_work)
        index = order[start:end]
        blocks.append(index[torch.argsort(layers[index], descending=True, stable=True)])
        start = end
    return blocks


def _block_end(wanted: list[int], start: int, largest_work: int) -> int:
    """Where the block beginning at `start` ends; `wanted` are the positions that each target needs, descending."""
    width, useful, end = wanted[start], 0, start
    while end < len(wanted):
        work, useful = (end + 1 - start) * width, useful + wanted[end]
        full = work > largest_work and end > start
        wasteful = work > SMALLEST_WORK and work > (1 + WASTE) * useful
        if full or wasteful:
            break
        end += 1
    return end
