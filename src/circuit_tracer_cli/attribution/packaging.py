"""From rows in the engine's column order to the edges of the graph. Knows no model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.columns import Columns
from circuit_tracer_cli.attribution.ranking import RowBlock
from circuit_tracer_cli.graph.edges import Edges
from circuit_tracer_cli.graph.edges_builder import EdgesBuilder


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
        self.builder = EdgesBuilder(self.n_nodes)

    def add(self, block: RowBlock) -> None:
        """Take the rows of one block; columns of features that aren't nodes are dropped."""
        width = block.rows.shape[1]
        nodes = self.node_of_column[:width]
        kept = nodes >= 0
        values = torch.zeros(len(block.rows), self.n_nodes)
        values[:, nodes[kept]] = block.rows if bool(kept.all()) else block.rows[:, kept]
        is_logit = block.nodes >= self.columns.n_features
        rows = torch.where(
            is_logit,
            block.nodes - self.columns.n_features + self.first_logit,
            self.node_of[block.nodes.clamp_max(max(self.columns.n_features - 1, 0))],
        )
        self.builder.add_rows(rows, values)

    def edges(self) -> Edges:
        """All edges, in order. The rows are gone afterwards."""
        return self.builder.build()

    def edges_so_far(self) -> Edges:
        """The edges of the rows that have come; more may follow."""
        return self.builder.copy().build()


def packed(columns: Columns, blocks: Iterable[RowBlock], n_logits: int) -> tuple[Tensor, Edges]:
    """The features among some rows, ascending, and the edges of a graph of these rows alone."""
    known = list(blocks)
    nodes = torch.cat([block.nodes for block in known])
    selected = torch.sort(nodes[nodes < columns.n_features]).values
    packager = Packager(columns, selected, n_logits)
    for block in known:
        packager.add(block)
    return selected, packager.edges()
