"""The strongest chains of heads on an edge, found best-first.

A node of the search is the beginning of a chain, from the source upwards: the value of `L1H0 → L3H2` is everything that goes
through L1H0, then directly through L3H2, and then on any path to the target. Its children are every possible next head, and
"arrives": no further head. The children of a node sum to it exactly, so nothing is lost. But signs cancel, so a weak beginning
can have strong endings: the search finds strong chains, not with certainty the strongest.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.attention.names import head_name
from circuit_tracer_cli.attention.walks import carry, pull
from circuit_tracer_cli.attribution.linear import FoldedLayer, LinearEngine, Targets

OPENED = 20
"""Largest number of beginnings that are expanded for each requested chain."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Paths through exactly these heads `(layer, head)`, from the source upwards; empty for the direct path."""

    heads: tuple[tuple[int, int], ...]
    value: float

    @property
    def names(self) -> list[str]:
        """`L1H0`, `L3H2`, …"""
        return [head_name(layer, head) for layer, head in self.heads]

    def to_dict(self) -> dict[str, Any]:
        """Return the record that `--json` prints."""
        return {"heads": self.names, "value": self.value}


@dataclass(frozen=True, slots=True)
class Chains:
    """The chains found, strongest first, and the sum of all existing chains, found or not."""

    chains: tuple[Chain, ...]
    total: float


def chains_of(engine: LinearEngine, column: Tensor, target: Targets, n: int) -> Chains:
    """The `n` strongest chains of one edge.

    Args:
        engine: The engine.
        column: `(1)`, the source.
        target: One target.
        n: Number of chains to find.
    """
    search = _Search(engine, target)
    total = search.open_source(column)
    for _ in range(OPENED * n):
        if not search.open_best(n):
            break
    found = sorted(search.arrived, key=lambda chain: -abs(chain.value))[:n]
    return Chains(tuple(found), total)


class _Search:
    """The open beginnings and the finished chains."""

    def __init__(self, engine: LinearEngine, target: Targets) -> None:
        self.engine, self.target = engine, target
        self.n_pos = int(target.positions[0]) + 1
        self.z = {level.layer: level.z[0] for level in pull(engine, target)}  # (pos, kv_head, group, d_head)
        self.direction = engine.directions(target)[0]
        self.arrived: list[Chain] = []
        self.waiting: list[tuple[float, int, tuple[tuple[int, int], ...], Tensor, int]] = []
        self.number = itertools.count()

    def open_source(self, column: Tensor) -> float:
        """Return the initial beginning: the full edge."""
        total, layer_of_target = 0.0, int(self.target.layers[0])
        for level in self.engine.sweep(column, self.n_pos, attention=False):
            if not len(level.read):
                continue
            if level.layer == layer_of_target:
                total += self.arrive((), level.read[0], level.first)
            if level.layer < self.engine.n_layers:
                total += self.offer((), level.layer, level.values[0], level.first)
        return total

    def arrive(self, heads: tuple[tuple[int, int], ...], read: Tensor, first: int) -> float:
        """Record a chain without further heads, and return its value."""
        at = self.n_pos - 1 - first
        value = float(read[at] @ self.direction.to(read)) if at >= 0 else 0.0
        if value:
            self.arrived.append(Chain(heads, value))
        return value

    def offer(self, heads: tuple[tuple[int, int], ...], layer: int, values: Tensor, first: int) -> float:
        """Extend a beginning by every head of a layer, and return the sum of their values."""
        folded = self.engine.layers[layer]
        read = _read(folded, values, first)  # (pos, kv_head, group, d_head)
        value = (read * self.z[layer][first:]).sum((0, 3)).flatten()
        for head in value.nonzero().squeeze(1).tolist():
            further = (*heads, (layer, head))
            heapq.heappush(
                self.waiting, (-abs(float(value[head])), next(self.number), further, values, first)
            )
        return float(value.sum())

    def _written(self, layer: int, head: int, values: Tensor, first: int) -> Tensor:
        """What one head writes `(pos, d_model)`."""
        folded = self.engine.layers[layer]
        read = _read(folded, values, first)
        group = folded.pattern.shape[3]
        d_head = read.shape[-1]
        columns = folded.W_O[:, head * d_head : (head + 1) * d_head]
        out = read.new_zeros(self.n_pos, columns.shape[0])
        out[first:] = read[:, head // group, head % group] @ columns.T
        return out

    def open_best(self, n: int) -> bool:
        """Expand the beginning with the largest value; return False if none can beat the finished chains."""
        if not self.waiting:
            return False
        strongest = heapq.nlargest(n, (abs(chain.value) for chain in self.arrived))
        if len(strongest) >= n and -self.waiting[0][0] <= strongest[-1]:
            return False
        _, _, heads, values, first = heapq.heappop(self.waiting)
        written = self._written(*heads[-1], values, first)
        layer_of_target = int(self.target.layers[0])
        for level in carry(self.engine, heads[-1][0], written):
            if level.layer > layer_of_target:
                break
            if level.layer == layer_of_target:
                self.arrive(heads, level.read[0], 0)
            if len(level.values):
                self.offer(heads, level.layer, level.values[0], 0)
        return True


def _read(folded: FoldedLayer, values: Tensor, first: int) -> Tensor:
    """What heads read `(query, kv_head, group, d_head)` of `values (key, kv_head, d_head)`."""
    last = first + len(values)
    return torch.einsum("nkqg,kna->qnga", folded.pattern[:, first:last, first:last], values)
