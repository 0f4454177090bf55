"""Hashes that look random and are the same everywhere: what a seeded sample is drawn by, and what contexts are compared by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: Hashes) -> Hashes:
    """A bijection of 64-bit numbers in which every bit of the result depends on every bit of `x` (splitmix64's)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def combine(first: Hashes, second: Hashes) -> Hashes:
    """One hash of two numbers, order counting; the arguments broadcast."""
    with np.errstate(over="ignore"):
        return mix(mix(first + _GOLDEN) + second * _GOLDEN + _GOLDEN)


def context_hashes(tokens: NDArray[np.int32], left: int) -> Hashes:
    """For each position `(pos)` a hash of its token and the `left` tokens before it, fewer at the beginning."""
    wide = tokens.astype(np.uint64)
    hashes = combine(np.zeros(len(tokens), np.uint64), wide)
    for back in range(1, min(left, len(tokens) - 1) + 1):
        hashes[back:] = combine(hashes[back:], wide[:-back])
    return hashes


def uniform(hashes: Hashes) -> NDArray[np.float32]:
    """Hashes as numbers in [0, 1), for drawing a sample: the entries with the smallest are kept."""
    return (hashes >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
