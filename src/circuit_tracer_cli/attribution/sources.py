"""The vectors that rows are contracted with: decoder rows of the active features, error vectors, token vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.columns import Columns
from circuit_tracer_cli.attribution.decoders import LayerDecoders
from circuit_tracer_cli.backends.base import FrozenPass
from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.components import (
    ActiveFeatures,
    DecoderBlock,
    Reconstruction,
    decoder_vectors,
)

ELEMENTS_AT_ONCE = 2**22
"""Numbers gathered at once while rows are placed: few enough to stay in fast memory and in pages that are used again."""


@dataclass(frozen=True, slots=True)
class Sources:
    """All source vectors at the write points, in the engine's dtype; those of a layer stand on that layer's device."""

    columns: Columns
    decoders: tuple[LayerDecoders, ...]  # per write layer, error vectors among them
    errors: tuple[Tensor, ...]  # per layer (pos, d_model), the same once more
    tokens: Tensor  # (pos, d_model)


def source_layers(transcoders: Transcoders, layer: int) -> tuple[int, int]:
    """The first and the last layer whose features or error write to `layer`."""
    writing = [
        source
        for source in range(transcoders.n_layers)
        if source == layer or layer in transcoders.written_layers(source)
    ]
    return writing[0], writing[-1]


def _place(
    block: DecoderBlock, active: ActiveFeatures, decoders: Sequence[LayerDecoders], shifts: Sequence[Tensor]
) -> None:
    """Put the rows of a block, times their activations, where their write layers want them."""
    entries = block.entries.cpu()
    positions = active.indices[block.entries, 1].cpu()
    for slot in range(block.rows.shape[1]):
        layer = decoders[block.layer + slot]
        target = layer.rows
        place = (layer.columns.feature_column[entries] - shifts[block.layer + slot][positions]).to(
            target.device
        )
        values = active.values[block.entries].to(target)
        step = max(1, ELEMENTS_AT_ONCE // target.shape[1])
        for start in range(0, len(place), step):
            part = slice(start, start + step)
            rows = block.rows[block.row_of_entry[part], slot].to(target).mul_(values[part, None])
            target.index_copy_(0, place[part], rows)


def build_sources(
    frozen: FrozenPass,
    transcoders: Transcoders,
    active: ActiveFeatures,
    zero_positions: Sequence[int],
    dtype: torch.dtype,
) -> Sources:
    """Gather every source vector. Errors are `y − ŷ`, zero at `zero_positions` (Ameisen et al. 2025, "error nodes")."""
    n_layers, n_pos = len(frozen.layers), len(frozen.tokens)
    devices = [layer.pattern.device for layer in frozen.layers]
    columns = Columns.build(active.indices, n_layers, n_pos)
    decoders = tuple(
        LayerDecoders.empty(
            columns,
            source_layers(transcoders, layer),
            torch.empty(0, transcoders.d_model, dtype=dtype, device=devices[layer]),
        )
        for layer in range(n_layers)
    )
    shifts = [layer.shift() for layer in decoders]
    reconstruction = Reconstruction(transcoders, active, [layer.feature_input for layer in frozen.layers])
    for block in decoder_vectors(transcoders, active):
        reconstruction.add(block)
        _place(block, active, decoders, shifts)
    errors = tuple(
        layer.feature_output.to(device, dtype) - output.to(device, dtype)
        for layer, output, device in zip(frozen.layers, reconstruction.outputs, devices, strict=True)
    )
    for layer, (written, vectors) in enumerate(zip(decoders, errors, strict=True)):
        vectors[list(zero_positions)] = 0
        written.rows[written.error_rows(layer).to(vectors.device)] = vectors
    return Sources(columns, decoders, errors, frozen.embed.to(devices[0], dtype))
