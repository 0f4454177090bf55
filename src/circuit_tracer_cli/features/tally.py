"""Running statistics of one layer's features over a stream of text. Memory depends on the settings, not on the text.

For each feature a reservoir keeps the best few of all entries offered: the largest activations, or an even sample drawn by
hashes that are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuit_tracer_cli.features.settings import BuildSettings

Hashes = NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: Hashes) -> Hashes:
    """A bijection of 64-bit numbers in which every bit of the result depends on every bit of `x` (splitmix64's)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def combine(first: Hashes, second: Hashes) -> Hashes:
    """One hash of two numbers, depending on their order; the arguments broadcast."""
    with np.errstate(over="ignore"):
        return mix(mix(first + _GOLDEN) + second * _GOLDEN + _GOLDEN)


def context_hashes(tokens: NDArray[np.int32], left: int) -> Hashes:
    """For each position `(pos)`, a hash of its token and the `left` tokens before it, fewer at the beginning."""
    wide = tokens.astype(np.uint64)
    hashes = combine(np.zeros(len(tokens), np.uint64), wide)
    for back in range(1, min(left, len(tokens) - 1) + 1):
        hashes[back:] = combine(hashes[back:], wide[:-back])
    return hashes


def uniform(hashes: Hashes) -> NDArray[np.float32]:
    """Hashes as numbers in [0, 1), for drawing a sample: the entries with the smallest are kept."""
    return (hashes >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class Reservoir:
    """At most `size` entries for each feature.

    Args:
        n_features: Rows.
        size: Entries per row.
        payload: Further content of an entry: name → (dtype, shape).
        distinct: Entries have an identity, and only the best entry of each identity stays.

    Attributes:
        key: `(feature, size)`, infinity for empty slots.
        at: `(feature, size)`, the entry's token in the corpus; among equal keys, earlier tokens stay.
        identity: `(feature, size)`, if entries are distinct.
        payload: Name → `(feature, size, …)`.
        worst: `(feature)`, the bound that a key must be below to be stored.
    """

    def __init__(
        self,
        n_features: int,
        size: int,
        payload: Mapping[str, tuple[Any, tuple[int, ...]]],
        *,
        distinct: bool,
    ) -> None:
        self.key: Floats = np.full((n_features, size), np.inf, np.float32)
        self.at: Ints = np.zeros((n_features, size), np.int64)
        self.identity = np.zeros((n_features, size), np.uint64) if distinct else None
        self.payload: dict[str, NDArray[Any]] = {
            name: np.zeros((n_features, size, *shape), dtype) for name, (dtype, shape) in payload.items()
        }
        self.worst: Floats = np.full(n_features, np.inf if size else -np.inf, np.float32)

    def welcome(self, features: Ints, keys: Floats) -> NDArray[np.intp]:
        """Indices of the entries that might be stored, so that the others need not be prepared."""
        return np.flatnonzero(keys < self.worst[features])

    def offer(
        self,
        features: Ints,
        keys: Floats,
        at: Ints,
        payload: Mapping[str, NDArray[Any]],
        identity: NDArray[np.uint64] | None = None,
    ) -> None:
        """Store the entries that are good enough. `features (n)` are distinct; a token is never offered twice."""
        chosen = self.welcome(features, keys)
        if not len(chosen):
            return
        rows, keys = features[chosen], keys[chosen]
        slots = self._worst_slots(rows)
        if self.identity is not None and identity is not None:
            known, place = self._known(rows, identity[chosen])
            slots = np.where(known, place, slots)
            better = ~known | (keys < self.key[rows, slots])
            chosen, rows, keys, slots = chosen[better], rows[better], keys[better], slots[better]
            self.identity[rows, slots] = identity[chosen]
        self.key[rows, slots] = keys
        self.at[rows, slots] = at[chosen]
        for name, values in payload.items():
            self.payload[name][rows, slots] = values[chosen]
        self.worst[rows] = self.key[rows].max(axis=1)

    def _worst_slots(self, rows: Ints) -> NDArray[np.intp]:
        """Per row an empty slot, else the one with the largest key and, among those, the latest token."""
        keys = self.key[rows]
        candidates = keys == keys.max(axis=1, keepdims=True)
        slots: NDArray[np.intp] = np.where(candidates, self.at[rows], -1).argmax(axis=1)
        return slots

    def _known(self, rows: Ints, identity: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        """True if the row has an entry of that identity, and its slot."""
        assert self.identity is not None
        same = (self.identity[rows] == identity[:, None]) & np.isfinite(self.key[rows])
        return same.any(axis=1), same.argmax(axis=1)

    def entries(self, feature: int) -> NDArray[np.intp]:
        """The slots of a feature's entries, best key first, earlier tokens first among equals."""
        order = np.lexsort((self.at[feature], self.key[feature]))
        return order[: int(np.isfinite(self.key[feature]).sum())]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of the state, by name (not copies)."""
        found: dict[str, NDArray[Any]] = {"key": self.key, "at": self.at, "worst": self.worst}
        if self.identity is not None:
            found["identity"] = self.identity
        return found | {f"payload.{name}": values for name, values in self.payload.items()}


@dataclass(frozen=True, slots=True)
class Batch:
    """Some sequences one after the other, and facts about their tokens for all layers."""

    tokens: NDArray[np.int32]  # (token)
    sequence: Ints  # (token): which sequence it belongs to
    starts: Ints  # (sequence): where it begins in the corpus
    hashes: Hashes  # (token), of each token with the context to its left
    zeroed: NDArray[np.bool_]  # (token): True where features count as inactive

    @property
    def start(self) -> int:
        """Where the batch begins in the corpus."""
        return int(self.starts[0])


@dataclass(frozen=True, slots=True)
class Groups:
    """Runs of events that belong together."""

    begins: Ints  # (group)
    counts: Ints  # (group)

    @classmethod
    def of(cls, *keys: Ints) -> Groups:
        """The runs in which all keys `(event)` stay the same."""
        changes = np.any([np.diff(key) != 0 for key in keys], axis=0)
        begins = np.concatenate(([0], np.flatnonzero(changes) + 1))
        return cls(begins, np.diff(begins, append=len(keys[0])))


@dataclass(frozen=True, slots=True)
class Events:
    """The non-zero activations of one layer on a batch, by feature and then by position; never empty."""

    feature: Ints  # (event)
    position: Ints  # (event): token of the batch
    value: Floats  # (event)
    by_feature: Groups
    by_sequence: Groups  # of one feature in one sequence

    @classmethod
    def of(cls, position: Ints, feature: Ints, value: Floats, sequence: Ints) -> Events:
        """Make the record from events ordered by position; `sequence (token)` as in the batch."""
        order = np.argsort(feature, kind="stable")
        feature, position, value = feature[order], position[order], value[order]
        return cls(feature, position, value, Groups.of(feature), Groups.of(feature, sequence[position]))

    def peaks(self) -> NDArray[np.intp]:
        """For each feature in each sequence, the index of its largest event, the first among equals."""
        groups = self.by_sequence
        largest = np.repeat(np.maximum.reduceat(self.value, groups.begins), groups.counts)
        group = np.repeat(np.arange(len(groups.begins)), groups.counts)
        hits = np.flatnonzero(self.value == largest)
        _, first = np.unique(group[hits], return_index=True)
        return hits[first]

    def windows(self, rows: NDArray[np.intp], centres: Ints, left: int, width: int) -> Floats:
        """Activations `(n, width)` around centers, of groups `rows (n)` of `by_sequence`, beginning `left` tokens before."""
        out = np.zeros((len(rows), width), np.float32)
        counts = self.by_sequence.counts[rows]
        row = np.repeat(np.arange(len(rows)), counts)
        ends = np.cumsum(counts)
        events = np.arange(ends[-1]) - np.repeat(ends - counts - self.by_sequence.begins[rows], counts)
        column = self.position[events] - centres[row] + left
        inside = (column >= 0) & (column < width)
        out[row[inside], column[inside]] = self.value[events[inside]]
        return out


def rounds(feature: Ints, chosen: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Yield the chosen indices, ordered by feature, in rounds in which each feature occurs once."""
    groups = Groups.of(feature[chosen]) if len(chosen) else Groups(np.zeros(0, int), np.zeros(0, int))
    for turn in range(int(groups.counts.max(initial=0))):
        yield chosen[groups.begins[groups.counts > turn] + turn]


class LayerTally:
    """Counts, extremes, and samples of one layer's features.

    An example is the peak of a feature in a sequence, with the activations around it; contexts that are the same up
    to the peak count as one. `values` is an even sample of all activations, each with its token.
    """

    def __init__(self, layer: int, n_features: int, settings: BuildSettings) -> None:
        self.settings = settings
        self.salt = combine(np.array([settings.seed], np.uint64), np.array([layer], np.uint64))
        self.active: Ints = np.zeros(n_features, np.int64)
        self.low: Floats = np.full(n_features, np.inf, np.float32)
        self.high: Floats = np.full(n_features, -np.inf, np.float32)
        window = {"value": (np.float32, ()), "window": (np.float16, (settings.context,))}
        self.top = Reservoir(n_features, settings.examples, window, distinct=True)
        self.sample = Reservoir(n_features, settings.n_sample, window, distinct=True)
        token = {"value": (np.float32, ()), "token": (np.int32, ())}
        self.values = Reservoir(n_features, settings.values, token, distinct=False)

    @staticmethod
    def bytes_per_feature(settings: BuildSettings) -> int:
        """The bytes that one feature takes, without allocating them."""
        key, at, identity, value, token, shape = 4, 8, 8, 4, 4, 2 * settings.context
        examples = (settings.examples + settings.n_sample) * (key + at + identity + value + shape)
        statistics, worst = 8 + 4 + 4, 3 * key
        return statistics + worst + examples + settings.values * (key + at + value + token)

    def add(self, events: Events, batch: Batch) -> None:
        """Add one batch."""
        begins = events.by_feature.begins
        features = events.feature[begins]
        self.active[features] += events.by_feature.counts
        self.high[features] = np.maximum(self.high[features], np.maximum.reduceat(events.value, begins))
        self.low[features] = np.minimum(self.low[features], np.minimum.reduceat(events.value, begins))
        self._add_values(events, batch)
        self._add_examples(events, batch)

    def _add_values(self, events: Events, batch: Batch) -> None:
        at = events.position + batch.start
        keys = self._keys(events.feature, at.astype(np.uint64))
        for now in rounds(events.feature, self.values.welcome(events.feature, keys)):
            payload = {"value": events.value[now], "token": batch.tokens[events.position[now]]}
            self.values.offer(events.feature[now], keys[now], at[now], payload)

    def _add_examples(self, events: Events, batch: Batch) -> None:
        peaks = events.peaks()
        rows = np.flatnonzero(events.value[peaks] > 0)
        peaks = peaks[rows]
        feature, value, position = events.feature[peaks], events.value[peaks], events.position[peaks]
        identity = batch.hashes[position]
        for reservoir, keys in ((self.top, -value), (self.sample, self._keys(feature, identity))):
            for now in rounds(feature, reservoir.welcome(feature, keys)):
                windows = events.windows(rows[now], position[now], self.settings.left, self.settings.context)
                shape = (windows / value[now, None]).astype(np.float16)
                payload: dict[str, NDArray[Any]] = {"value": value[now], "window": shape}
                at = position[now] + batch.start
                reservoir.offer(feature[now], keys[now], at, payload, identity[now])

    def _keys(self, feature: Ints, what: Hashes) -> Floats:
        return uniform(combine(combine(self.salt, feature.astype(np.uint64)), what))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of the state, by name (not copies), so that a saved state can be copied into them."""
        found: dict[str, NDArray[Any]] = {"active": self.active, "low": self.low, "high": self.high}
        for name, reservoir in (("top", self.top), ("sample", self.sample), ("values", self.values)):
            found |= {f"{name}.{part}": array for part, array in reservoir.arrays().items()}
        return found
