"""Which rows are computed, in which order, and how they become edges: all rows, or those of the most influential features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.columns import Columns
from circuit_tracer_cli.attribution.ranking import (
    PartialInfluence,
    RowBlock,
    RowShelf,
    next_features,
    on_host,
)
from circuit_tracer_cli.attribution.rows import BlockSize, Engine, feature_rows, is_out_of_memory
from circuit_tracer_cli.attribution.targets import AttributionTargets
from circuit_tracer_cli.attribution.transfer import beside
from circuit_tracer_cli.graph.edges import Edges, EdgesBuilder
from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.components import ActiveFeatures
from circuit_tracer_cli.types import Progress

DENSE_ON_DEVICE = 2**26
"""Numbers of rows over all nodes that are packed at once on a device."""

Packing = Callable[[], tuple[Tensor, Edges]]


@dataclass(frozen=True, slots=True)
class Tracing:
    """Traces features until there are enough.

    Args:
        engine: Computes the rows.
        transcoders: Source of encoder rows.
        active: The active features.
        candidates: Ascending indices of those that may become nodes.
        targets: The logit targets.
        first_rows: Rows of the logit targets.
        step: Number of features chosen between two rankings.
        size: Size of the engine's blocks.
        progress: Progress callback for rows.
        offer: Called when more rows are known, with a function that packs them.
    """

    engine: Engine
    transcoders: Transcoders
    active: ActiveFeatures
    candidates: Tensor
    targets: AttributionTargets
    first_rows: list[RowBlock]
    step: int
    size: BlockSize
    progress: Progress
    offer: Callable[[Packing], None]

    def run(self, count: int) -> tuple[Tensor, Packager]:
        """Trace `count` features; return the features, ascending, and their packed rows."""
        if count == len(self.candidates):
            return self.all()
        kept = self.most_influential(count)
        selected = torch.sort(torch.cat([block.nodes for block in kept])).values
        packager = self.packager(selected)
        while kept:
            packager.add(kept.pop())
        return selected, packager

    def all(self) -> tuple[Tensor, Packager]:
        """Trace all candidates, packing rows as they come."""
        selected = self.candidates
        packager = self.packager(selected)
        for block in self.rows(selected):
            packager.add(block)
            self.offer(lambda: (selected, packager.edges_so_far()))
        return selected, packager

    def packager(self, selected: Tensor) -> Packager:
        """Return an empty graph of these features that contains the rows of the logit targets."""
        packager = Packager(self.engine.columns, selected, len(self.targets))
        for block in self.first_rows:
            packager.add(block)
        return packager

    def most_influential(self, count: int) -> list[RowBlock]:
        """Trace the most influential features, ranked again after every `step` of them (spec 2.6)."""
        columns = self.engine.columns
        influence = PartialInfluence(
            columns.feature_column,
            columns.width,
            self.targets.logit_probabilities,
            self.engine.n_layers,
            self.first_rows[0].rows.device,
        )
        influence.add(self.first_rows)
        visited = torch.ones(len(self.active), dtype=torch.bool)
        visited[self.candidates] = False
        others = len(self.active) - len(self.candidates)
        kept: list[RowBlock] = []
        shelf = RowShelf()
        self.size.spill = shelf.spill
        while (done := int(visited.sum()) - others) < count:
            chosen = next_features(influence.of_features(), visited, min(self.step, count - done))
            visited[chosen] = True
            blocks = [shelf.keep(block) for block in self.rows(chosen)]
            kept += blocks
            if done + len(chosen) < count:
                influence.add(blocks)
                self.offer(partial(packed, columns, [*self.first_rows, *kept], len(self.targets)))
        self.size.spill = None
        return kept

    def rows(self, chosen: Tensor) -> Iterator[RowBlock]:
        """Yield rows of some features, reporting them to the progress display."""
        for block in feature_rows(self.engine, self.transcoders, self.active, chosen, self.size, stay=True):
            self.progress.advance(len(block.nodes))
            yield block


class Packager:
    """Collects row blocks into the graph's edges.

    Args:
        columns: The engine's column order.
        selected: Ascending indices of the active features that become nodes.
        n_logits: Number of logit targets.
    """

    def __init__(self, columns: Columns, selected: Tensor, n_logits: int) -> None:
        self.columns = columns
        shared = columns.n_layers * columns.n_pos + columns.n_pos
        self.n_nodes = len(selected) + shared + n_logits
        self.node_of = torch.full((columns.n_features + shared + n_logits,), -1, dtype=torch.int64)
        self.node_of[selected] = torch.arange(len(selected))
        self.node_of[columns.n_features :] = torch.arange(shared + n_logits) + len(selected)
        self.node_of_column = self.node_of[columns.nodes()]
        self.first_logit = len(selected) + shared
        self._kept = (self.node_of_column >= 0).nonzero().squeeze(1)  # columns of nodes
        self._there: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self.builder = EdgesBuilder(self.n_nodes)

    def add(self, block: RowBlock) -> None:
        """Add the rows of one block, without the columns of features that aren't nodes. Rows on a device are packed there."""
        is_logit = block.nodes >= self.columns.n_features
        rows = torch.where(
            is_logit,
            block.nodes - self.columns.n_features + self.first_logit,
            self.node_of[block.nodes.clamp_max(max(self.columns.n_features - 1, 0))],
        )
        try:
            self._pack(rows, block)
        except RuntimeError as error:
            if on_host(block.rows) or not is_out_of_memory(error):
                raise
            block.to_host()
            self._pack(rows, block)

    def _pack(self, rows: Tensor, block: RowBlock) -> None:
        """Pack rows where they are; `rows` are their indices in the graph."""
        if on_host(block.rows):
            self.builder.add_rows(rows, self._on_host(block.rows))
            return
        step = max(1, DENSE_ON_DEVICE // self.n_nodes)
        with beside(block.rows.device):
            for ids, part in zip(rows.split(step), block.rows.split(step), strict=True):
                self.builder.add_rows(ids, self._on_device(part))

    def _on_host(self, rows: Tensor) -> Tensor:
        """Return rows `(r, width)` over all nodes, `(r, n_nodes)`."""
        nodes = self.node_of_column[: rows.shape[1]]
        kept = nodes >= 0
        values = torch.zeros(len(rows), self.n_nodes)
        values[:, nodes[kept]] = rows if bool(kept.all()) else rows[:, kept]
        return values

    def _on_device(self, rows: Tensor) -> Tensor:
        """Return the same on the device of the rows, using indices that are already there."""
        device = rows.device
        if device not in self._there:
            self._there[device] = self._kept.to(device), self.node_of_column[self._kept].to(device)
        kept, nodes = self._there[device]
        count = int(torch.searchsorted(self._kept, rows.shape[1]))
        values = torch.zeros(len(rows), self.n_nodes, device=device)
        return values.index_copy_(1, nodes[:count], rows.index_select(1, kept[:count]))

    def edges(self) -> Edges:
        """Return all edges, in order. This releases the rows."""
        return self.builder.build()

    def edges_so_far(self) -> Edges:
        """Return the edges of the rows added so far."""
        return self.builder.copy().build()


def packed(columns: Columns, blocks: Iterable[RowBlock], n_logits: int) -> tuple[Tensor, Edges]:
    """Return the features among some rows, ascending, and the edges of a graph of these rows alone."""
    known = list(blocks)
    nodes = torch.cat([block.nodes for block in known])
    selected = torch.sort(nodes[nodes < columns.n_features]).values
    packager = Packager(columns, selected, n_logits)
    for block in known:
        packager.add(block)
    return selected, packager.edges()
