"""A reservoir keeps what a sort over everything would keep, however the entries were split into offers."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit_tracer_cli.features.tally import Reservoir, combine, context_hashes, mix, rounds, uniform

ENTRIES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 5)), max_size=60
)  # feature, key, identity


def offered(entries: list[tuple[int, int, int]], size: int, cuts: set[int], *, distinct: bool) -> Reservoir:
    reservoir = Reservoir(4, size, {"twice": (np.float32, ())}, distinct=distinct)
    bounds = sorted({0, len(entries), *(cut % (len(entries) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(bounds):
        part = sorted(enumerate(entries[start:end], start), key=lambda item: item[1][0])
        at = np.array([number for number, _ in part])
        feature, key, identity = (np.array([entry[i] for _, entry in part]) for i in range(3))
        keys = key.astype(np.float32)
        for now in rounds(feature, reservoir.welcome(feature, keys)):
            reservoir.offer(
                feature[now], keys[now], at[now], {"twice": 2 * keys[now]}, identity[now].astype(np.uint64)
            )
    return reservoir


def sorted_out(
    entries: list[tuple[int, int, int]], feature: int, size: int, *, distinct: bool
) -> list[tuple[int, int]]:
    mine = sorted((key, at, identity) for at, (f, key, identity) in enumerate(entries) if f == feature)
    kept, seen = [], set()
    for key, at, identity in mine:
        if not distinct or identity not in seen:
            kept.append((key, at))
        seen.add(identity)
    return kept[:size]


@settings(derandomize=True, max_examples=150, deadline=None)
@given(ENTRIES, st.integers(1, 5), st.sets(st.integers(0, 60), max_size=5), st.booleans())
def test_the_smallest_keys_stay(
    entries: list[tuple[int, int, int]], size: int, cuts: set[int], distinct: bool
) -> None:
    reservoir = offered(entries, size, cuts, distinct=distinct)
    for feature in range(4):
        slots = reservoir.entries(feature)
        found = [(int(reservoir.key[feature, s]), int(reservoir.at[feature, s])) for s in slots]
        assert found == sorted_out(entries, feature, size, distinct=distinct)
        assert all(reservoir.payload["twice"][feature, s] == 2 * reservoir.key[feature, s] for s in slots)


def test_a_reservoir_of_size_zero_takes_nothing() -> None:
    reservoir = offered([(0, 1, 1), (1, 2, 2)], 0, set(), distinct=True)
    assert len(reservoir.entries(0)) == 0


def test_contexts_have_the_same_hash_exactly_if_they_are_the_same() -> None:
    tokens = np.array([0, 5, 6, 7, 5, 6, 7, 1, 6, 7], np.int32)
    hashes = context_hashes(tokens, 2)
    contexts = [tuple(tokens[max(0, i - 2) : i + 1]) for i in range(len(tokens))]
    for i, first in enumerate(contexts):
        for j, second in enumerate(contexts):
            assert (hashes[i] == hashes[j]) == (first == second)


def test_hashes_are_the_same_everywhere() -> None:
    assert mix(np.array([1], np.uint64))[0] == 0x5692161D100B05E5
    assert (
        combine(np.array([1], np.uint64), np.array([2], np.uint64))[0]
        != combine(np.array([2], np.uint64), np.array([1], np.uint64))[0]
    )


def test_sampling_numbers_are_even() -> None:
    drawn = uniform(mix(np.arange(20000, dtype=np.uint64)))
    counts, _ = np.histogram(drawn, 10, (0, 1))
    assert counts.min() > 1850
    assert counts.max() < 2150
    assert drawn.max() < 1
