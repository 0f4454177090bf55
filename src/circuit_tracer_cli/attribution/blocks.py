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
    wanted = positions[order] + 1
    blocks: list[Tensor] = []
    start = 0
    while start < len(wanted):
        end = _block_end(wanted, start, largest_work)
        index = order[start:end]
        blocks.append(index[torch.argsort(layers[index], descending=True, stable=True)])
        start = end
    return blocks


def _block_end(wanted: Tensor, start: int, largest_work: int) -> int:
    """Where the block beginning at `start` ends; `wanted` are the positions that each target needs, descending."""
    width = int(wanted[start])
    window = wanted[start : start + largest_work // width + 2]
    rows = torch.arange(1, len(window) + 1)
    work, useful = rows * width, window.cumsum(0)
    full = (work > largest_work) & (rows > 1)
    wasteful = (work > SMALLEST_WORK) & (work > (1 + WASTE) * useful)
    beyond = (full | wasteful).nonzero()
    return start + (int(beyond[0]) if len(beyond) else len(window))
