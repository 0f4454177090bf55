"""Faithfulness of the local replacement model: does it respond to a perturbation as the model does?

The local replacement model (Ameisen et al. 2025) has transcoders in place of MLPs; errors, attention patterns and norm scales
are fixed. On the unperturbed prompt it equals the model; here a vector is added to the stream, and both are compared in all later
layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.backends.base import Edit, Hooks
from circuit_tracer_cli.interventions.passes import EditedPass, Pins, Push
from circuit_tracer_cli.validation.pace import Phase
from circuit_tracer_cli.validation.statistics import cosine, nmse
from circuit_tracer_cli.validation.subject import Subject

STRENGTH = 0.5
"""Length of a perturbation, relative to the feature output that it's added to."""


@dataclass(frozen=True, slots=True)
class LayerFaithfulness:
    """How closely the local replacement model follows a perturbation of one layer.

    Attributes:
        layer: The layer at whose write point vectors were added.
        n_perturbations: Number of perturbations.
        cosine: Cosine between the changes in model and replacement model at later read points, mean over perturbations.
        nmse: Squared difference over the model's own squared change, mean over perturbations.
    """

    layer: int
    n_perturbations: int
    cosine: float
    nmse: float


class WatchedPass(EditedPass):
    """A pass whose read points are kept."""

    def __init__(self, subject: Subject, pins: Pins | None, pushes: tuple[Push, ...]) -> None:
        model = subject.model.interventions
        super().__init__(model.site, {}, pins, None, subject.tokens.zero_positions, pushes=pushes)
        self.active = subject.active
        self.read_points: dict[int, Tensor] = {}

    def _reads(self, layer: int) -> bool:
        return True

    def _read(self, layer: int) -> Edit:
        inner = super()._read(layer)

        def edit(value: Tensor) -> Any:
            inner(value)
            self.read_points[layer] = self.state.inputs[layer]

        return edit


class LocalReplacementPass(WatchedPass):
    """The same in the local replacement model: features are recomputed and write the difference from the unmodified run."""

    def _writes(self, layer: int) -> bool:
        return True

    def _spread(self, layer: int) -> None:
        assert self.pins is not None
        neurons = (
            self.site.transcoders.of_model
        )  # which follow their frozen linearisation, those that can be nodes
        now, then = self.state.inputs[layer], self.pins.frozen.layers[layer].feature_input
        change = self._encoded(layer, now, not neurons) - self._encoded(layer, then, not neurons)
        if neurons:
            _, positions, features = (
                self.active.indices[self.active.of_layer(layer)].to(change.device).unbind(1)
            )
            kept = torch.zeros_like(change, dtype=torch.bool)
            kept[positions, features] = True
            change = change * kept
        features = (change != 0).any(0).nonzero().squeeze(1)
        if len(features):
            changes = change[:, features].to(torch.promote_types(change.dtype, torch.float32))
            self.decode_change(layer, changes, features)


def perturbations(subject: Subject, layer: int, count: int, seed: int) -> list[Push]:
    """Random directions at random traced positions of a layer's write point."""
    generator = torch.Generator().manual_seed(seed + 1009 * layer)
    zeroed = set(subject.tokens.zero_positions)
    positions = [p for p in range(len(subject.tokens)) if p not in zeroed] or [len(subject.tokens) - 1]
    outputs = subject.frozen.layers[layer].feature_output
    pushes = []
    for _ in range(count):
        position = positions[int(torch.randint(len(positions), (1,), generator=generator))]
        direction = torch.randn(outputs.shape[1], generator=generator)
        length = STRENGTH * float(outputs[position].float().norm())
        pushes.append(Push(layer, position, (direction * (length / direction.norm())).to(outputs)))
    return pushes


@torch.no_grad()
def measure_layers(
    subject: Subject, layers: Sequence[int], count: int, seed: int, phase: Phase | None = None
) -> tuple[LayerFaithfulness, ...]:
    """Perturb each of some layers `count` times; every one must have a layer after it.

    All layers have their first perturbation before any has its second, and layers alternate between depths, so that a phase
    that is cut short has covered all of them.
    """
    found: dict[int, list[tuple[float, float]]] = {}
    with phase or Phase() as phase:
        pushes = {layer: perturbations(subject, layer, count, seed) for layer in layers}
        order = sorted(layers, key=lambda layer: f"{layer:016b}"[::-1])
        for turn, layer in phase.each([(turn, layer) for turn in range(count) for layer in order]):
            push = pushes[layer][turn]
            model = _change(subject, WatchedPass(subject, None, (push,)), layer)
            replacement = _change(subject, LocalReplacementPass(subject, _all_pins(subject), (push,)), layer)
            found.setdefault(layer, []).append((cosine(replacement, model), nmse(replacement, model)))
    return tuple(
        LayerFaithfulness(layer, len(some), *(sum(values) / len(some) for values in zip(*some, strict=True)))
        for layer, some in sorted(found.items())
    )


def _all_pins(subject: Subject) -> Pins:
    return Pins(subject.frozen, patterns=True, layers=frozenset(range(subject.n_layers)), scales=True)


def _change(subject: Subject, watched: WatchedPass, layer: int) -> Tensor:
    """The effect of a perturbation at the read points after a layer: `(layer, pos, d_model)` in float64."""
    hooks: Hooks = watched.hooks()
    subject.model.model.run(subject.tokens.ids, hooks)
    later = range(layer + 1, subject.n_layers)
    changes = [
        watched.read_points[i].cpu().double() - subject.frozen.layers[i].feature_input.cpu().double()
        for i in later
    ]
    return torch.stack(changes)
