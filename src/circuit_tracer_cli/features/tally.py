"""What is remembered of one layer's features while text streams by. The memory is fixed by the settings, not by the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuit_tracer_cli.features.hashing import Hashes, combine, context_hashes, uniform
from circuit_tracer_cli.features.reservoir import Floats, Ints, Reservoir
from circuit_tracer_cli.features.settings import BuildSettings


@dataclass(frozen=True, slots=True)
class SequenceFacts:
    """What all layers need to know about one sequence of tokens."""

    tokens: NDArray[np.int32]  # (pos)
    start: int  # index of its first token in the corpus
    hashes: Hashes  # (pos), of each position with the context to its left

    @classmethod
    def of(cls, tokens: NDArray[np.int32], start: int, left: int) -> SequenceFacts:
        """The facts of a sequence whose examples will show `left` tokens before the peak."""
        return cls(tokens, start, context_hashes(tokens, left))


@dataclass(frozen=True, slots=True)
class Events:
    """The activations of one layer on one sequence that aren't zero, by feature and then by position, never empty."""

    feature: Ints  # (event)
    position: Ints  # (event)
    value: Floats  # (event)
    features: Ints  # (distinct), ascending
    begins: Ints  # (distinct): where each feature's events begin
    counts: Ints  # (distinct)

    @classmethod
    def of(cls, position: Ints, feature: Ints, value: Floats) -> Events:
        """From events ordered by position."""
        order = np.argsort(feature, kind="stable")
        features, begins, counts = np.unique(feature[order], return_index=True, return_counts=True)
        return cls(feature[order], position[order], value[order], features, begins, counts)

    def peaks(self) -> NDArray[np.intp]:
        """Per distinct feature the index of its largest event, the first one among equals."""
        largest = np.repeat(np.maximum.reduceat(self.value, self.begins), self.counts)
        hits = np.flatnonzero(self.value == largest)
        _, first = np.unique(self.feature[hits], return_index=True)
        return hits[first]

    def windows(self, rows: NDArray[np.intp], centres: Ints, left: int, width: int) -> Floats:
        """Activations `(n, width)` of the distinct features `rows (n)`, each `left` tokens before its centre and on."""
        out = np.zeros((len(rows), width), np.float32)
        counts = self.counts[rows]
        row = np.repeat(np.arange(len(rows)), counts)
        ends = np.cumsum(counts)
        events = np.arange(ends[-1]) - np.repeat(ends - counts, counts) + np.repeat(self.begins[rows], counts)
        column = self.position[events] - centres[row] + left
        inside = (column >= 0) & (column < width)
        out[row[inside], column[inside]] = self.value[events[inside]]
        return out


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
        """The memory that one feature takes."""
        return sum(array.nbytes for array in LayerTally(0, 1, settings).arrays().values())

    def add(self, events: Events, sequence: SequenceFacts) -> None:
        """Take in one sequence."""
        features = events.features
        self.active[features] += events.counts
        self.high[features] = np.maximum(
            self.high[features], np.maximum.reduceat(events.value, events.begins)
        )
        self.low[features] = np.minimum(self.low[features], np.minimum.reduceat(events.value, events.begins))
        self._add_values(events, sequence)
        self._add_examples(events, sequence)

    def _add_values(self, events: Events, sequence: SequenceFacts) -> None:
        at = events.position + sequence.start
        keys = self._keys(events.feature, at.astype(np.uint64))
        chosen = self.values.welcome(events.feature, keys)
        while len(chosen):  # a round takes one event of each feature
            feature = events.feature[chosen]
            first = np.flatnonzero(np.diff(feature, prepend=-1))
            now = chosen[first]
            payload = {"value": events.value[now], "token": sequence.tokens[events.position[now]]}
            self.values.offer(events.feature[now], keys[now], at[now], payload)
            chosen = np.delete(chosen, first)

    def _add_examples(self, events: Events, sequence: SequenceFacts) -> None:
        peaks = events.peaks()
        rows = np.flatnonzero(events.value[peaks] > 0)
        feature, value = events.features[rows], events.value[peaks[rows]]
        position = events.position[peaks[rows]]
        identity = sequence.hashes[position]
        for reservoir, keys in ((self.top, -value), (self.sample, self._keys(feature, identity))):
            chosen = reservoir.welcome(feature, keys)
            if not len(chosen):
                continue
            centres, heights = position[chosen], value[chosen]
            windows = events.windows(rows[chosen], centres, self.settings.left, self.settings.context)
            shape = (windows / heights[:, None]).astype(np.float16)
            payload: dict[str, NDArray[Any]] = {"value": heights, "window": shape}
            at = centres + sequence.start
            reservoir.offer(feature[chosen], keys[chosen], at, payload, identity[chosen])

    def _keys(self, feature: Ints, what: Hashes) -> Floats:
        return uniform(combine(combine(self.salt, feature.astype(np.uint64)), what))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The whole state, by name; the arrays themselves, so that a saved state can be copied into them."""
        found: dict[str, NDArray[Any]] = {"active": self.active, "low": self.low, "high": self.high}
        for name, reservoir in (("top", self.top), ("sample", self.sample), ("values", self.values)):
            found |= {f"{name}.{part}": array for part, array in reservoir.arrays().items()}
        return found
