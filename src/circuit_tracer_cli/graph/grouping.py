"""Automatic supernodes: features with the same role are merged step by step, keeping the graph of groups acyclic. numpy only.

Two features have one role if the same nodes drive them and they drive the same nodes. With `N` the weights of each row divided by
the sum of their sizes, `τ` the influence and `w` the targets' weights, feature `i` has the profiles `in_i = N[i, :]` and
`out_i[k] = (τ_k + w_k) N[k, i]`, and two are as similar as `S = ½ cos(in) + ½ cos(out)`, signs included. Groups merge by average
linkage: the pair with the highest mean `S` first, ties by node id.

Merging two groups of an acyclic graph keeps it acyclic exactly if no path from one to the other visits a third group: a cycle
through the merged group would be such a path, and such a path would become a cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from circuit_tracer_cli.errors import InvalidValue, UnsuitableValue

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.graph.layout import NodeKind

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Members = tuple[int, ...]

LEVEL = 0.35
"""Smallest mean similarity at which groups at the same position merge."""
ACROSS = 0.6
"""Smallest mean similarity at which groups at different positions merge, if they share no feature."""
OPPOSED = -0.5
"""At or below this cosine of `out`, two features are never grouped: one undoes what the other does."""
MOST_NODES = 4000
_TINY = 1e-12


@dataclass(frozen=True)
class Circuit:
    """The nodes and edges of a pruned graph in the order of node ids, so that the order in a file never matters.

    Args:
        ids: Node ids, ascending.
        kinds: Kind of each node.
        layers: Layer of features and errors; -1 for other nodes.
        positions: Position of each node.
        features: Number of a feature in its layer; -1 for other nodes.
        A: float64 `(N, N)`, direct effects, row = target.
        w: float64 `(N)`, weights of the targets.
    """

    ids: list[str]
    kinds: list[NodeKind]
    layers: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    features: npt.NDArray[np.int64]
    A: Floats
    w: Floats

    @cached_property
    def members(self) -> list[int]:
        """The nodes that are features."""
        return [node for node, kind in enumerate(self.kinds) if kind == "feature"]

    @cached_property
    def N(self) -> Floats:
        """`A` with each row divided by the sum of its absolute values."""
        sums = np.abs(self.A).sum(1, keepdims=True)
        return self.A / np.where(sums > 0, sums, 1)

    @cached_property
    def influence(self) -> Floats:
        """`τ (N)`: influence of each node on the targets over all paths. Raises UnsuitableValue for a graph with a cycle."""
        absolute = np.abs(self.N).T
        current = total = absolute @ self.w
        for _ in range(len(self.ids) + 1):
            if not current.any():
                return total
            current = absolute @ current
            total = total + current
        raise UnsuitableValue("the graph has a cycle, so its nodes have no influence")

    @cached_property
    def cosines(self) -> tuple[Floats, Floats]:
        """Cosines `(F, F)` of the features' `in` and `out` profiles."""
        reach = self.influence + self.w
        return _cosines(self.N[self.members]), _cosines((reach[:, None] * self.N[:, self.members]).T)

    @property
    def similarity(self) -> Floats:
        """`S (F, F)` of the features."""
        of_in, of_out = self.cosines
        return (of_in + of_out) / 2

    def with_edges(self, keep: Flags) -> Circuit:
        """Return the same nodes with only the edges of a mask `(N, N)`."""
        return Circuit(
            self.ids,
            self.kinds,
            self.layers,
            self.positions,
            self.features,
            np.where(keep, self.A, 0),
            self.w,
        )


def circuit_of(graph: Graph) -> Circuit:
    """Return the kept nodes and edges of a graph, pruned by default thresholds unless it is pruned. Raises UnsuitableValue."""
    from circuit_tracer_cli.graph.nodes import iter_nodes

    pruned = graph.prune()
    nodes = sorted(iter_nodes(pruned), key=lambda node: node.node_id)
    check_size(len(nodes))
    place = np.full(pruned.n_nodes, -1)
    place[[node.index for node in nodes]] = np.arange(len(nodes))
    A = np.zeros((len(nodes), len(nodes)))
    for block in pruned.edges.blocks():
        rows, columns = place[block.rows], place[block.columns]
        inside = (rows >= 0) & (columns >= 0)
        A[rows[inside], columns[inside]] = block.values[inside]
    return Circuit(
        [node.node_id for node in nodes],
        [node.kind for node in nodes],
        np.array([-1 if node.layer is None else node.layer for node in nodes], dtype=np.int64),
        np.array([node.position for node in nodes], dtype=np.int64),
        np.array([-1 if node.feature is None else node.feature for node in nodes], dtype=np.int64),
        A,
        pruned.logit_weights.double().cpu().numpy()[[node.index for node in nodes]],
    )


def check_size(n_nodes: int) -> None:
    """Raise UnsuitableValue for more nodes than can be grouped."""
    if n_nodes > MOST_NODES:
        raise UnsuitableValue(
            f"{n_nodes:,} nodes are too many to group; the limit is {MOST_NODES:,}",
            "prune the graph first: circuit-tracer prune --node-threshold 0.6",
        )


@dataclass(frozen=True, slots=True)
class Merge:
    """One step: two groups, identified by their first members, and the mean similarity of their features."""

    first: int
    second: int
    height: float


@dataclass(frozen=True, slots=True)
class Partition:
    """Groups of two or more nodes.

    Attributes:
        groups: Nodes of each group, ascending; seeds first, then by first member.
        n_seeds: How many of them were given.
        acyclic: True if no cycle leads through the groups. Only given groups can cause one.
    """

    groups: list[Members]
    n_seeds: int
    acyclic: bool


def partition(
    circuit: Circuit,
    level: float = LEVEL,
    *,
    across_positions: bool = False,
    seeds: Sequence[Sequence[int]] = (),
) -> Partition:
    """Group the features of a circuit.

    Args:
        circuit: Nodes and edges.
        level: Smallest mean similarity at which two groups merge, 0 to 1. Lower values give fewer, larger groups.
        across_positions: Afterwards also merge groups at different positions that share a feature, or are as similar as `ACROSS`.
        seeds: Nodes of existing groups, which only grow and never merge with each other.

    Raises:
        InvalidValue: The level isn't between 0 and 1, or a node is in two seeds.
    """
    if not 0 <= level <= 1:
        raise InvalidValue(f"the level must be between 0 and 1, not {level}")
    named = [node for seed in seeds for node in seed]
    if len(set(named)) < len(named):
        raise InvalidValue("a node is in two groups")
    state = _State(circuit, [tuple(sorted(seed)) for seed in seeds])
    state.merge(state.at_one_position, level)
    if across_positions:
        state.merge(state.of_one_concept, _TINY)
    return Partition(state.groups(), len(seeds), not state.cyclic.any())


def dendrogram(circuit: Circuit, seeds: Sequence[Sequence[int]] = ()) -> list[Merge]:
    """Return all steps at one position down to a mean similarity of 0, in order.

    The groups at a level are those before the first step below it.
    """
    state = _State(circuit, [tuple(sorted(seed)) for seed in seeds])
    return state.merge(state.at_one_position, 0.0)


class _State:
    """Current groups, each at the index of its first part; those with features come first, and only they have similarities."""

    def __init__(self, circuit: Circuit, seeds: list[Members]) -> None:
        self.circuit = circuit
        taken = {node for seed in seeds for node in seed}
        single = [(node,) for node in range(len(circuit.ids)) if node not in taken]
        feature = set(circuit.members)
        parts = sorted(
            [*seeds, *single], key=lambda nodes: feature.isdisjoint(nodes)
        )  # stable: seeds, features, the rest
        self.members: list[Members] = parts
        self.place_of = {node: place for place, nodes in enumerate(parts) for node in nodes}
        self.is_seed = np.array([nodes[0] in taken for nodes in parts], dtype=np.bool_)
        self._similarities(sum(not feature.isdisjoint(nodes) for nodes in parts))
        self._reach()

    def _similarities(self, n: int) -> None:
        """What a merge updates: sums and minima over pairs of features, positions and shared features."""
        circuit, parts = self.circuit, self.members[:n]
        place = np.array([self.place_of[node] for node in circuit.members], dtype=np.int64)
        belongs = np.zeros((n, len(place)))
        belongs[place, np.arange(len(place))] = 1
        self.size = belongs.sum(1)
        self.total = belongs @ circuit.similarity @ belongs.T
        self.worst = np.ones((n, n))
        np.minimum.at(self.worst, (place[:, None], place[None, :]), circuit.cosines[1])
        self.at: Flags = np.zeros((n, int(circuit.positions.max(initial=0)) + 1), dtype=np.bool_)
        for row, nodes in zip(self.at, parts, strict=True):
            row[circuit.positions[list(nodes)]] = True
        keys = circuit.layers[circuit.members] * (1 << 40) + circuit.features[circuit.members]
        known = {key: column for column, key in enumerate(sorted(set(keys.tolist())))}
        self.holds = np.zeros((n, len(known)))
        self.holds[place, [known[key] for key in keys.tolist()]] = 1
        self.alive: Flags = np.ones(n, dtype=np.bool_)

    def _reach(self) -> None:
        """Which groups reach which others over any path; `cyclic` are seeds that reach themselves."""
        count = len(self.members)
        place = np.array([self.place_of[node] for node in range(len(self.circuit.ids))], dtype=np.int64)
        targets, sources = self.circuit.A.nonzero()
        reach: Flags = np.zeros((count, count), dtype=np.bool_)
        reach[place[sources], place[targets]] = True
        np.fill_diagonal(reach, val=False)
        following, before = [row.nonzero()[0] for row in reach], -1
        while before < (before := int(reach.sum())):
            for row, after in zip(reach, following, strict=True):
                if len(after):
                    row |= reach[after].any(0)
        self.reach, self.cyclic = reach, reach.diagonal().copy()

    def at_one_position(self, place: int) -> Flags:
        """The groups at the position of a group; for a seed that spans several positions, those at each of them."""
        common = (self.at & self.at[place]).sum(1)
        return np.asarray((common == self.at.sum(1)) | (common == self.at[place].sum()))

    def of_one_concept(self, place: int) -> Flags:
        """The groups that share a feature with a group, or are very similar to it."""
        return np.asarray((self.holds @ self.holds[place] > 0) | (self.mean(place) >= ACROSS))

    def mean(self, place: int) -> Floats:
        """Mean similarity of a group to every group, rounded so that the order of summation doesn't matter."""
        return np.asarray(np.round(self.total[place] / (self.size * self.size[place]), 9))

    def merge(self, allowed: Callable[[int], Flags], least: float) -> list[Merge]:
        """Merge allowed pairs that make no cycle, the most similar first, down to a mean similarity of `least`."""
        n, merges, blocked = len(self.size), list[Merge](), list[tuple[int, int, float]]()
        scores = np.full((n, n), -np.inf)
        for place in range(n):
            scores[place, place + 1 :] = self._scores(place, allowed, least)[place + 1 :]
        while n and np.isfinite(height := float(scores.max())):
            first, second = divmod(int(scores.argmax()), n)
            if not self._leaves_no_cycle(first, second):
                blocked.append((first, second, height))
                scores[first, second] = -np.inf
                continue
            for one, other, score in blocked:  # what blocked them may be inside a group now
                scores[one, other] = score
            blocked.clear()
            merges.append(Merge(self.members[first][0], self.members[second][0], height))
            self.join(first, second)
            of_first = self._scores(first, allowed, least)
            scores[first, first + 1 :], scores[:first, first] = of_first[first + 1 :], of_first[:first]
            scores[second] = scores[:, second] = -np.inf
        return merges

    def _scores(self, place: int, allowed: Callable[[int], Flags], least: float) -> Floats:
        """Mean similarity of a group to each group that it can merge with; -inf for the others."""
        if not self.alive[place]:
            return np.full(len(self.size), -np.inf)
        mean, seed = self.mean(place), self.is_seed[: len(self.size)]
        may = allowed(place) & (self.worst[place] > OPPOSED) & (mean >= least) & self.alive
        return np.where(may & ~(seed & seed[place]), mean, -np.inf)

    def _leaves_no_cycle(self, first: int, second: int) -> bool:
        """True if no path between two groups visits a third."""
        for start, end in ((first, second), (second, first)):
            between = self.reach[start] & self.reach[:, end]
            between[[first, second]] = False
            if between.any():
                return False
        return True

    def join(self, first: int, second: int) -> None:
        """Merge the second group into the first."""
        self.members[first] = tuple(sorted((*self.members[first], *self.members[second])))
        self.place_of.update(dict.fromkeys(self.members[first], first))
        self.is_seed[first] |= self.is_seed[second]
        self.size[first] += self.size[second]
        self.total[first] += self.total[second]
        self.total[:, first] += self.total[:, second]
        self.worst[first] = np.minimum(self.worst[first], self.worst[second])
        self.worst[:, first] = np.minimum(self.worst[:, first], self.worst[:, second])
        self.at[first] |= self.at[second]
        self.holds[first] = np.maximum(self.holds[first], self.holds[second])
        self.alive[second] = False
        after, before = self.reach[first] | self.reach[second], self.reach[:, first] | self.reach[:, second]
        pair, cyclic = [first, second], bool(self.cyclic[first] or self.cyclic[second])
        after[pair] = before[pair] = False
        self.reach[before] |= after
        self.reach[first], self.reach[:, first] = after, before
        self.reach[second] = self.reach[:, second] = False
        self.cyclic[first] = self.reach[first, first] = cyclic
        self.cyclic[second] = False

    def groups(self) -> list[Members]:
        """Seeds, then groups of two or more features."""
        alive = [*self.alive.tolist(), *[True] * (len(self.members) - len(self.alive))]
        living = [
            (nodes, bool(seed))
            for nodes, seed, lives in zip(self.members, self.is_seed, alive, strict=True)
            if lives
        ]
        return [nodes for nodes, seed in living if seed] + sorted(
            nodes for nodes, seed in living if not seed and len(nodes) > 1
        )


def _cosines(profiles: Floats) -> Floats:
    """Cosine of each pair of rows; 0 with a row of zeros."""
    length = np.linalg.norm(profiles, axis=1, keepdims=True)
    unit = profiles / np.where(length > _TINY, length, 1)
    return np.asarray(unit @ unit.T)
