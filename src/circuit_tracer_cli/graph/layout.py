"""How the nodes of a graph are numbered and named. Imports no torch."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

NodeKind = Literal["feature", "error", "token", "logit"]
LEFT_OUT = "edges_left_out"
"""Key of a graph's metadata: number of edges left out because their weight in the file is NaN or infinite."""


def edges_left_out(metadata: Mapping[str, Any]) -> int:
    """Return how many edges were left out of a graph, according to its metadata."""
    count = metadata.get(LEFT_OUT, 0)
    return count if isinstance(count, int) else 0


def warn_of_edges_left_out(metadata: Mapping[str, Any], source: str) -> None:
    """Warn if edges of a graph's file were left out; `source` names the file."""
    if count := edges_left_out(metadata):
        edges = "an edge" if count == 1 else f"{count:,} edges"
        warnings.warn(f"{source}: left out {edges} whose weight is NaN or infinite", stacklevel=2)


@dataclass(frozen=True, slots=True)
class NodeLayout:
    """Node order of a graph: selected features, error nodes (layer-major), tokens, logits."""

    n_features: int
    n_layers: int
    n_pos: int
    n_logits: int

    @property
    def error_offset(self) -> int:
        """Index of the first error node."""
        return self.n_features

    @property
    def token_offset(self) -> int:
        """Index of the first token node."""
        return self.n_features + self.n_layers * self.n_pos

    @property
    def logit_offset(self) -> int:
        """Index of the first logit node."""
        return self.token_offset + self.n_pos

    @property
    def n_nodes(self) -> int:
        """`T`, the number of all nodes."""
        return self.logit_offset + self.n_logits

    def kind(self, node: int) -> NodeKind:
        """Return the kind of a node. Raises IndexError outside the graph."""
        if not 0 <= node < self.n_nodes:
            raise IndexError(f"node {node} is outside the graph's {self.n_nodes} nodes")
        if node < self.error_offset:
            return "feature"
        if node < self.token_offset:
            return "error"
        return "token" if node < self.logit_offset else "logit"

    def error_place(self, node: int) -> tuple[int, int]:
        """Layer and position of an error node."""
        return divmod(node - self.error_offset, self.n_pos)

    def token_position(self, node: int) -> int:
        """Position of a token node."""
        return node - self.token_offset


def feature_id(layer: int, feature: int, position: int) -> str:
    """Id of a feature node."""
    return f"{layer}_{feature}_{position}"


def error_id(layer: int, position: int) -> str:
    """Id of an error node; no feature has the number -1, so it can't be a feature's id."""
    return f"{layer}_-1_{position}"


def token_id(vocab_idx: int, position: int) -> str:
    """Id of a token node."""
    return f"E_{vocab_idx}_{position}"


def logit_ids(vocab_indices: Sequence[int], n_layers: int, positions: Sequence[int]) -> list[str]:
    """Ids of the logit nodes in target order; tokens that repeat at a position get the suffix `_2`, `_3`, …."""
    seen: Counter[str] = Counter()
    names = []
    for index, position in zip(vocab_indices, positions, strict=True):
        name = f"{n_layers + 1}_{index}_{position}"
        seen[name] += 1
        names.append(f"{name}_{seen[name]}" if seen[name] > 1 else name)
    return names
