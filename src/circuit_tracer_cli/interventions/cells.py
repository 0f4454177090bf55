"""Edits resolved for a prompt and a set: single cells (position, feature) with their values, by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from circuit_tracer_cli.errors import UnsuitableIntervention
from circuit_tracer_cli.interventions.spec import AnyEdit, Intervention, Scaled


@dataclass(frozen=True, slots=True)
class Cells:
    """The edited cells of one layer, each once."""

    positions: Tensor  # (n) int64
    features: Tensor  # (n) int64
    values: Tensor  # (n) float64: the new activation, or the factor
    relative: Tensor  # (n) bool: the value is a factor

    def targets(self, original: Tensor) -> Tensor:
        """The new activations `(n)`, given the original ones `(n)`."""
        values = self.values.to(original)
        return torch.where(self.relative.to(original.device), values * original, values)


Edits = Mapping[int, Cells]


class Sizes(Protocol):
    """Anything with features: a transcoder set, or its description before it's loaded."""

    @property
    def n_layers(self) -> int:
        """Layers of the set."""

    @property
    def d_transcoder(self) -> int:
        """Features per layer."""


def resolve(edits: Sequence[AnyEdit], n_pos: int, sizes: Sizes) -> dict[int, Cells]:
    """The cells of a prompt of `n_pos` tokens by layer; if edits overlap, the later one counts.

    Edits of heads are ignored.

    Raises BadIntervention naming the edit and the layer, position, feature or value that doesn't fit.
    """
    by_layer: dict[int, list[Cells]] = {}
    for edit in _of_features(edits):
        by_layer.setdefault(_layer(edit, sizes.n_layers), []).append(_cells(edit, n_pos, sizes.d_transcoder))
    resolved = {layer: _last_wins(cells, sizes.d_transcoder) for layer, cells in by_layer.items()}
    return {layer: cells for layer, cells in sorted(resolved.items()) if len(cells.positions)}


def at_generated(edits: Sequence[AnyEdit], position: int, n_prompt: int) -> list[Intervention]:
    """The open-ended edits that apply to a generated token at `position` of the full text, as edits of its own pass."""
    found = []
    for edit in _of_features(edits):
        if edit.open_ended and isinstance(edit.position, slice):
            start, step = edit.position.start or 0, edit.position.step or 1
            start = max(0, start + n_prompt) if start < 0 else start
            if position >= start and (position - start) % step == 0:
                found.append(Intervention(edit.layer, 0, edit.feature, edit.value))
    return found


def conflicts(edits: Sequence[AnyEdit], n_pos: int, sizes: Sizes) -> tuple[Intervention, Intervention] | None:
    """The first two edits that give one cell different values, or None. Raises as `resolve` does."""
    seen: dict[tuple[int, int, int], tuple[float, bool, Intervention]] = {}
    for edit in _of_features(edits):
        cells = _cells(edit, n_pos, sizes.d_transcoder)
        rows = zip(
            *(part.tolist() for part in (cells.positions, cells.features, cells.values, cells.relative)),
            strict=True,
        )
        for position, feature, value, relative in rows:
            cell = (_layer(edit, sizes.n_layers), position, feature)
            before = seen.setdefault(cell, (value, relative, edit))
            if before[2] is not edit and before[:2] != (value, relative):
                return before[2], edit
    return None


def _of_features(edits: Sequence[AnyEdit]) -> list[Intervention]:
    return [edit for edit in edits if isinstance(edit, Intervention)]


def _layer(edit: Intervention, n_layers: int) -> int:
    if not 0 <= edit.layer < n_layers:
        raise UnsuitableIntervention(
            f"edit {edit}: layer {edit.layer} doesn't exist; the model has layers 0 to {n_layers - 1}",
            hint="`circuit-tracer show GRAPH` lists features as LAYER/FEATURE@POSITION",
        )
    return edit.layer


def _cells(edit: Intervention, n_pos: int, d_transcoder: int) -> Cells:
    """The cells of one edit, paired and broadcast as indexing `activations[position, feature] = value` does."""
    positions, features = _positions(edit, n_pos), _features(edit, d_transcoder)
    if isinstance(positions, range):
        # A slice makes its own axis, whatever the features are.
        rows = torch.tensor(positions, dtype=torch.int64).reshape(-1, *([1] * features.ndim))
    else:
        rows = torch.as_tensor(positions)
    try:
        region = np.broadcast_shapes(rows.shape, features.shape)
    except ValueError:
        raise UnsuitableIntervention(f"edit {edit}: the numbers of positions and features differ") from None
    value = edit.value.factor if isinstance(edit.value, Scaled) else edit.value
    try:
        values = torch.as_tensor(value).cpu().to(torch.float64).expand(region)
    except RuntimeError:
        shape = tuple(torch.as_tensor(value).shape)
        raise UnsuitableIntervention(
            f"edit {edit}: a value of shape {shape} doesn't fit cells of shape {tuple(region)}"
        ) from None
    relative = torch.full((values.numel(),), isinstance(edit.value, Scaled))
    return Cells(rows.expand(region).flatten(), features.expand(region).flatten(), values.flatten(), relative)


def _positions(edit: Intervention, n_pos: int) -> int | range | Tensor:
    """Positions counted from 0; a slice as a range."""
    position = edit.position
    if isinstance(position, slice):
        found = range(*position.indices(n_pos))
        if not found and not edit.open_ended:
            raise UnsuitableIntervention(
                f"edit {edit}: the slice contains none of the {n_pos} positions",
                hint=f"positions are 0 to {n_pos - 1}, and a slice excludes its end",
            )
        return found
    index = torch.as_tensor(position)
    outside = index[(index < -n_pos) | (index >= n_pos)]
    if outside.numel():
        raise UnsuitableIntervention(
            f"edit {edit}: position {int(outside.flatten()[0])} is outside the {n_pos} tokens",
            hint=f"positions are 0 to {n_pos - 1}, or -1 to {-n_pos} from the end",
        )
    index = torch.where(index < 0, index + n_pos, index)
    return index if index.ndim else int(index)


def _features(edit: Intervention, d_transcoder: int) -> Tensor:
    index = torch.as_tensor(edit.feature)
    outside = index[(index < 0) | (index >= d_transcoder)]
    if outside.numel():
        raise UnsuitableIntervention(
            f"edit {edit}: feature {int(outside.flatten()[0])} doesn't exist; layers have features 0 to {d_transcoder - 1}",
            hint="`circuit-tracer show GRAPH` lists features as LAYER/FEATURE@POSITION",
        )
    return index


def _last_wins(parts: Sequence[Cells], d_transcoder: int) -> Cells:
    """All cells in one record, keeping only the last of equal ones."""
    positions, features, values, relative = (
        torch.cat([getattr(cells, name) for cells in parts])
        for name in ("positions", "features", "values", "relative")
    )
    last = {key: index for index, key in enumerate((positions * d_transcoder + features).tolist())}
    keep = torch.tensor(sorted(last.values()), dtype=torch.int64)
    return Cells(positions[keep], features[keep], values[keep], relative[keep])
