"""Merge graphs of many prompts: how often a node or edge occurs, how strong, how stable, and where two groups differ.

Graphs are read one after the other and added to sums per node and edge. Sums above a fixed size go to a temporary file, so
that memory grows with what is kept, not with the number or the size of the graphs. The result is an ordinary graph file whose
metadata tells what was merged.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.files.atomic import output_error
from circuit_tracer_cli.files.scratch import scratch_array
from circuit_tracer_cli.many.align import Alignment, node_keys
from circuit_tracer_cli.many.facts import Array, Facts

RESAMPLES = 1000
LEAST_PER_GROUP = 5
"""Smallest number of prompts per group for a meaningful p-value."""
NUMBERS_AT_ONCE = 2**22
KEYS_IN_MEMORY = 2**21
"""Number of keys whose sums are kept in memory, 64 bytes each; more go to a temporary file."""
PARTS = 64
"""Number of parts of that file, a power of two; they are added up one at a time."""
EXACT_SPLITS = 10_000
"""Up to this number of ways to split the prompts into groups, all of them are tried."""


@dataclass(slots=True)
class Sums:
    """Sums per key; two records are added by adding their arrays.

    Attributes:
        keys: uint64 `(N)` or, for edges, `(N, 2)` source and target keys; ascending.
        n: Number of graphs that have it.
        share, share2: Sum and sum of squares of its share over the graphs.
        value: Sum of its activation or weight.
        plus: Number of graphs that have it with a positive weight.
        stable: Sum over graphs of the share of prunings that keep it.
    """

    keys: Array
    n: Array
    share: Array
    share2: Array
    value: Array
    plus: Array
    stable: Array

    @classmethod
    def empty(cls, width: int) -> Sums:
        """Return empty sums; `width` is 1 for nodes and 2 for edges."""
        keys = np.empty((0, width) if width > 1 else 0, dtype=np.uint64)
        return cls(keys, *(np.empty(0) for _ in range(6)))

    @classmethod
    def of_one(cls, keys: Array, share: Array, value: Array, stable: Array) -> Sums:
        """Return the sums of one graph; entries with equal keys are added."""
        union, place = _distinct(keys)

        def total(values: Array) -> Array:
            return np.bincount(place, weights=values, minlength=len(union))

        summed, count = total(share), np.ones(len(union))
        worth = total(value)
        return cls(
            union,
            count,
            summed,
            summed**2,
            worth,
            (worth > 0).astype(float),
            total(stable) / total(np.ones_like(share)),
        )

    def add(self, other: Sums) -> Sums:
        """Return the sum of both."""
        return Sums.of_all([self, other])

    @classmethod
    def of_all(cls, parts: Sequence[Sums]) -> Sums:
        """Return the sum of all."""
        union, place = _distinct(np.concatenate([part.keys for part in parts]))
        columns = zip(*(part.columns() for part in parts), strict=True)
        return cls(
            union, *(np.bincount(place, weights=np.concatenate(one), minlength=len(union)) for one in columns)
        )

    def where(self, mask: Array) -> Sums:
        """Return only the chosen keys."""
        return Sums(self.keys[mask], *(column[mask] for column in self.columns()))

    def columns(self) -> tuple[Array, ...]:
        return self.n, self.share, self.share2, self.value, self.plus, self.stable

    def statistics(self, n_graphs: int) -> Statistics:
        """Frequencies, means and spreads over `n_graphs` graphs."""
        mean = self.share / n_graphs
        variance = np.maximum(self.share2 / n_graphs - mean**2, 0) * n_graphs / max(1, n_graphs - 1)
        return Statistics(
            keys=self.keys,
            n_seen=self.n.astype(np.int64),
            frequency=self.n / n_graphs,
            mean_share=mean,
            mean_share_seen=self.share / self.n,
            sd=np.sqrt(variance),
            mean_value=self.value / n_graphs,
            n_positive=self.plus.astype(np.int64),
            sign_consistency=np.abs(2 * self.plus - self.n) / self.n,
            stability=self.stable / self.n,
        )


@dataclass(slots=True)
class Statistics:
    """Statistics of each node or edge over many graphs. Arrays have one entry per key.

    Attributes:
        keys: As in `Sums`.
        n_seen: Number of graphs that have it.
        frequency: `n_seen` over all graphs.
        mean_share: Mean share over all graphs, zero where absent.
        mean_share_seen: Mean share over the graphs that have it.
        sd: Standard deviation of the share over all graphs.
        mean_value: Mean activation or weight over all graphs.
        n_positive: Number of graphs in which that is above zero.
        sign_consistency: 1 if the weight has one sign in all graphs, 0 if both signs are equally frequent.
        stability: Mean share of the prunings of a fixed grid that keep it; NaN if not measured.
        low, high: Bounds of the 95 % bootstrap interval of `mean_share` over prompts; NaN if not computed.
    """

    keys: Array
    n_seen: Array
    frequency: Array
    mean_share: Array
    mean_share_seen: Array
    sd: Array
    mean_value: Array
    n_positive: Array
    sign_consistency: Array
    stability: Array
    low: Array = field(default_factory=lambda: np.empty(0))
    high: Array = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True, slots=True)
class OneGraph:
    """The keys and values of one graph, or of one merged from several `members`."""

    nodes: Sums
    edges: Sums
    members: tuple[str, ...]
    group: str | None = None


def contribution(graph: Facts, slots: Array, alignment: Alignment, group: str | None = None) -> OneGraph:
    """The contribution of one graph: its kept nodes and edges by the keys of the alignment."""
    keys = node_keys(graph, slots, alignment.match)
    total = graph.influence / max(float(graph.influence.sum()), 1e-30)
    kept = graph.kept
    activation = np.nan_to_num(graph.activation)
    nodes = Sums.of_one(keys[kept], total[kept], activation[kept], graph.node_stability[kept])
    ends = np.stack([keys[graph.source], keys[graph.target]], axis=1)
    edges = Sums.of_one(ends, graph.edge_share, graph.weight, graph.edge_stability)
    return OneGraph(nodes, edges, (graph.name,), group)


@dataclass(frozen=True, slots=True)
class Merged:
    """The merged graph of many prompts.

    Attributes:
        level: How positions were matched.
        names: What stands at each slot.
        members: Names of the graphs.
        nodes, edges: Statistics over all graphs, of nodes and edges that are frequent enough.
        groups: Name and number of graphs of each group.
        tests: Where two groups differ, for nodes and edges; None for one group.
    """

    level: str
    names: tuple[str, ...]
    members: tuple[str, ...]
    nodes: Statistics
    edges: Statistics
    groups: dict[str, int]
    tests: dict[str, GroupTest] | None


@dataclass(frozen=True, slots=True)
class GroupTest:
    """Two groups of prompts compared, one entry per node or edge.

    Attributes:
        groups: Names of the two.
        difference: Mean share in the second group minus that in the first.
        delta: Cliff's delta, -1 … 1.
        p: Permutation p-value over prompts, two-sided; NaN with fewer than five prompts in a group.
        q: Benjamini-Hochberg corrected.
        n_tests: How many tests were made.
    """

    groups: tuple[str, str]
    difference: Array
    delta: Array
    p: Array
    q: Array
    n_tests: int


class Spool:
    """Keys and shares of graphs in a temporary file, for a second pass."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="circuit-tracer-")  # noqa: SIM115 - closed by __exit__
        self.groups: list[str | None] = []

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def keep(self, nodes: Sums, edges: Sums, group: str | None) -> None:
        """Write those of one graph. Raises OutputError if there is no room."""
        self.groups.append(group)
        try:
            for sums in (nodes, edges):
                np.save(self._file, sums.keys)
                np.save(self._file, sums.share.astype(np.float32))
        except OSError as error:
            raise output_error(Path(tempfile.gettempdir()), error) from error

    def shares(self, which: Literal["nodes", "edges"], keys: Array) -> Array:
        """float32 `(n, N)`: the share of each key in each graph, zero where absent; in a scratch file if large."""
        held, _ = scratch_array(len(self.groups) * len(keys), np.float32)
        shares = held.reshape(len(self.groups), len(keys))
        packed = _rows(keys)
        self._file.seek(0)
        for row in range(len(self.groups)):
            nodes, edges = [(np.load(self._file), np.load(self._file)) for _ in range(2)]
            own, share = nodes if which == "nodes" else edges
            if len(keys):
                place = np.searchsorted(packed, _rows(own)).clip(max=len(packed) - 1)
                inside = packed[place] == _rows(own)
                shares[row, place[inside]] = share[inside]
        self._file.seek(0, 2)
        return shares


def merge_contributions(
    graphs: Iterable[OneGraph], level: str, names: tuple[str, ...], least: float = 0.0, seed: int = 0
) -> Merged:
    """Merge the contributions of graphs in one pass.

    Args:
        graphs: The contributions in order; some may be merged already.
        level: How positions were matched.
        names: What stands at each slot.
        least: Keep nodes and edges with at least this frequency; 0 for the union, 1 for those in all graphs.
        seed: Seed of the resampling.

    Raises:
        InvalidValue: There are no graphs, or the frequency is outside 0..1.
    """
    if not 0 <= least <= 1:
        raise InvalidValue(f"the minimum frequency must be between 0 and 1, not {least}")
    members: list[str] = []
    single = True
    with Spool() as spool, Pile(1) as node_pile, Pile(2) as edge_pile:
        for one in graphs:
            node_pile.add(one.nodes)
            edge_pile.add(one.edges)
            members.extend(one.members)
            single = single and len(one.members) == 1
            spool.keep(one.nodes, one.edges, one.group)
        n = len(members)
        if not n:
            raise InvalidValue("there are no graphs to merge")
        nodes, edges = node_pile.total(least * n - 1e-9), edge_pile.total(least * n - 1e-9)
        known: Array = np.all(np.isin(edges.keys, nodes.keys), axis=1)
        edges = edges.where(known)
        statistics = nodes.statistics(n), edges.statistics(n)
        groups = {
            name: spool.groups.count(name) for name in sorted({g for g in spool.groups if g is not None})
        }
        tests: dict[str, GroupTest] = {}
        if single:
            kinds: tuple[Literal["nodes", "edges"], ...] = ("nodes", "edges")
            for which, found in zip(kinds, statistics, strict=True):
                shares = spool.shares(which, found.keys)
                found.low, found.high = bootstrap(shares, seed)
                if len(groups) == 2:
                    tests[which] = compare_groups(shares, spool.groups, seed)
    return Merged(level, names, tuple(members), *statistics, groups, tests or None)


def _distinct(keys: Array) -> tuple[Array, Array]:
    """Distinct keys, ascending, and the index of each key among them."""
    if keys.ndim == 1:
        union, place = np.unique(keys, return_inverse=True)
        return union, place.reshape(-1)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    first = np.ones(len(keys), dtype=np.bool_)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    place = np.empty(len(keys), dtype=np.int64)
    place[order] = np.cumsum(first) - 1
    return ordered[first], place


class Pile:
    """Sums of many graphs, added in pairs of similar size, so that each is processed a few times and not once per graph.

    Sums beyond `KEYS_IN_MEMORY` go to a temporary file, split into parts by the source key. Parts are added up one after the
    other, so that memory grows neither with the number of graphs nor with that of distinct keys, but only with what is
    frequent enough to be kept.
    """

    def __init__(self, width: int) -> None:
        self._width, self._parts = width, list[tuple[int, Sums]]()
        self._record = np.dtype([("keys", np.uint64, (width,)), ("columns", np.float64, (6,))])
        self._file = tempfile.TemporaryFile(prefix="circuit-tracer-")  # noqa: SIM115 - closed by __exit__
        self._bounds = list[Array]()  # for each run written: the start of each part in the file, in records

    def __enter__(self) -> Pile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, sums: Sums) -> None:
        """Add the sums of one graph. Raises OutputError if there is no room for the temporary file."""
        self._parts.append((1, sums))
        while len(self._parts) > 1 and self._parts[-2][0] <= self._parts[-1][0]:
            (later, second), (earlier, first) = self._parts.pop(), self._parts.pop()
            self._parts.append((earlier + later, first.add(second)))
        if sum(len(part.keys) for _, part in self._parts) > KEYS_IN_MEMORY:
            self._write(self._in_memory())

    def total(self, least: float) -> Sums:
        """Return the sum of all, for the keys that enough graphs have."""
        if not self._bounds:
            total = self._in_memory()
            return total.where(total.n >= least)
        self._write(self._in_memory())
        found = []
        for part in range(PARTS):
            pile = [self._read(int(bounds[part]), int(bounds[part + 1])) for bounds in self._bounds]
            total = Sums.of_all(pile)
            found.append(total.where(total.n >= least))
        return Sums.of_all(found)

    def _in_memory(self) -> Sums:
        total = Sums.empty(self._width)
        while self._parts:
            total = self._parts.pop()[1].add(total)
        return total

    def _write(self, sums: Sums) -> None:
        """Append a run of records, in the order of their parts."""
        part = _part_of(sums.keys)
        order = np.argsort(part, kind="stable")
        begin = self._file.seek(0, 2) // self._record.itemsize
        records = np.empty(len(order), dtype=self._record)
        records["keys"] = sums.keys[order].reshape(len(order), self._width)
        records["columns"] = np.stack(sums.columns(), axis=1)[order]
        try:
            self._file.write(records.tobytes())
        except OSError as error:
            raise output_error(Path(tempfile.gettempdir()), error) from error
        self._bounds.append(begin + np.searchsorted(part[order], np.arange(PARTS + 1)))

    def _read(self, begin: int, end: int) -> Sums:
        size = self._record.itemsize
        self._file.seek(begin * size)
        records = np.frombuffer(self._file.read((end - begin) * size), dtype=self._record)
        keys = records["keys"] if self._width > 1 else records["keys"][:, 0]
        return Sums(keys, *records["columns"].T)


def _part_of(keys: Array) -> Array:
    """The part of each key: equal for equal source keys, and of similar size (Fibonacci hashing of the source)."""
    source = keys if keys.ndim == 1 else keys[:, 0]
    part: Array = (source * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - PARTS.bit_length() + 1)
    return part


def _rows(keys: Array) -> Array:
    """Sortable keys: a pair as one record with the same order."""
    if keys.ndim == 1:
        return keys
    return np.ascontiguousarray(keys).view([("source", np.uint64), ("target", np.uint64)]).reshape(-1)


def bootstrap(shares: Array, seed: int = 0) -> tuple[Array, Array]:
    """Bounds of the 95 % percentile interval of the mean share, resampling prompts with replacement.

    Args:
        shares: `(n, N)`, by prompt and key.
        seed: Sampling seed.

    Returns:
        Two arrays `(N)`; NaN for a single prompt.
    """
    n, n_keys = shares.shape
    low, high = np.full(n_keys, np.nan), np.full(n_keys, np.nan)
    if n < 2:
        return low, high
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float32)
    for block in _column_blocks(n_keys, max(n, RESAMPLES)):
        low[block], high[block] = np.quantile(draws @ shares[:, block] / n, [0.025, 0.975], axis=0)
    return low, high


def _column_blocks(n_keys: int, height: int) -> Iterator[slice]:
    step = max(1, NUMBERS_AT_ONCE // height)
    for start in range(0, n_keys, step):
        yield slice(start, min(start + step, n_keys))


def compare_groups(shares: Array, of_group: Sequence[str | None], seed: int = 0) -> GroupTest:
    """Compare the shares of two groups of prompts.

    The permutation test measures how often a random split of the prompts into groups of these sizes has at least as large a
    difference of means; all splits are tried if there are at most 10,000. q-values are Benjamini and Hochberg's (1995).

    Args:
        shares: `(n, N)`, by prompt and key.
        of_group: The group of each prompt; prompts without a group are ignored.
        seed: Seed of the random splits.
    """
    first, second = sorted({group for group in of_group if group is not None})
    members = [np.flatnonzero([group == name for group in of_group]) for name in (first, second)]
    n, n_keys = [len(rows) for rows in members], shares.shape[1]
    difference, delta, p = np.empty(n_keys), np.empty(n_keys), np.full(n_keys, np.nan)
    splits = _splits(n[0], n[1], seed) if min(n) >= LEAST_PER_GROUP else None
    for block in _column_blocks(n_keys, max(sum(n), 1 if splits is None else len(splits))):
        a, b = (np.asarray(shares[rows][:, block], dtype=np.float64) for rows in members)
        difference[block] = b.mean(axis=0) - a.mean(axis=0)
        delta[block] = np.sign(b[:, None] - a[None]).mean(axis=(0, 1))
        if splits is None:
            continue
        both = np.concatenate([a, b])
        in_first = splits @ both
        moved = (both.sum(axis=0) - in_first) / n[1] - in_first / n[0]
        tolerance = 1e-12 * np.abs(both).max(axis=0)
        p[block] = (np.abs(moved) >= np.abs(difference[block]) - tolerance).mean(axis=0)
    return GroupTest((first, second), difference, delta, p, corrected(p), n_keys)


def _splits(first: int, second: int, seed: int) -> Array:
    """float64 `(splits, first + second)`: ones for the members of the first group; the actual split comes first."""
    total = first + second
    if math.comb(total, first) <= EXACT_SPLITS:
        chosen = np.array(list(itertools.combinations(range(total), first)))
    else:
        rng = np.random.default_rng(seed)
        random = [rng.permutation(total)[:first] for _ in range(EXACT_SPLITS - 1)]
        chosen = np.array([np.arange(first), *random])
    splits = np.zeros((len(chosen), total))
    np.put_along_axis(splits, chosen, 1.0, axis=1)
    return splits


def corrected(p: Array) -> Array:
    """Benjamini-Hochberg q-values; NaN stays NaN."""
    q = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q
