"""One forward pass with edits: what hooks read, pin and add. Independent of tokens and caches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from circuit_tracer_cli.backends.base import Edit, FreezeNames, FrozenPass, Hooks, NormWeights
from circuit_tracer_cli.backends.points import FeaturePoints
from circuit_tracer_cli.interventions.cells import Cells, Edits
from circuit_tracer_cli.interventions.heads import HeadEdits, HeadRows, changed_pattern
from circuit_tracer_cli.transcoders.base import Transcoders


@dataclass(frozen=True, slots=True)
class Site:
    """The hooks of a model that a transcoder set reads and writes."""

    names: FreezeNames
    points: FeaturePoints
    transcoders: Transcoders

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return len(self.names.read)

    def norm(self, prefix: str) -> NormWeights:
        """The norm whose hooks begin with `prefix`."""
        return dict(self.names.norms)[prefix]


@dataclass(frozen=True, slots=True)
class Push:
    """A vector added to the residual stream: at a layer's write point, or at the embedding if the layer is None."""

    layer: int | None
    position: int
    vector: Tensor  # (d_model)


@dataclass(frozen=True, slots=True)
class Recording:
    """What to record of the features during a pass: activations or pre-activations (None records nothing).

    Args:
        apply_activation_function: True for activations, False for pre-activations.
        sparse: Keep them sparse.
        cells: Record only these, by layer; layers without any aren't encoded.
    """

    apply_activation_function: bool = True
    sparse: bool = False
    cells: Edits | None = None

    def of_layer(self, layer: int) -> bool:
        """True if anything of a layer is recorded."""
        return self.cells is None or layer in self.cells

    def kept(self, layer: int, activations: Tensor) -> Tensor:
        """The recorded part of a layer's activations: `(pos, feature)`, or `(n)` at the cells."""
        if self.cells is None:
            return activations.to_sparse() if self.sparse else activations
        cells = self.cells[layer]
        return activations[cells.positions.to(activations.device), cells.features.to(activations.device)]


@dataclass(frozen=True, slots=True)
class Pins:
    """What a pass pins to the unmodified run.

    Args:
        frozen: The unmodified run.
        patterns: Pin the attention patterns.
        layers: The layers with pinned feature outputs; empty if edits propagate freely.
        scales: Pin the scale of every norm.
    """

    frozen: FrozenPass
    patterns: bool = False
    layers: frozenset[int] = frozenset()
    scales: bool = False


@dataclass(slots=True)
class PassState:
    """The state of one pass: recorded values and pending writes."""

    norm_inputs: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[int, Tensor] = field(default_factory=dict)  # layer → (pos, d_model) at the read point
    pending: dict[int, Tensor] = field(default_factory=dict)  # layer → (pos, d_model) still to be written
    recorded: dict[int, Tensor] = field(default_factory=dict)  # layer → (pos, feature), or (n) cells


Reference = Callable[[int, Cells], Tensor]
"""Activations `(n)` in the unmodified run at the cells of a layer."""


class EditedPass:
    """The hooks of one pass and what they collect.

    Args:
        site: The hooks to use.
        edits: Cells by layer.
        pins: What is pinned to the unmodified run; None for a free pass.
        original: The unmodified activations; None to use the pass's own (for a generated token).
        zeroed: Positions at which activations count as zero.
        recording: What to record; None for nothing.
        pushes: Vectors to add in addition to the edits.
        heads: Pattern rows to change, by layer; applied to the pinned patterns if those are pinned.
    """

    def __init__(
        self,
        site: Site,
        edits: Edits,
        pins: Pins | None,
        original: Reference | None,
        zeroed: Sequence[int] = (),
        recording: Recording | None = None,
        pushes: Sequence[Push] = (),
        heads: HeadEdits | None = None,
    ) -> None:
        self.site, self.edits, self.pins, self.original = site, edits, pins, original
        self.zeroed, self.recording, self.pushes = list(zeroed), recording, pushes
        self.heads = heads or {}
        self.constrained = pins is not None and len(pins.layers) > 0
        self.first = 0
        self.state = PassState()

    @property
    def first_changed(self) -> int:
        """The first layer that differs from the unmodified run; the number of layers if none does."""
        pushed = [0 if push.layer is None else push.layer for push in self.pushes]
        return min([*self.edits, *pushed, *self.heads], default=self.site.n_layers)

    def begin_at(self, first: int, frozen: FrozenPass) -> None:
        """Skip the layers before `first`, where everything is as in the unmodified run, including recorded activations."""
        self.first = first
        for layer in range(first):
            if self.recording is not None and self.recording.of_layer(layer):
                x = frozen.layers[layer].feature_input
                acts = self._encoded(layer, x, self.recording.apply_activation_function)
                self.state.recorded[layer] = self.recording.kept(layer, acts)

    def hooks(self) -> Hooks:
        """The hooks of the pass; at the same point, a pin comes before reads and writes."""
        hooks: dict[str, list[Edit]] = {}
        names = self.site.names
        self._hook_start(hooks)
        if self.pins is not None and self.pins.patterns:
            for layer in range(self.first, self.site.n_layers):
                hooks[names.patterns[layer]] = [_replaced_by(self.pins.frozen.layers[layer].pattern)]
        for layer, rows in self.heads.items():
            hooks.setdefault(names.patterns[layer], []).append(_rows_changed(rows))
        if self.pins is not None and self.pins.scales:
            for prefix, norm in names.norms:
                hooks[f"{prefix}.hook_in"] = [self._keep_norm_input(prefix)]
                hooks[f"{prefix}.hook_out"] = [self._pinned_norm(prefix, norm)]
        for layer in range(self.first, self.site.n_layers):
            if self._reads(layer):
                hooks.setdefault(names.read[layer], []).append(self._read(layer))
            if self._writes(layer):
                hooks.setdefault(names.write[layer], []).append(self._write(layer))
        return Hooks(hooks)

    def _pinned(self, layer: int) -> bool:
        return self.pins is not None and layer in self.pins.layers

    def _has_skip(self, layer: int) -> bool:
        return self.site.transcoders.skip_matrix(layer) is not None

    def _reads(self, layer: int) -> bool:
        """True if anything needs the value at a layer's read point."""
        if self._records(layer) or (self._pinned(layer) and self._has_skip(layer)):
            return True
        return layer in self.edits and not self.constrained

    def _records(self, layer: int) -> bool:
        return self.recording is not None and self.recording.of_layer(layer)

    def _writes(self, layer: int) -> bool:
        """True if anything happens at a layer's write point."""
        sources = [source for source in self.edits if layer in self.site.transcoders.written_layers(source)]
        return bool(sources) or self._pinned(layer) or any(push.layer == layer for push in self.pushes)

    def _hook_start(self, hooks: dict[str, list[Edit]]) -> None:
        at_start = [push for push in self.pushes if push.layer is None]
        if at_start:
            hooks[self.site.names.start] = [lambda value: _pushed(value.clone(), at_start)]

    def _keep_norm_input(self, prefix: str) -> Edit:
        return lambda value: self.state.norm_inputs.__setitem__(prefix, value[0])

    def _pinned_norm(self, prefix: str, norm: NormWeights) -> Edit:
        """The norm's output recomputed at the unmodified run's scale."""

        def edit(value: Tensor) -> Tensor:
            x = _at_least_float32(self.state.norm_inputs.pop(prefix)).to(norm.gain.device)
            return norm.apply(x, self._pinned_scale(prefix))[None].to(value.dtype)

        return edit

    def _pinned_scale(self, prefix: str) -> Tensor:
        """The scale `(pos)` of a norm in the unmodified run."""
        assert self.pins is not None
        if prefix == self.site.names.norms[-1][0]:
            return self.pins.frozen.ln_final_scale
        _, layer, part = prefix.split(".")
        scale: Tensor = getattr(self.pins.frozen.layers[int(layer)], f"{part}_scale")
        return scale

    def _read(self, layer: int) -> Edit:
        """Record the value at the read point, and the activations if requested."""

        def edit(value: Tensor) -> None:
            x = self._feature_input(layer, value[0].detach().to(self._device(layer)))
            self.state.inputs[layer] = x
            if self.recording is not None and self.recording.of_layer(layer):
                acts = self._encoded(layer, x, self.recording.apply_activation_function)
                self.state.recorded[layer] = self.recording.kept(layer, acts)

        return edit

    def _device(self, layer: int) -> torch.device:
        """The device of a layer's transcoder, and the layer."""
        return self.site.transcoders.bias(layer).device

    def _feature_input(self, layer: int, x: Tensor) -> Tensor:
        """The input of a layer's transcoders, from a value at its read hook."""
        if self.site.points.read != "normalized":
            return x
        prefix = self.site.names.read_norms[layer]
        norm, x = self.site.norm(prefix), _at_least_float32(x)
        scale = self._pinned_scale(prefix) if self.pins is not None and self.pins.scales else norm.scale(x)
        centred = x - x.mean(-1, keepdim=True) if norm.kind == "layer" else x
        return centred / scale[:, None]

    def _encoded(self, layer: int, x: Tensor, apply_activation_function: bool = True) -> Tensor:
        transcoders = self.site.transcoders
        if apply_activation_function or self.pins is None:
            acts = transcoders.encode_layer(x, layer, apply_activation_function)
        else:
            acts = transcoders.readings(x, layer, self.pins.frozen.layers[layer].feature_input)
        acts[self.zeroed] = 0
        return acts

    def _write(self, layer: int) -> Edit:
        """The feature output with all pending writes at this layer."""

        def edit(value: Tensor) -> Tensor:
            self._spread(layer)
            out = self._pinned_output(layer) if self._pinned(layer) else value[0]
            due = self.state.pending.pop(layer, None)
            if due is not None and (self._pinned(layer) or not self.constrained):
                out = out + due.to(out.device, out.dtype)
            here = [push for push in self.pushes if push.layer == layer]
            self.state.inputs.pop(layer, None)
            return _pushed(out[None].to(value).clone(), here)

        return edit

    def _pinned_output(self, layer: int) -> Tensor:
        """The unmodified feature output, with the skip connection's change since then."""
        assert self.pins is not None
        at = self.pins.frozen.layers[layer]
        skip = self.site.transcoders.skip_matrix(layer)
        if skip is None:
            return at.feature_output
        change = (self.state.inputs[layer] - at.feature_input).to(skip)
        return at.feature_output + (change @ skip).to(at.feature_output)

    def _spread(self, layer: int) -> None:
        """Add the effects of a layer's edits to every layer that its features write to."""
        if layer not in self.edits:
            return
        cells = self.edits[layer]
        features, column = torch.unique(cells.features, return_inverse=True)
        current, original = self._activations(layer, cells)
        change = cells.targets(original.to(torch.promote_types(original.dtype, torch.float32)))
        change = change - current.to(change)
        changes = change.new_zeros(self._n_pos(layer), len(features))
        changes[cells.positions.to(change.device), column.to(change.device)] = change
        self.decode_change(layer, changes, features)

    def decode_change(self, layer: int, changes: Tensor, features: Tensor) -> None:
        """Add the effects of `changes (pos, n)` in the activations of `features (n)` to all layers that they write to."""
        transcoders = self.site.transcoders
        rows = transcoders.decoder_rows(layer, features).to(changes)
        written = (changes @ rows.flatten(1)).view(len(changes), rows.shape[1], rows.shape[2])
        for target, part in zip(transcoders.written_layers(layer), written.unbind(1), strict=True):
            before = self.state.pending.get(target)
            self.state.pending[target] = part if before is None else before + part.to(before.device)

    def _n_pos(self, layer: int) -> int:
        if self.pins is not None:
            return len(self.pins.frozen.tokens)
        return len(self.state.inputs[layer])

    def _activations(self, layer: int, cells: Cells) -> tuple[Tensor, Tensor]:
        """The activations `(n)` that an edit replaces, and those of the unmodified run."""
        if self.constrained:
            assert self.original is not None
            original = self.original(layer, cells)
            return original, original
        acts = self._encoded(layer, self.state.inputs[layer])
        current = acts[cells.positions.to(acts.device), cells.features.to(acts.device)]
        if self.original is None or not bool(cells.relative.any()):
            return current, current
        return current, self.original(layer, cells)


def _replaced_by(value: Tensor) -> Edit:
    def edit(current: Tensor) -> Tensor:
        return value[None].to(current)

    return edit


def _rows_changed(rows: Sequence[HeadRows]) -> Edit:
    return lambda pattern: changed_pattern(pattern, rows)


def _pushed(value: Tensor, pushes: Sequence[Push]) -> Tensor:
    """`value (1, pos, d_model)`, changed in place."""
    for push in pushes:
        value[0, push.position] += push.vector.to(value)
    return value


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
