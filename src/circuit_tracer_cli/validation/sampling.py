"""Which nodes a validation looks at: the same ones for the same seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sample(nodes: Sequence[int], count: int, seed: int) -> list[int]:
    """At most `count` of the nodes, drawn without replacement, ascending."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(nodes), generator=generator)[:count]
    return sorted(nodes[index] for index in drawn.tolist())


def strong_and_random(nodes: Sequence[int], strength: Tensor, count: int, seed: int) -> list[int]:
    """At most `count` of the nodes: half of them those of largest `strength (T)`, the others drawn from the rest; ascending."""
    ranked = sorted(nodes, key=lambda node: (-float(strength[node]), node))
    strong = ranked[: (count + 1) // 2]
    return sorted(strong + sample(sorted(ranked[len(strong) :]), count - len(strong), seed))
