"""The active features on a prompt, and the transcoders' reconstruction from them.

Everything is done layer by layer: there is never an array over all layers, positions and features.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.errors import BadTranscoders, InvalidValue, UnsuitableValue
from circuit_tracer_cli.transcoders.activations import TopKOverLayers
from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.weights import all_finite

_DENSE_ELEMENTS = 2**26
_BLOCK_BYTES = 2**27


@dataclass(frozen=True, slots=True)
class ActiveFeatures:
    """The features that are not exactly zero, ordered by layer, then position, then feature."""

    indices: Tensor  # (active, 3) int64: layer, position, feature
    values: Tensor  # (active), in the set's dtype
    layer_offsets: tuple[int, ...]  # (layer + 1): the start of each layer's entries, and the end
    inputs: tuple[Tensor, ...] = ()  # per layer (pos, d_model), what they read

    def __len__(self) -> int:
        return len(self.values)

    def of_layer(self, layer: int) -> slice:
        """The range of a layer's entries."""
        return slice(self.layer_offsets[layer], self.layer_offsets[layer + 1])


@dataclass(frozen=True, slots=True)
class DecoderBlock:
    """Decoder rows of some features of one source layer, and the active entries that use them."""

    layer: int
    entries: Tensor  # (entry) int64, ascending: indices into the ActiveFeatures
    rows: Tensor  # (distinct, written, d_model), unscaled
    row_of_entry: Tensor  # (entry) int64, on the device of `rows`: the row that an entry uses

    def vectors(self) -> Tensor:
        """The unscaled decoder vectors `(entry, written, d_model)`, one per entry."""
        return self.rows.index_select(0, self.row_of_entry)


def active_features(
    transcoders: Transcoders,
    feature_inputs: Sequence[Tensor],
    zero_positions: Collection[int] | slice = slice(0, 1),
) -> ActiveFeatures:
    """Return every active feature of a prompt.

    Args:
        transcoders: The set.
        feature_inputs: For each layer `(pos, d_model)`, at the read point.
        zero_positions: Positions where features count as inactive.

    Raises:
        InvalidValue: The number of inputs isn't the number of layers, or a position is outside the prompt.
        BadTranscoders: An activation is NaN or infinite.
    """
    if len(feature_inputs) != transcoders.n_layers:
        raise InvalidValue(f"{len(feature_inputs)} feature inputs for a set of {transcoders.n_layers} layers")
    zeroed = _positions(zero_positions, len(feature_inputs[0]))
    if transcoders.of_model:
        zeroed = sorted(
            {0, *zeroed}
        )  # the attention sink: what its neurons write is a constant, kept in the error node
    if transcoders.joint is not None:
        found = _jointly_active(transcoders, transcoders.joint, feature_inputs, zeroed)
    else:
        found = [_active_of_layer(transcoders, layer, x, zeroed) for layer, x in enumerate(feature_inputs)]
    offsets = [0]
    for indices, _ in found:
        offsets.append(offsets[-1] + len(indices))
    return ActiveFeatures(
        torch.cat([indices for indices, _ in found]),
        torch.cat([values for _, values in found]),
        tuple(offsets),
        tuple(feature_inputs),
    )


def _positions(zero_positions: Collection[int] | slice, n_pos: int) -> list[int]:
    if isinstance(zero_positions, slice):
        return list(range(*zero_positions.indices(n_pos)))
    outside = [position for position in zero_positions if not -n_pos <= position < n_pos]
    if outside:
        raise InvalidValue(f"position {outside[0]} is outside a prompt of {n_pos} tokens")
    return sorted({position % n_pos for position in zero_positions})


def _active_of_layer(
    transcoders: Transcoders, layer: int, x: Tensor, zeroed: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Indices `(n, 3)` and values `(n)` of one layer, a block of positions at a time."""
    block = max(1, _DENSE_ELEMENTS // transcoders.d_transcoder)
    indices, values = [], []
    for start in range(0, len(x), block):
        acts = transcoders.strongest(transcoders.encode_layer(x[start : start + block], layer), layer)
        acts[[position - start for position in zeroed if start <= position < start + block]] = 0
        _require_finite(acts, layer)
        pos, feature = acts.nonzero(as_tuple=True)
        indices.append(torch.stack([torch.full_like(pos, layer), pos + start, feature], dim=1))
        values.append(acts[pos, feature])
    return torch.cat(indices).to(transcoders.device), torch.cat(values).to(transcoders.device)


def _jointly_active(
    transcoders: Transcoders, joint: TopKOverLayers, inputs: Sequence[Tensor], zeroed: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """Indices `(n, 3)` and values `(n)` of each layer, chosen over all layers at once."""

    def preactivations() -> Iterator[Tensor]:
        for layer, x in enumerate(inputs):
            z = transcoders.encode_layer(x, layer, apply_activation_function=False)
            _require_finite(z, layer)
            yield z

    kept = torch.ones(len(inputs[0]), dtype=torch.bool)
    kept[[*zeroed, *joint.outliers(inputs, zeroed)]] = False
    found = []
    for layer, acts in enumerate(joint.select(preactivations())):
        (pos, feature), values = acts.indices(), acts.values()
        counts = kept.to(pos.device)[pos]
        pos, feature, values = pos[counts], feature[counts], values[counts]
        indices = torch.stack([torch.full_like(pos, layer), pos, feature], dim=1)
        found.append((indices.to(transcoders.device), values.to(transcoders.device)))
    return found


def _require_finite(acts: Tensor, layer: int) -> None:
    if not all_finite(acts):
        narrow = acts.dtype is torch.float16
        raise BadTranscoders(
            f"activations of layer {layer} are NaN or infinite",
            hint="float16 overflows easily: use --dtype bfloat16 or float32"
            if narrow
            else "check the model and the set for damaged weights",
        )


def decoder_vectors(
    transcoders: Transcoders, active: ActiveFeatures, max_bytes: int = _BLOCK_BYTES
) -> Iterator[DecoderBlock]:
    """Yield the decoder rows of all active features, each read once, by layer, in blocks of at most `max_bytes`.

    A block has all entries of its features. A layer without active features yields none.
    """
    for layer in range(transcoders.n_layers):
        span = active.of_layer(layer)
        if span.start == span.stop:
            continue
        distinct, place = torch.unique(active.indices[span, 2], return_inverse=True)
        row_bytes = len(transcoders.written_layers(layer)) * transcoders.d_model * transcoders.dtype.itemsize
        size = max(1, max_bytes // row_bytes)
        for start in range(0, len(distinct), size):
            entries = ((place >= start) & (place < start + size)).nonzero().squeeze(1)
            # Keep no reference to the rows: a block that the caller dropped must be freed before the next is read.
            yield _block(
                layer,
                entries + span.start,
                transcoders,
                distinct[start : start + size],
                place[entries] - start,
            )


def _block(
    layer: int, entries: Tensor, transcoders: Transcoders, features: Tensor, place: Tensor
) -> DecoderBlock:
    rows = transcoders.decoder_rows(layer, features)
    return DecoderBlock(layer, entries, rows, place.to(rows.device))


class Reconstruction:
    """The transcoders' output `ŷ` on a prompt, summed block by block in float32 or better.

    Starts from `b_dec` at every position and the skip terms; `add` each block of `decoder_vectors`, then read
    `outputs`, per layer `(pos, d_model)` on the layer's device.
    """

    def __init__(
        self, transcoders: Transcoders, active: ActiveFeatures, feature_inputs: Sequence[Tensor]
    ) -> None:
        self.active = active
        self.dtype = torch.promote_types(transcoders.dtype, torch.float32)
        self.outputs = [self._start(transcoders, layer, x) for layer, x in enumerate(feature_inputs)]

    def _start(self, transcoders: Transcoders, layer: int, x: Tensor) -> Tensor:
        bias = transcoders.bias(layer).to(self.dtype)
        skip = transcoders.skip_matrix(layer)
        if skip is None:
            return bias.repeat(len(x), 1)
        return torch.addmm(bias, x.to(bias), skip.to(self.dtype))

    def add(self, block: DecoderBlock) -> None:
        """Add the contributions of a block's entries, activation times decoder row, to every written layer."""
        device = block.rows.device
        positions = self.active.indices[block.entries, 1].to(device)
        values = self.active.values[block.entries].to(device, self.dtype)
        n_pos, (distinct, written, d_model) = len(self.outputs[0]), block.rows.shape
        acts = torch.sparse_coo_tensor(
            torch.stack([positions, block.row_of_entry]), values, (n_pos, distinct), check_invariants=False
        )
        group = max(1, _DENSE_ELEMENTS // (2 * n_pos * d_model))
        for start in range(0, written, group):
            rows = block.rows[:, start : start + group].to(self.dtype)
            added = torch.sparse.mm(acts, rows.flatten(1)).view(n_pos, -1, d_model)
            for slot, part in enumerate(added.unbind(1), start):
                self.outputs[block.layer + slot] += part.to(self.outputs[block.layer + slot].device)


def reconstruct(
    transcoders: Transcoders, active: ActiveFeatures, feature_inputs: Sequence[Tensor]
) -> list[Tensor]:
    """The reconstruction `(pos, d_model)` of every layer, in float32 or better."""
    reconstruction = Reconstruction(transcoders, active, feature_inputs)
    for block in decoder_vectors(transcoders, active):
        reconstruction.add(block)
        del block
    return reconstruction.outputs


def why_inactive(
    transcoders: Transcoders, wanted: tuple[int, int, int], silent: Sequence[int], inputs: Tensor
) -> UnsuitableValue:
    """Return the error that says why a feature isn't active on a prompt, with its pre-activation.

    Args:
        transcoders: The set.
        wanted: Layer, position and index of the feature.
        silent: Positions at which nothing is traced.
        inputs: `(pos, d_model)`, what the feature's layer reads.
    """
    layer, position, feature = wanted
    name = f"{layer}/{feature}@{position}"
    for what, value, count in (
        ("layer", layer, transcoders.n_layers),
        ("position", position, len(inputs)),
        ("feature", feature, transcoders.d_transcoder),
    ):
        if not 0 <= value < count:
            return UnsuitableValue(f"{name}: there is no {what} {value}", f"{what}s go from 0 to {count - 1}")
    if position in silent:
        return UnsuitableValue(f"{name}: nothing is traced at position {position}", "choose another position")
    x = inputs[position : position + 1]
    if transcoders.of_model:
        neuron = float(transcoders.encode_layer(x, layer)[0, feature])
        return UnsuitableValue(
            f"{name} isn't among the neurons that write most at its layer and position: its value is {neuron:.4g}",
            f"trace with a larger neurons:top=N than {transcoders.expected_l0:g}",
        )
    before = float(transcoders.encode_layer(x, layer, apply_activation_function=False)[0, feature])
    return UnsuitableValue(
        f"{name} isn't active on this prompt: its pre-activation is {before:.4g}",
        "circuit-tracer expand GRAPH --inputs-of NODE lists features that are",
    )
