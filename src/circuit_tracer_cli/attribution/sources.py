"""The vectors that rows are contracted with: decoder rows of the active features, error vectors, token vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.columns import Columns
from circuit_tracer_cli.backends.base import FrozenPass
from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.components import (
    ActiveFeatures,
    DecoderBlock,
    Reconstruction,
    decoder_vectors,
)


@dataclass(frozen=True, slots=True)
class LayerDecoders:
    """The decoder rows that write to one layer, already multiplied by their activations.

    `rows (n, d_model)` are ordered by (position, source layer, feature); those at position `p` are `rows[ends[p]:ends[p+1]]` and
    belong to the columns of source layers `first_source … last_source`.
    """

    rows: Tensor
    ends: tuple[int, ...]
    first_source: int
    last_source: int


@dataclass(frozen=True, slots=True)
class Sources:
    """All source vectors at the write points, in the engine's dtype."""

    columns: Columns
    decoders: tuple[LayerDecoders, ...]  # per write layer
    errors: Tensor  # (layer, pos, d_model)
    tokens: Tensor  # (pos, d_model)


def source_layers(transcoders: Transcoders, layer: int) -> tuple[int, int]:
    """The first and the last layer whose features write to `layer`."""
    writing = [
        source for source in range(transcoders.n_layers) if layer in transcoders.written_layers(source)
    ]
    return writing[0], writing[-1]


def _empty_decoders(
    active: ActiveFeatures,
    transcoders: Transcoders,
    columns: Columns,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[list[LayerDecoders], list[Tensor]]:
    """Room for the decoder rows of every write layer, and for each the row of every active feature (-1: doesn't write there)."""
    layer_of = active.indices[:, 0].cpu()
    position = active.indices[:, 1].cpu()[columns.feature_order]
    decoders, row_of = [], []
    for layer in range(transcoders.n_layers):
        first, last = source_layers(transcoders, layer)
        writes = (layer_of >= first) & (layer_of <= last)
        in_order = writes[columns.feature_order]
        rows = torch.full((columns.n_features,), -1, dtype=torch.int64)
        rows[columns.feature_order[in_order]] = torch.arange(int(in_order.sum()))
        counts = torch.bincount(position[in_order], minlength=columns.n_pos)
        ends = (0, *counts.cumsum(0).tolist())
        vectors = torch.empty(ends[-1], transcoders.d_model, dtype=dtype, device=device)
        decoders.append(LayerDecoders(vectors, ends, first, last))
        row_of.append(rows)
    return decoders, row_of


def _place(
    block: DecoderBlock, active: ActiveFeatures, decoders: Sequence[LayerDecoders], row_of: Sequence[Tensor]
) -> None:
    """Put the rows of a block, times their activations, where their write layers want them."""
    values = active.values[block.entries]
    entries = block.entries.cpu()
    for slot in range(block.rows.shape[1]):
        target = decoders[block.layer + slot].rows
        scaled = block.rows[block.row_of_entry, slot].to(target) * values.to(target)[:, None]
        target[row_of[block.layer + slot][entries].to(target.device)] = scaled


def build_sources(
    frozen: FrozenPass,
    transcoders: Transcoders,
    active: ActiveFeatures,
    zero_positions: Sequence[int],
    dtype: torch.dtype,
) -> Sources:
    """Gather every source vector. Errors are `y − ŷ`, zero at `zero_positions` (Ameisen et al. 2025, "error nodes")."""
    n_layers, n_pos = len(frozen.layers), len(frozen.tokens)
    device = frozen.embed.device
    columns = Columns.build(active.indices, n_layers, n_pos)
    decoders, row_of = _empty_decoders(active, transcoders, columns, dtype, device)
    reconstruction = Reconstruction(transcoders, active, [layer.feature_input for layer in frozen.layers])
    for block in decoder_vectors(transcoders, active):
        reconstruction.add(block)
        _place(block, active, decoders, row_of)
    errors = torch.stack(
        [
            layer.feature_output.to(dtype) - output.to(dtype)
            for layer, output in zip(frozen.layers, reconstruction.outputs, strict=True)
        ]
    )
    errors[:, list(zero_positions)] = 0
    return Sources(columns, tuple(decoders), errors, frozen.embed.to(dtype))
