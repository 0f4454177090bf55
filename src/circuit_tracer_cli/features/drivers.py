"""What usually drives a feature: target-weighted expected residual attribution (TWERA) over a text.

A feature `i` drives `j` at the same position, through the residual stream alone, by `a_i v_ij / s`: `v_ij` is the product of what
`i` writes with what `j` reads, `s` are the norms' scales there. Its usual weight is the mean of that over the text, weighted with
`a_j`, as in "Circuit Tracing" (Ameisen et al. 2025, "global weights"), with the scales under the expectation. On one prompt
with `j` active once it is the part of the edge in the graph that passes no attention head.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuit_tracer_cli.backends.base import FrozenPass, NormWeights
from circuit_tracer_cli.errors import BadPrompt, UnsuitableValue, UnsupportedArchitecture
from circuit_tracer_cli.features.packed import DRIVERS, write_json
from circuit_tracer_cli.features.sequences import Sequencer
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.tokens import Tokens
from circuit_tracer_cli.transcoders.components import ActiveFeatures, active_features
from circuit_tracer_cli.types import Progress, SilentProgress

TOP = 10
_MOST_PENDING = 1 << 22
"""Pairs of features that are held before those of equal features are added up."""
_ROWS_AT_ONCE = 1 << 12

Feature = tuple[int, int]
"""Layer and number of a feature."""


@dataclass(frozen=True, slots=True)
class Driver:
    """A feature that drives another.

    Attributes:
        layer, feature: The feature.
        weight: Its usual effect, over the tokens where the other is active.
        together: The share of those tokens at which it is active too.
    """

    layer: int
    feature: int
    weight: float
    together: float


class DriverTally:
    """Collects, for chosen features, how active others are at the same positions.

    Args:
        model: The model with its set.
        wanted: The features.

    Raises:
        UnsuitableValue: For neurons and for sets whose effects aren't one product: with skip connections, or cross-layer behind
            norms of the MLPs' outputs.
        UnsupportedArchitecture: The family has no closed form.
    """

    def __init__(self, model: ReplacementModel, wanted: Collection[Feature]) -> None:
        check_drivable(model)
        self.model = model
        self.wanted = sorted(wanted)
        self.n_features = model.transcoders.d_transcoder
        codes = np.array([layer * self.n_features + number for layer, number in self.wanted], np.int64)
        self.codes = codes
        self.active = np.zeros(len(codes))  # sum of each one's activation
        self.hits = np.zeros(len(codes), np.int64)
        self._keys: list[NDArray[np.int64]] = []
        self._sums: list[NDArray[np.float64]] = []
        self._counts: list[NDArray[np.int64]] = []
        self._pending = 0

    @torch.no_grad()
    def add(self, tokens: Tokens) -> None:
        """Count one sequence."""
        frozen = self.model.frozen_pass(tokens.ids)
        inputs = [layer.feature_input for layer in frozen.layers]
        active = active_features(self.model.transcoders, inputs, tokens.zero_positions)
        layer, position, number = active.indices.cpu().numpy().T
        value = active.values.cpu().double().numpy() / self._write_scale(frozen, active)
        raw, codes = active.values.cpu().double().numpy(), layer * self.n_features + number
        place = np.searchsorted(self.codes, codes)
        hits = (place < len(self.codes)) & (self.codes[np.minimum(place, len(self.codes) - 1)] == codes)
        order = np.argsort(position, kind="stable")
        starts = np.searchsorted(position[order], np.arange(len(tokens) + 1))
        for hit in np.flatnonzero(hits).tolist():
            here = order[starts[position[hit]] : starts[position[hit] + 1]]
            here = here[layer[here] < layer[hit]]
            target = int(place[hit])
            read = self._read_scale(frozen, int(layer[hit]), int(position[hit]))
            self.active[target] += raw[hit]
            self.hits[target] += 1
            self._keep(target, codes[here], raw[hit] * value[here] / read)
        if self._pending > _MOST_PENDING:
            self._add_up()

    def _write_scale(self, frozen: FrozenPass, active: ActiveFeatures) -> NDArray[np.float64]:
        """What is divided by between a feature and the stream: the scale of the norm of the MLP's output, where there is one."""
        layer, position, _ = active.indices.cpu().unbind(1)
        scale = torch.ones(len(active), dtype=torch.float64)
        if self.model.points.write == "mlp":
            for at, one in enumerate(frozen.layers):
                if one.ln2_post_scale is not None:
                    here = layer == at
                    scale[here] = one.ln2_post_scale.cpu().double()[position[here]]
        found: NDArray[np.float64] = scale.numpy()
        return found

    def _read_scale(self, frozen: FrozenPass, layer: int, position: int) -> float:
        if self.model.points.read == "resid_mid":
            return 1.0
        return float(frozen.layers[layer].ln2_scale[position])

    def _keep(self, target: int, codes: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        width = self.model.transcoders.n_layers * self.n_features
        self._keys.append(target * width + codes)
        self._sums.append(values)
        self._counts.append(np.ones(len(codes), np.int64))
        self._pending += len(codes)

    def _add_up(self) -> None:
        if not self._keys:
            return
        keys, inverse = np.unique(np.concatenate(self._keys), return_inverse=True)
        sums = np.bincount(inverse, np.concatenate(self._sums), len(keys))
        counts = np.bincount(inverse, np.concatenate(self._counts), len(keys)).astype(np.int64)
        self._keys, self._counts, self._pending = [keys], [counts], 0
        self._sums = [np.asarray(sums, np.float64)]

    @torch.no_grad()
    def drivers(self, top: int = TOP) -> Iterator[tuple[Feature, list[Driver]]]:
        """Yield each feature with what usually drives it, strongest first; nothing for one that was never active."""
        self._add_up()
        keys = self._keys[0] if self._keys else np.zeros(0, np.int64)
        width = self.model.transcoders.n_layers * self.n_features
        for target, wanted in enumerate(self.wanted):
            first, last = np.searchsorted(keys, [target * width, (target + 1) * width])
            if not self.active[target]:
                continue
            codes = keys[first:last] - target * width
            mean = self._sums[0][first:last] / self.active[target] if last > first else np.zeros(0)
            weights = mean * self._products(wanted, codes)
            best = np.argsort(-np.abs(weights), kind="stable")[:top]
            yield (
                wanted,
                [
                    Driver(
                        *divmod(int(codes[at]), self.n_features),
                        float(weights[at]),
                        float(self._counts[0][first + at] / self.hits[target]),
                    )
                    for at in best.tolist()
                    if weights[at]
                ],
            )

    def _products(self, wanted: Feature, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each feature writes below another's layer, times what that one reads, without scales."""
        layer, number = wanted
        transcoders, weights = self.model.transcoders, self.model.model.weights
        assert weights is not None
        encoder = transcoders.encoder_rows(layer, torch.tensor([number], device=transcoders.device))
        reads = self._in_stream(encoder.float(), weights.layers[layer].ln2)[0]
        found = np.zeros(len(codes))
        for below in np.unique(codes // self.n_features).tolist():
            here = np.flatnonzero(codes // self.n_features == below)
            for part in np.array_split(here, -(-len(here) // _ROWS_AT_ONCE)):
                numbers = torch.from_numpy(codes[part] % self.n_features).to(transcoders.device)
                written = self._written(below, numbers, layer)
                found[part] = (written @ reads.to(written)).cpu().double().numpy()
        return found

    def _in_stream(self, vectors: Tensor, norm: NormWeights) -> Tensor:
        if self.model.points.read == "resid_mid":
            return vectors
        if self.model.points.read == "normalized":
            return vectors - vectors.mean(-1, keepdim=True) if norm.kind == "layer" else vectors
        return norm.pull_back(vectors, torch.ones(len(vectors), device=vectors.device))

    def _written(self, layer: int, numbers: Tensor, end: int) -> Tensor:
        """What features `(n)` add to the stream before layer `end`, `(n, d_model)`."""
        transcoders, weights = self.model.transcoders, self.model.model.weights
        assert weights is not None
        rows = transcoders.decoder_rows(layer, numbers).float()
        out = torch.zeros(len(numbers), transcoders.d_model, device=rows.device)
        for slot, written in enumerate(transcoders.written_layers(layer)):
            if written < end:
                post = weights.layers[written].ln2_post if self.model.points.write == "mlp" else None
                out += rows[:, slot] if post is None else _through(post, rows[:, slot])
        return out


def _through(norm: NormWeights, vectors: Tensor) -> Tensor:
    centred = vectors - vectors.mean(-1, keepdim=True) if norm.kind == "layer" else vectors
    return centred * norm.gain.to(vectors)


def check_drivable(model: ReplacementModel) -> None:
    """Raise what `DriverTally` raises, before text is read."""
    transcoders, weights = model.transcoders, model.model.weights
    if transcoders.of_model:
        raise UnsuitableValue("what neurons read depends on the prompt, so nothing usually drives them")
    if weights is None:
        raise UnsupportedArchitecture(f"{model.cfg.original_architecture} has no closed form")
    if transcoders.has_skip:
        raise UnsuitableValue(
            "usual drivers aren't defined for transcoders with skip connections",
            "leave out --drivers-of",
        )
    behind = model.points.write == "mlp" and any(one.ln2_post is not None for one in weights.layers)
    if behind and any(len(transcoders.written_layers(layer)) > 1 for layer in range(transcoders.n_layers)):
        raise UnsuitableValue(
            "usual drivers aren't defined for cross-layer transcoders behind norms of the MLPs' outputs",
            "leave out --drivers-of",
        )


def write_drivers(
    model: ReplacementModel,
    documents: Iterable[str],
    wanted: Collection[Feature],
    folder: Path,
    *,
    name: str,
    sequence_length: int = 512,
    max_documents: int | None = None,
    top: int = TOP,
    progress: Progress | None = None,
) -> int:
    """Write what usually drives some features to a folder of feature examples, and return for how many it is known.

    Args:
        model: The model with its set.
        documents: Texts.
        wanted: The features, as layer and number.
        folder: The folder.
        name: The set's name, as in the examples.
        sequence_length: Longer documents are cut.
        max_documents: Largest number of documents to read.
        top: Drivers to keep of each feature.
        progress: Progress callback.

    Raises what `DriverTally` raises, and OutputError.
    """
    progress = progress or SilentProgress()
    tally, sequencer = DriverTally(model, wanted), Sequencer(model, sequence_length)
    progress.phase("usual drivers", max_documents)
    read = 0
    for document in documents:
        if max_documents is not None and read >= max_documents:
            break
        read += 1
        progress.advance()
        try:
            for tokens in sequencer.sequences(document):
                tally.add(tokens)
        except BadPrompt:
            continue
    found: dict[str, Any] = {
        f"{layer}/{number}": [
            [one.layer, one.feature, float(f"{one.weight:.6g}"), round(one.together, 4)] for one in drivers
        ]
        for (layer, number), drivers in tally.drivers(top)
    }
    write_json(folder / DRIVERS, {"transcoders": name, "documents": read, "drivers": found})
    return len(found)
