"""Blocks hold every target once, waste little and stay within their size."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.attribution.rows import SMALLEST_WORK, WASTE, plan_blocks

TARGETS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 300)), min_size=1, max_size=200)


@given(TARGETS, st.integers(1, 5000))
def test_every_target_once_in_bounded_blocks(targets: list[tuple[int, int]], largest: int) -> None:
    layers, positions = map(torch.tensor, zip(*targets, strict=True))
    blocks = plan_blocks(layers, positions, largest)
    assert sorted(torch.cat(blocks).tolist()) == list(range(len(targets)))
    for block in blocks:
        assert (layers[block].diff() <= 0).all()
        work = len(block) * (int(positions[block].max()) + 1)
        useful = int((positions[block] + 1).sum())
        assert len(block) == 1 or work <= largest
        assert work <= max(SMALLEST_WORK, (1 + WASTE) * useful)
