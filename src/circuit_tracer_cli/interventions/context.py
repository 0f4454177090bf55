"""The basis of attribution and freezing as plain tensors, for further computations.

The engine doesn't need these dense copies; they exist for scripts, notebooks and comparisons.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.backends.base import Edit, Hooks
from circuit_tracer_cli.interventions.passes import EditedPass
from circuit_tracer_cli.interventions.run import Constraints, Interventions
from circuit_tracer_cli.tokens import Tokens
from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.components import (
    ActiveFeatures,
    Reconstruction,
    active_features,
    decoder_vectors,
)


@dataclass(frozen=True, slots=True)
class AttributionContext:
    """The parts of the local replacement model on one prompt (Ameisen et al. 2025, "local replacement model").

    A decoder entry is one vector written by an active feature: one per feature in a per-layer set; in a cross-layer set one per
    layer from the feature's own to the last, in that order.
    """

    tokens: Tensor  # (pos) int64
    logits: Tensor  # (1, pos, vocab), after the model's own softcap
    activation_matrix: Tensor  # (layer, pos, feature), coalesced sparse
    error_vectors: Tensor  # (layer, pos, d_model), zero at the zeroed positions
    token_vectors: Tensor  # (pos, d_model), as they enter the residual stream
    encoder_vecs: Tensor  # (active, d_model), unscaled
    decoder_vecs: Tensor  # (entry, d_model), times the activation
    encoder_to_decoder_map: Tensor  # (entry) int64: the active feature of an entry
    decoder_locations: Tensor  # (2, entry) int64: written layer, position


@torch.no_grad()
def attribution_context(model: Interventions, tokens: Tokens) -> AttributionContext:
    """The context of a prompt, from its unmodified run."""
    transcoders = model.transcoders
    frozen = model.unmodified(tokens).frozen
    inputs = [layer.feature_input for layer in frozen.layers]
    active = active_features(transcoders, inputs, tokens.zero_positions)
    reconstruction = Reconstruction(transcoders, active, inputs)
    entries = _Entries(transcoders, active)
    for block in decoder_vectors(transcoders, active):
        reconstruction.add(block)
        entries.place(block.layer, block.entries, block.vectors())
    home = transcoders.device
    outputs = torch.stack([layer.feature_output.to(home) for layer in frozen.layers])
    errors = outputs - torch.stack([output.to(outputs) for output in reconstruction.outputs])
    if not transcoders.of_model:
        errors[:, list(tokens.zero_positions)] = 0
    size = (transcoders.n_layers, len(tokens), transcoders.d_transcoder)
    logits, _ = model.backend.run(tokens.ids, Hooks())
    return AttributionContext(
        tokens=tokens.ids,
        logits=logits[None],
        activation_matrix=torch.sparse_coo_tensor(
            active.indices.T, active.values, size, is_coalesced=True, check_invariants=False
        ),
        error_vectors=errors,
        token_vectors=frozen.embed,
        encoder_vecs=_encoder_vectors(transcoders, active),
        decoder_vecs=entries.vectors,
        encoder_to_decoder_map=entries.feature,
        decoder_locations=entries.locations,
    )


class _Entries:
    """Allocate all decoder entries, by active feature and then by written layer."""

    def __init__(self, transcoders: Transcoders, active: ActiveFeatures) -> None:
        self.active, device = active, active.values.device
        layers = active.indices[:, 0]
        written = torch.tensor(
            [len(transcoders.written_layers(layer)) for layer in range(transcoders.n_layers)], device=device
        )
        counts = written[layers]
        self.starts = counts.cumsum(0) - counts
        self.feature = torch.repeat_interleave(torch.arange(len(active), device=device), counts)
        slot = torch.arange(len(self.feature), device=device) - self.starts[self.feature]
        self.locations = torch.stack([layers[self.feature] + slot, active.indices[self.feature, 1]])
        self.vectors = torch.empty(
            len(self.feature), transcoders.d_model, dtype=transcoders.dtype, device=device
        )

    def place(self, layer: int, entries: Tensor, vectors: Tensor) -> None:
        """Store the scaled vectors `(n, written, d_model)` of active features `entries (n)`."""
        vectors = vectors.to(entries.device)
        scaled = vectors * self.active.values[entries][:, None, None].to(vectors)
        slots = torch.arange(vectors.shape[1], device=entries.device)
        self.vectors[self.starts[entries][:, None] + slots] = scaled.to(self.vectors)


def _encoder_vectors(transcoders: Transcoders, active: ActiveFeatures) -> Tensor:
    """Encoder rows `(active, d_model)`."""
    rows = []
    for layer in range(transcoders.n_layers):
        _, positions, features = active.indices[active.of_layer(layer)].unbind(1)
        x = active.inputs[layer]
        rows.append(transcoders.encoder_rows(layer, features, x[positions.to(x.device)]))
    return torch.cat([part.to(transcoders.device, transcoders.dtype) for part in rows])


@torch.no_grad()
def freezing(
    model: Interventions, tokens: Tokens, constrained_layers: Iterable[int] | None = None
) -> tuple[Tensor, list[tuple[str, Edit]]]:
    """The activations `(layer, pos, feature)` of the unmodified run, and hooks that pin another run to it.

    Each hook is a name and a function of the value there, in the order in which they must run. Attention patterns are
    always pinned; feature outputs in `constrained_layers`; every norm scale if those are all layers.
    """
    _, activations = model.activations(tokens)
    pins = model.pins(tokens, Constraints(constrained_layers=constrained_layers))
    hooks = EditedPass(model.site, {}, pins, None, tokens.zero_positions).hooks()
    return activations, [(name, edit) for name, edits in hooks.by_name.items() for edit in edits]
