"""Runs a model with edits of features and heads.

The unmodified run of a prompt is computed once and reused for every edit of that prompt.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.backends.base import Backend, FrozenPass, PartialRun
from circuit_tracer_cli.errors import BadIntervention, UnsuitableIntervention
from circuit_tracer_cli.interventions.cells import Cells, Edits, resolve
from circuit_tracer_cli.interventions.heads import HeadEdits, resolve_heads
from circuit_tracer_cli.interventions.passes import EditedPass, Pins, Push, Recording, Site
from circuit_tracer_cli.interventions.spec import AnyEdit, as_interventions
from circuit_tracer_cli.tokens import Tokens
from circuit_tracer_cli.transcoders.base import Transcoders

PROMPTS_KEPT = 2
"""Number of unmodified runs kept at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What is pinned to the unmodified run during edits (Ameisen et al. 2025, "constrained patching").

    Args:
        constrained_layers: Layers whose feature outputs are pinned, the only ones that edits write to; None lets edits
            propagate. If it covers every layer, norm scales are pinned too, and only direct effects remain.
        freeze_attention: Pin attention patterns; always so with `constrained_layers`.
    """

    constrained_layers: Iterable[int] | None = None
    freeze_attention: bool = True


@dataclass(frozen=True, slots=True)
class PassResult:
    """The result of a pass."""

    logits: Tensor  # (pos, vocab), or (1, vocab) if only the last position's were requested
    activations: Tensor | None  # (layer, pos, feature)
    cache: Any  # the backend's key-value cache, or None
    cells: dict[int, Tensor] = field(default_factory=dict)  # layer → (n), if single cells were recorded


class Unmodified:
    """The unmodified run of one prompt, with the activations of layers computed on demand."""

    def __init__(self, frozen: FrozenPass, transcoders: Transcoders, zeroed: Sequence[int]) -> None:
        self.frozen, self.transcoders, self.zeroed = frozen, transcoders, list(zeroed)
        self._active: dict[int, tuple[Tensor, Tensor]] = {}
        self.continuations: dict[Hashable, str] = {}  # by sampling settings

    def at(self, layer: int, cells: Cells) -> Tensor:
        """Activations `(n)` at the cells of a layer."""
        keys, values = self._of_layer(layer)
        wanted = (cells.positions * self.transcoders.d_transcoder + cells.features).to(keys.device)
        if not len(keys):
            return values.new_zeros(len(wanted))
        place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return torch.where(keys[place] == wanted, values[place], 0)

    def _of_layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """The active cells of a layer as ascending keys `position * d_transcoder + feature`, and their values."""
        if layer not in self._active:
            acts = self.transcoders.encode_layer(self.frozen.layers[layer].feature_input, layer)
            acts[self.zeroed] = 0
            keys = acts.flatten().nonzero().squeeze(1)
            self._active[layer] = keys, acts.flatten()[keys]
        return self._active[layer]


class Interventions:
    """A model and its transcoders, ready for edits.

    Args:
        backend: The model.
        transcoders: The set.
    """

    def __init__(self, backend: Backend, transcoders: Transcoders) -> None:
        self.backend, self.transcoders = backend, transcoders
        hooks = transcoders.feature_input_hook, transcoders.feature_output_hook
        self.site = Site(backend.freeze_names(*hooks), backend.feature_points(*hooks), transcoders)
        self._kept: OrderedDict[tuple[int, ...], Unmodified] = OrderedDict()

    def unmodified(self, tokens: Tokens) -> Unmodified:
        """The unmodified run of a prompt, computed unless it's one of the last two prompts."""
        key = _key(tokens)
        if key not in self._kept:
            hooks = self.transcoders.feature_input_hook, self.transcoders.feature_output_hook
            frozen = self.backend.frozen_pass(tokens.ids, *hooks, True)
            self._kept[key] = Unmodified(frozen, self.transcoders, tokens.zero_positions)
        self._kept.move_to_end(key)
        while len(self._kept) > PROMPTS_KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _begin_late(self, edited: EditedPass, tokens: Tokens, last_logits: bool) -> PartialRun | None:
        """The part of a pass that edits can change, if the unmodified run has the earlier part."""
        kept, outputs = self._kept.get(_key(tokens)), self.backend.outputs_of_block
        if kept is None or outputs is None:
            return None
        first = min(edited.first_changed, self.site.n_layers - 1)
        edited.begin_at(first, kept.frozen)
        # Vectors added at the embedding come before the first block.
        residual = kept.frozen.layers[first].residual if first else None
        return PartialRun(first, residual, outputs, last_logits)

    def forget(self) -> None:
        """Drop the unmodified runs after the model or its transcoders were changed."""
        self._kept.clear()

    def activations(
        self, tokens: Tokens, *, sparse: bool = False, apply_activation_function: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Logits `(1, pos, vocab)` of the unmodified model and activations `(layer, pos, feature)`, dense or coalesced sparse."""
        result = self.run(tokens, (), Constraints(), Recording(apply_activation_function, sparse))
        assert result.activations is not None
        return result.logits[None], result.activations

    def intervene(
        self,
        tokens: Tokens,
        interventions: Iterable[Any],
        constraints: Constraints,
        recording: Recording | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Logits `(1, pos, vocab)` of the edited model and, if requested, activations `(layer, pos, feature)` during that pass.

        Raises BadIntervention naming the edit and its invalid part.
        """
        edits = as_interventions(interventions)
        result = self.run(tokens, edits, constraints, recording)
        return result.logits[None], result.activations

    @torch.no_grad()
    def run(
        self,
        tokens: Tokens,
        edits: Sequence[AnyEdit],
        constraints: Constraints,
        recording: Recording | None = None,
        pushes: Sequence[Push] = (),
        *,
        last_logits: bool = False,
        with_cache: bool = False,
    ) -> PassResult:
        """One pass over a prompt with edits, and with vectors added to the stream.

        Layers before the first edit are skipped if the unmodified run is kept.

        Args:
            tokens: The prompt.
            edits: In order.
            constraints: What is pinned to the unmodified run.
            recording: What to record of the features.
            pushes: Vectors to add.
            last_logits: Only the last position's logits are needed.
            with_cache: Return the key-value cache, so every layer is run.
        """
        cells = resolve(edits, len(tokens), self.transcoders)
        absent = sorted(set(cells) & set(self.transcoders.missing_layers))
        if absent:
            raise BadIntervention(f"layer {absent[0]} can't be edited: the set has no transcoder for it")
        pins = self.pins(tokens, constraints) if edits or pushes else None
        original = self.unmodified(tokens).at if _needs_original(cells, pins) else None
        heads = self.heads(edits, len(tokens))
        edited = EditedPass(self.site, cells, pins, original, tokens.zero_positions, recording, pushes, heads)
        part = None if with_cache else self._begin_late(edited, tokens, last_logits)
        if part is None:
            return self.finish(edited, tokens.ids)
        return _result(edited, self.backend.run_part(tokens.ids, edited.hooks(), part), None)

    @torch.no_grad()
    def finish(self, edited: EditedPass, ids: Tensor, past: Any = None) -> PassResult:
        """Run a prepared pass over `ids (pos)`, continuing from the cache."""
        return _result(edited, *self.backend.run(ids, edited.hooks(), past))

    def heads(self, edits: Sequence[AnyEdit], n_pos: int) -> HeadEdits:
        """The pattern rows that edits change, by layer. Raises BadIntervention naming what doesn't fit."""
        return resolve_heads(edits, n_pos, self.site.n_layers, self.backend.shape.n_heads)

    def pins(self, tokens: Tokens, constraints: Constraints) -> Pins | None:
        """What an edited pass pins to the unmodified run, or None if it's free."""
        layers = _checked_layers(constraints.constrained_layers, self.site.n_layers)
        if layers is None and not constraints.freeze_attention:
            return None
        everything = layers is not None and len(layers) == self.site.n_layers
        return Pins(
            self.unmodified(tokens).frozen, patterns=True, layers=layers or frozenset(), scales=everything
        )


def _key(tokens: Tokens) -> tuple[int, ...]:
    return (*tokens.zero_positions, -1, *tokens.ids.tolist())


def _result(edited: EditedPass, logits: Tensor, cache: Any) -> PassResult:
    """The result of a finished pass."""
    if edited.recording is not None and edited.recording.cells is not None:
        return PassResult(logits, None, cache, edited.state.recorded)
    return PassResult(logits, _stacked(edited), cache)


def _needs_original(cells: Edits, pins: Pins | None) -> bool:
    """True if any edit depends on the unmodified activations."""
    constrained = pins is not None and len(pins.layers) > 0
    return bool(cells) and (constrained or any(bool(of_layer.relative.any()) for of_layer in cells.values()))


def _checked_layers(layers: Iterable[int] | None, n_layers: int) -> frozenset[int] | None:
    """The constrained layers. Raises BadIntervention for an empty range and for layers that don't exist."""
    if layers is None:
        return None
    try:
        found = frozenset(operator.index(layer) for layer in layers)
    except TypeError:
        raise BadIntervention(
            "constrained_layers is not a range of layers", hint="for example range(0, 4)"
        ) from None
    if not found:
        raise BadIntervention(
            "constrained_layers is an empty range", hint="omit it, or name at least one layer"
        )
    outside = sorted(layer for layer in found if not 0 <= layer < n_layers)
    if outside:
        raise UnsuitableIntervention(
            f"constrained_layers names layer {outside[0]}, but the model has layers 0 to {n_layers - 1}",
            hint=f"for example range(0, {n_layers}), or --constrained-layers : for all",
        )
    return found


def _stacked(edited: EditedPass) -> Tensor | None:
    """The recorded activations of all layers."""
    if edited.recording is None:
        return None
    home = edited.site.transcoders.device
    stacked = torch.stack([edited.state.recorded[layer].to(home) for layer in range(edited.site.n_layers)])
    return stacked.coalesce() if edited.recording.sparse else stacked
