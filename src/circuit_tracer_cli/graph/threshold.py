"""The score that the largest scores holding a given share of the total stay above, found without sorting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.graph.edges import EDGE_BLOCK, Array

ScoreStream = Callable[[], Iterable[Array]]
"""Gives the same blocks of float32 scores each time it's called."""

_HIGH_BINS = 1 << 15  # the sign bit of a score is never set
_LOW_BINS = 1 << 16


def check_threshold(value: float, name: str) -> float:
    """The value as a float. Raises InvalidValue unless it lies in 0..1."""
    if not 0 <= value <= 1:
        raise InvalidValue(
            f"{name} must lie between 0 and 1, not {value}", "1 keeps everything, 0 only the strongest"
        )
    return float(value)


def find_threshold(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """The smallest score to keep so that all scores at least as large hold the share `threshold` of the total.

    0 gives the largest score, 1 the smallest above zero. Scores that aren't above zero hold no share and are never chosen.

    Returns:
        A scalar tensor like `scores`; infinity if no score is above zero.
    """
    check_threshold(threshold, "threshold")
    flat = scores.detach().flatten()

    def blocks() -> Iterable[Array]:
        for start in range(0, len(flat), EDGE_BLOCK):
            yield flat[start : start + EDGE_BLOCK].to("cpu", torch.float32).numpy()

    found = select_threshold(blocks, threshold)
    if math.isinf(found):
        return scores.new_tensor(math.inf)
    return flat[flat.to(torch.float32) == found].min()


def select_threshold(stream: ScoreStream, threshold: float) -> float:
    """`find_threshold` over scores that are computed block by block, twice, and never held.

    For floats above zero the order of their bits is the order of their values: a first histogram over the upper sixteen bits
    finds the bin, a second over the lower sixteen the very value.
    """
    sums = np.zeros(_HIGH_BINS)
    for block in stream():
        scores = np.maximum(block, np.float32(0))
        np.add.at(sums, _bits(scores) >> 16, scores.astype(np.float64))
    total = float(sums.sum())
    if not total > 0:
        return math.inf
    high, above = _first_reaching(sums, 0.0, threshold, total)
    fine = np.zeros(_LOW_BINS)
    for block in stream():
        scores = np.maximum(block, np.float32(0))
        scores = scores[_bits(scores) >> 16 == high]
        np.add.at(fine, _bits(scores) & (_LOW_BINS - 1), scores.astype(np.float64))
    low, _ = _first_reaching(fine, above, threshold, total)
    return float(np.array((high << 16) | low, dtype=np.int32).view(np.float32))


def _bits(scores: Array) -> Array:
    return scores.view(np.int32).astype(np.int64)


def _first_reaching(sums: Array, above: float, threshold: float, total: float) -> tuple[int, float]:
    """The highest bin at which the share reaches `threshold` (else the lowest that isn't empty), and the sum above it."""
    filled = sums.nonzero()[0][::-1]
    cumulative = above + sums[filled].cumsum()
    reached = (cumulative / total >= threshold).nonzero()[0]
    place = int(reached[0]) if len(reached) and threshold < 1 else len(filled) - 1
    return int(filled[place]), float(cumulative[place - 1]) if place else above
