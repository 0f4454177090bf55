"""Checks whether transcoders do on a prompt what they were trained to do.

A wrong hook, a wrong model or layers in the wrong order raise no error: shapes agree, and features are active. The signs are
a reconstruction that is worse than none, or many times more or fewer active features than the set was trained for.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.components import ActiveFeatures

WORST_MEDIAN = 0.8
"""Squared error over squared output: having no transcoder gives 1. Correct sets have 0.03 to 0.7, even on unusual text."""

WORST_LAYER = 1.2
WORST_SHARE = 1 / 8
"""More layers than this (at least two) above `WORST_LAYER` are in the wrong order, or belong to another model."""

FEWEST_POSITIONS = 3
SMALLEST_EXPANSION = 2
"""Sets with fewer features per dimension aren't sparse codes, and the checks don't apply to them."""

L0_FACTOR = 5
LARGEST_SHARE = 0.1
SMALLEST_L0 = 0.02
"""Plausible active features per layer and position of a set that states none: as a share of its features, and in number."""

_POSITIONS_COMPARED = 64


@dataclass(frozen=True, slots=True)
class Plausibility:
    """How well the set fits the model on one prompt."""

    active_per_position: float  # per layer
    expected_active: float | None  # according to the set's own files
    reconstruction_error: tuple[float, ...]  # per layer, squared error over squared output
    warnings: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """For a graph's metadata."""
        values = asdict(self)
        values["reconstruction_error"] = [round(value, 6) for value in self.reconstruction_error]
        values["warnings"] = list(self.warnings)
        return values


def judge(
    transcoders: Transcoders,
    active: ActiveFeatures,
    errors: Sequence[Tensor],
    outputs: Collection[Tensor],
    zero_positions: Collection[int],
) -> Plausibility:
    """Check a set on one prompt.

    Args:
        transcoders: The set.
        active: The active features.
        errors: For each layer `(pos, d_model)`, output minus reconstruction.
        outputs: For each layer `(pos, d_model)`, the output at the write point.
        zero_positions: Positions to ignore.
    """
    n_pos = len(errors[0])
    kept = torch.ones(n_pos, dtype=torch.bool)
    kept[list(zero_positions)] = False
    n_kept = int(kept.sum())
    missing = transcoders.missing_layers
    ratios = tuple(
        float(_energy(error, kept) / _energy(output.to(error), kept).clamp_min(1e-30))
        for error, output in zip(errors, outputs, strict=True)
    )
    per_position = len(active) / max(1, n_kept * (transcoders.n_layers - len(missing)))
    expected = transcoders.expected_l0
    warnings: list[str] = []
    a_code = not transcoders.of_model
    if (
        a_code
        and n_kept >= FEWEST_POSITIONS
        and transcoders.d_transcoder >= SMALLEST_EXPANSION * transcoders.d_model
    ):
        warnings += _of_reconstruction({n: ratio for n, ratio in enumerate(ratios) if n not in missing})
        warnings += _of_activity(per_position, expected, transcoders.d_transcoder)
    return Plausibility(round(per_position, 6), expected, ratios, tuple(warnings))


def other_reading(
    transcoders: Transcoders, inputs: Sequence[Tensor], per_position: float, zero_positions: Collection[int]
) -> str | None:
    """Return a warning if the number of active features suggests that `ln2.hook_normalized` should be read the other way.

    Args:
        transcoders: The set.
        inputs: For each layer `(pos, d_model)`, what features would read the other way.
        per_position: Active features per layer and position the way it is read.
        zero_positions: Positions to ignore.
    """
    kept = [pos for pos in range(len(inputs[0])) if pos not in set(zero_positions)][:_POSITIONS_COMPARED]
    layers = [layer for layer in range(len(inputs)) if layer not in transcoders.missing_layers]
    if len(kept) < FEWEST_POSITIONS or transcoders.joint is not None:
        return None
    counts = [int((transcoders.encode_layer(inputs[layer][kept], layer) != 0).sum()) for layer in layers]
    other = sum(counts) / (len(kept) * len(layers))
    expected = transcoders.expected_l0
    if _distance(other, expected, transcoders.d_transcoder) >= _distance(
        per_position, expected, transcoders.d_transcoder
    ):
        return None
    now, then = ("affine", "scaled") if transcoders.normalized == "affine" else ("scaled", "affine")
    usual = "what is usual" if expected is None else f"the {expected:g} that the set was trained for"
    return (
        f"{per_position:.3g} features are active per token and layer with ln2.hook_normalized read as {now}; read as {then} it "
        f"would be {other:.3g}, closer to {usual}: set ln2_hook_normalized: {then} in config.yaml"
    )


def _distance(per_position: float, expected: float | None, d_transcoder: int) -> int:
    """Return how far a number of active features is from the expected one, in powers of two."""
    if expected is not None:
        return round(abs(math.log2(max(per_position, 1e-3) / expected)))
    return int(not SMALLEST_L0 <= per_position <= LARGEST_SHARE * d_transcoder)


def _energy(values: Tensor, kept: Tensor) -> Tensor:
    return values[kept.to(values.device)].square().sum()


def _of_reconstruction(ratios: Mapping[int, float]) -> list[str]:
    median = sorted(ratios.values())[len(ratios) // 2]
    bad = [layer for layer, ratio in ratios.items() if ratio > WORST_LAYER]
    if median <= WORST_MEDIAN and len(bad) < max(2, len(ratios) * WORST_SHARE):
        return []
    shown = bad or [layer for layer, ratio in ratios.items() if ratio > WORST_MEDIAN]
    where = f"layer{'s' if len(shown) > 1 else ''} {', '.join(map(str, shown[:6]))}{' …' if len(shown) > 6 else ''}"
    worst = max(ratios[layer] for layer in shown)
    return [
        f"the transcoders reconstruct little of what the model computes in {where} (squared error up to {worst:.2g} of the "
        "output; leaving them out gives 1): check that model, hooks, order of layers and dtype are those of their training"
    ]


def _of_activity(per_position: float, expected: float | None, d_transcoder: int) -> list[str]:
    if expected is not None:
        fits = expected / L0_FACTOR <= per_position <= expected * L0_FACTOR
        usual = f"the set was trained for {expected:g}"
    else:
        fits = SMALLEST_L0 <= per_position <= LARGEST_SHARE * d_transcoder
        usual = f"the set has {d_transcoder} per layer"
    if fits:
        return []
    return [
        f"{per_position:.3g} features are active per token and layer, and {usual}: check the model, the hooks in config.yaml "
        "and the dtype"
    ]
