"""Computes rows for chosen features, block by block, through whichever engine there is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.backoff import BlockSize, rows_in_parts
from circuit_tracer_cli.attribution.blocks import plan_blocks
from circuit_tracer_cli.attribution.columns import Columns
from circuit_tracer_cli.attribution.linear import Targets
from circuit_tracer_cli.attribution.ranking import RowBlock
from circuit_tracer_cli.attribution.transfer import OnTheWay, arrived
from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.components import ActiveFeatures

CPU_WORK = 4096
GPU_WORK = 65536
"""Rows times positions in one block: enough to keep matrix products busy, little enough to stay in fast memory."""

ROWS_AT_LEAST = 32
"""Rows in one block however long the prompt: each block reads every decoder row once …"""

LARGEST_BLOCK = 2**26
"""… as long as its cotangents hold no more than so many numbers."""

ENCODER_ROWS_AT_ONCE = 16384
"""Targets whose encoder rows are held at the same time."""


class Engine(Protocol):
    """Anything that computes rows."""

    name: str
    columns: Columns
    n_layers: int

    def rows(self, targets: Targets) -> Tensor:
        """Rows of targets sorted by layer from high to low, `(row, columns up to the last position)`."""


def largest_work(device: torch.device, n_pos: int = 1, d_model: int = 1) -> int:
    """Rows times positions in one block on a device, for a prompt of `n_pos` tokens."""
    usual = CPU_WORK if device.type == "cpu" else GPU_WORK
    return max(usual, min(ROWS_AT_LEAST * n_pos, LARGEST_BLOCK // d_model))


def logit_rows(engine: Engine, vectors: Tensor, n_pos: int, size: BlockSize) -> Iterator[RowBlock]:
    """Rows of the logit targets, whose directions `(K, d_model)` stand at the last position's final norm output."""
    n_features = engine.columns.n_features
    layers = torch.full((len(vectors),), engine.n_layers)
    targets = Targets(layers, torch.full_like(layers, n_pos - 1), vectors)
    chunks = torch.arange(len(vectors)).split(max(1, size.work // n_pos))
    parts = chain.from_iterable(rows_in_parts(engine, targets, chunk, size) for chunk in chunks)
    for index, rows in arrived(parts):
        yield RowBlock(index + n_features, layers[index], rows)


def feature_rows(
    engine: Engine, transcoders: Transcoders, active: ActiveFeatures, chosen: Tensor, size: BlockSize
) -> Iterator[RowBlock]:
    """Rows of the chosen active features (indices into `active`), in an order that suits the engine."""
    for (nodes, layers), rows in arrived(_begun(engine, transcoders, active, chosen, size)):
        yield RowBlock(nodes, layers, rows)


def _begun(
    engine: Engine, transcoders: Transcoders, active: ActiveFeatures, chosen: Tensor, size: BlockSize
) -> Iterator[tuple[tuple[Tensor, Tensor], OnTheWay]]:
    """The same as `((nodes, layers), rows)`, not waited for."""
    chosen = torch.sort(chosen).values
    by_position = chosen[
        torch.argsort(active.indices[chosen.to(active.indices.device), 1].cpu(), descending=True, stable=True)
    ]
    for start in range(0, len(by_position), ENCODER_ROWS_AT_ONCE):
        part = by_position[start : start + ENCODER_ROWS_AT_ONCE]
        indices = active.indices[part.to(active.indices.device)].cpu()
        layers, positions = indices[:, 0], indices[:, 1]
        vectors = encoder_rows(transcoders, layers, indices[:, 2])
        targets = Targets(layers, positions, vectors)
        for block in plan_blocks(layers, positions, size.work):
            for index, rows in rows_in_parts(engine, targets, block, size):
                yield (part[index], layers[index]), rows


def encoder_rows(transcoders: Transcoders, layers: Tensor, features: Tensor) -> Tensor:
    """Encoder rows `(n, d_model)` of features of several layers, each layer asked once."""
    out = torch.empty(len(layers), transcoders.d_model, dtype=transcoders.dtype, device=transcoders.device)
    for layer in torch.unique(layers).tolist():
        here = torch.nonzero(layers == layer).squeeze(1)
        rows = transcoders.encoder_rows(layer, features[here].to(transcoders.device))
        out[here.to(out.device)] = rows.to(out)
    return out
