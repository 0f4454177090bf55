"""For each of many features, the few best of all entries ever offered. One implementation for largest and for random entries.

An entry has a key, and the smallest keys stay: minus the activation for top examples, a hash for an even sample.
What is kept depends on the entries only, not on how they are split into offers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class Reservoir:
    """At most `size` entries for each feature.

    Args:
        n_features: Rows.
        size: Entries per row.
        payload: What else an entry holds: name → (dtype, shape).
        distinct: Entries have an identity, and of those with the same one only the best stays.

    Attributes:
        key: `(feature, size)`, infinity where there is no entry.
        at: `(feature, size)`, the token of the corpus that the entry stands for; among equal keys, earlier tokens stay.
        identity: `(feature, size)`, if entries are distinct.
        payload: Name → `(feature, size, …)`.
        worst: `(feature)`, what a key must be below to get in.
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
        """Indices of the entries that may get in, so that nothing need be prepared for the others."""
        return np.flatnonzero(keys < self.worst[features])

    def offer(
        self,
        features: Ints,
        keys: Floats,
        at: Ints,
        payload: Mapping[str, NDArray[Any]],
        identity: NDArray[np.uint64] | None = None,
    ) -> None:
        """Let in what belongs in. Each feature occurs once: `features (n)` are distinct; a token isn't offered twice."""
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
        """Whether the row has an entry of that identity, and in which slot."""
        assert self.identity is not None
        same = (self.identity[rows] == identity[:, None]) & np.isfinite(self.key[rows])
        return same.any(axis=1), same.argmax(axis=1)

    def entries(self, feature: int) -> NDArray[np.intp]:
        """The slots of a feature's entries, best key first, earlier tokens first among equals."""
        order = np.lexsort((self.at[feature], self.key[feature]))
        return order[: int(np.isfinite(self.key[feature]).sum())]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that makes up the state, by name; the arrays themselves."""
        found: dict[str, NDArray[Any]] = {"key": self.key, "at": self.at, "worst": self.worst}
        if self.identity is not None:
            found["identity"] = self.identity
        return found | {f"payload.{name}": values for name, values in self.payload.items()}
