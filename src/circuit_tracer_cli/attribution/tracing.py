"""Which rows are computed, in which turn: all of them, or those of the features that matter most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.backoff import BlockSize
from circuit_tracer_cli.attribution.packaging import Packager, packed
from circuit_tracer_cli.attribution.ranking import PartialInfluence, RowBlock, RowShelf, next_features
from circuit_tracer_cli.attribution.rows import Engine, feature_rows
from circuit_tracer_cli.attribution.targets import AttributionTargets
from circuit_tracer_cli.graph.edges import Edges
from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.components import ActiveFeatures
from circuit_tracer_cli.types import Progress

Packing = Callable[[], tuple[Tensor, Edges]]


@dataclass(frozen=True, slots=True)
class Tracing:
    """Traces features until there are enough.

    Args:
        engine: Computes the rows.
        transcoders: Where encoder rows come from.
        active: The active features.
        targets: The logit targets, whose rows are known.
        first_rows: Their rows.
        step: Features that are chosen between two rankings.
        size: Of the engine's blocks.
        progress: Told about rows.
        offer: Called whenever more rows are known, with a function that packs those.
    """

    engine: Engine
    transcoders: Transcoders
    active: ActiveFeatures
    targets: AttributionTargets
    first_rows: list[RowBlock]
    step: int
    size: BlockSize
    progress: Progress
    offer: Callable[[Packing], None]

    def run(self, count: int) -> tuple[Tensor, Packager]:
        """Rows of `count` features: the features, ascending, and the packed rows."""
        if count == len(self.active):
            return self.all()
        kept = self.most_influential(count)
        selected = torch.sort(torch.cat([block.nodes for block in kept])).values
        packager = self.packager(selected)
        while kept:
            packager.add(kept.pop())
        return selected, packager

    def all(self) -> tuple[Tensor, Packager]:
        """Rows of all features, packed as they come."""
        selected = torch.arange(len(self.active))
        packager = self.packager(selected)
        for block in self.rows(selected):
            packager.add(block)
            self.offer(lambda: (selected, packager.edges_so_far()))
        return selected, packager

    def packager(self, selected: Tensor) -> Packager:
        """Room for a graph of these features, the rows of the logit targets in it."""
        packager = Packager(self.engine.columns, selected, len(self.targets))
        for block in self.first_rows:
            packager.add(block)
        return packager

    def most_influential(self, count: int) -> list[RowBlock]:
        """Rows of the features that matter most, ranked anew after every `step` of them (spec 2.6)."""
        columns = self.engine.columns
        influence = PartialInfluence(
            columns.feature_column, columns.width, self.targets.logit_probabilities, self.engine.n_layers
        )
        influence.add(self.first_rows)
        visited = torch.zeros(len(self.active), dtype=torch.bool)
        kept: list[RowBlock] = []
        shelf = RowShelf()
        while (done := int(visited.sum())) < count:
            chosen = next_features(influence.of_features(), visited, min(self.step, count - done))
            visited[chosen] = True
            blocks = [shelf.keep(block) for block in self.rows(chosen)]
            kept += blocks
            if done + len(chosen) < count:
                influence.add(blocks)
                self.offer(partial(packed, columns, [*self.first_rows, *kept], len(self.targets)))
        return kept

    def rows(self, chosen: Tensor) -> Iterator[RowBlock]:
        """Rows of some features, reported to the progress display as they come."""
        for block in feature_rows(self.engine, self.transcoders, self.active, chosen, self.size):
            self.progress.advance(len(block.nodes))
            yield block
