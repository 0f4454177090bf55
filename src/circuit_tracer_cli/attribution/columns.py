"""The order of sources inside the engine: position, then layer, then feature. Independent of vectors and models.

The graph's own order is layer-major. Inside the engine a row of a target at position `p` only has sources at
positions `<= p`, so with position-major columns it is a prefix, and the features and errors at one position that write to a
layer are one contiguous range.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Columns:
    """The column of every source node.

    Each position has the features and then the error of every layer, and the token last.
    """

    n_features: int
    n_layers: int
    n_pos: int
    feature_order: Tensor  # (n_features) rank in column order → index into active features
    feature_column: Tensor  # (n_features) index into active features → column
    starts: tuple[int, ...]  # (n_pos + 1) column where a position begins
    layer_ends: tuple[
        tuple[int, ...], ...
    ]  # (n_pos, n_layers + 1) features and errors at the position in layers before l

    @classmethod
    def build(cls, features: Tensor, n_layers: int, n_pos: int) -> Columns:
        """Make the order from `features (n, 3)`, rows (layer, position, feature) in lexicographic order."""
        features = features.cpu()
        layer, pos = features[:, 0], features[:, 1]
        order = torch.argsort(pos, stable=True)
        counts = torch.bincount(pos * n_layers + layer, minlength=n_pos * n_layers).view(n_pos, n_layers)
        ends = torch.cat([torch.zeros(n_pos, 1, dtype=torch.int64), (counts + 1).cumsum(1)], dim=1)
        widths = ends[:, -1] + 1
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), widths.cumsum(0)])
        column = torch.empty(len(features), dtype=torch.int64)
        column[order] = torch.arange(len(features)) + pos[order] * (n_layers + 1) + layer[order]
        return cls(
            n_features=len(features),
            n_layers=n_layers,
            n_pos=n_pos,
            feature_order=order,
            feature_column=column,
            starts=tuple(starts.tolist()),
            layer_ends=tuple(map(tuple, ends.tolist())),
        )

    @property
    def width(self) -> int:
        """Return the number of source nodes."""
        return self.starts[-1]

    def error_column(self, pos: int, layer: int) -> int:
        """Return the column of the error node of a layer and position."""
        return self.starts[pos] + self.layer_ends[pos][layer + 1] - 1

    def token_column(self, pos: int) -> int:
        """Return the column of the token node of a position."""
        return self.starts[pos + 1] - 1

    def source_range(self, pos: int, first_layer: int, last_layer: int) -> tuple[int, int]:
        """Return the columns `[start, end)` of the features and errors at `pos` in layers `first_layer … last_layer`."""
        start, ends = self.starts[pos], self.layer_ends[pos]
        return start + ends[first_layer], start + ends[last_layer + 1]

    def places(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Return layer and position of the sources in `columns (n)`, each `(n)` int64; a token's layer is -1."""
        positions = torch.searchsorted(torch.tensor(self.starts), columns, right=True) - 1
        within = columns - torch.tensor(self.starts)[positions]
        ends = torch.tensor(self.layer_ends)[positions, 1:]
        layers = torch.searchsorted(ends, within[:, None], right=True).squeeze(1)
        return torch.where(layers == self.n_layers, -1, layers), positions

    def nodes(self) -> Tensor:
        """Return each column's node in the full graph (features, errors layer-major, tokens), shape `(width)`."""
        nodes = torch.empty(self.width, dtype=torch.int64)
        nodes[self.feature_column] = torch.arange(self.n_features)
        starts = torch.tensor(self.starts)
        errors = starts[:-1, None] + torch.tensor(self.layer_ends)[:, 1:] - 1
        positions = torch.arange(self.n_pos)
        nodes[errors] = self.n_features + torch.arange(self.n_layers) * self.n_pos + positions[:, None]
        nodes[starts[1:] - 1] = self.n_features + self.n_layers * self.n_pos + positions
        return nodes
