"""Layers of a transcoder set, and what per-layer and cross-layer sets have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from circuit_tracer_cli.transcoders.activations import Activation, TopKOverLayers
from circuit_tracer_cli.transcoders.base import Kind
from circuit_tracer_cli.transcoders.weights import WeightSource


class TranscoderLayer:
    """The features of one layer: encoder, activation function, a decoder for each written layer, biases.

    Args:
        W_enc: `(feature, d_model)`.
        W_dec: `(feature, written, d_model)`; slot `k` writes to this layer + `k`.
        b_enc: `(feature)`.
        b_dec: `(d_model)`, added at this layer's write point.
        activation: Pre-activations → activations.
        skip: `S (d_in, d_out)` with skip(x) = x @ S, or None.
    """

    def __init__(
        self,
        W_enc: WeightSource,
        W_dec: WeightSource,
        b_enc: Tensor,
        b_dec: Tensor,
        activation: Activation,
        skip: Tensor | None = None,
    ) -> None:
        self.W_enc: WeightSource = W_enc
        self.W_dec: WeightSource = W_dec
        self.b_enc = b_enc
        self.b_dec = b_dec
        self.activation = activation
        self.skip = skip

    @property
    def d_transcoder(self) -> int:
        """Number of features of this layer."""
        return self.W_enc.shape[0]

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.W_enc.shape[1]

    @property
    def present(self) -> bool:
        """False for a layer of the model without a transcoder."""
        return True

    @property
    def n_written(self) -> int:
        """Number of layers that the features write to."""
        return self.W_dec.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.b_enc.dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.b_enc.device

    def encode(self, x: Tensor, apply_activation_function: bool = True) -> Tensor:
        """`x (..., d_model)`, cast to the weights' dtype → (pre-)activations `(..., feature)`."""
        x = x.to(self.device, self.dtype)
        z = x.new_empty(*x.shape[:-1], self.d_transcoder)
        for start, block in self.W_enc.blocks():
            part = functional.linear(x, block, self.b_enc[start : start + len(block)])
            if self.W_enc.lazy and not bool(part.isfinite().all()):
                self.W_enc.require_finite(block)
            if len(block) == self.d_transcoder:
                z = part
            else:
                z[..., start : start + len(block)] = part
        return self.activation(z) if apply_activation_function else z

    def compute_skip(self, x: Tensor) -> Tensor:
        """The skip term `(..., d_model)` of `x (..., d_model)`. Raises ValueError if there is none."""
        if self.skip is None:
            raise ValueError("this transcoder layer has no skip connection")
        return x.to(self.device, self.dtype) @ self.skip

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move and cast in place, one tensor at a time, so that the layer is never in memory twice."""
        self.W_enc = self.W_enc.to(device, dtype)
        self.W_dec = self.W_dec.to(device, dtype)
        self.b_enc = self.b_enc.to(device, dtype)
        self.b_dec = self.b_dec.to(device, dtype)
        self.activation = self.activation.to(device, dtype)
        self.skip = None if self.skip is None else self.skip.to(device, dtype)


def ranges_in_words(layers: Sequence[int]) -> str:
    """Return ascending layers as text, runs as ranges: `0, 2–5`."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


L = TypeVar("L", bound=TranscoderLayer)


class LayeredTranscoders(ABC, Generic[L]):
    """One transcoder layer per model layer, all with the same width and number of features.

    Args:
        layers: The layers in order.
        feature_input_hook: The hook that features read from, relative to a block.
        feature_output_hook: The hook that features write to, relative to a block.
        scan: The id under which feature examples are found.
    """

    kind: ClassVar[Kind]

    def __init__(
        self,
        layers: Sequence[L],
        feature_input_hook: str,
        feature_output_hook: str,
        scan: str | list[str] | None = None,
    ) -> None:
        if not layers:
            raise ValueError("a transcoder set needs at least one layer")
        self.layers = tuple(layers)
        for index, layer in enumerate(self.layers):
            self._check(index, layer)
        self.feature_input_hook = feature_input_hook
        self.feature_output_hook = feature_output_hook
        self.scan = scan
        self.stated_l0: float | None = None
        self.commit: str | None = None
        self.joint: TopKOverLayers | None = None
        self.normalized: str | None = None

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, layer: int) -> L:
        return self.layers[layer]

    def __iter__(self) -> Iterator[L]:
        return iter(self.layers)

    @property
    def n_layers(self) -> int:
        """Layers of the set."""
        return len(self.layers)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.layers[0].d_model

    @property
    def d_transcoder(self) -> int:
        """Features per layer."""
        return self.layers[0].d_transcoder

    @property
    def missing_layers(self) -> tuple[int, ...]:
        """The layers of the model without a transcoder; the full outputs of their MLPs are error nodes."""
        return tuple(index for index, layer in enumerate(self.layers) if not layer.present)

    @property
    def expected_l0(self) -> float | None:
        """Active features per layer and position: what the set's files state, else the k of TopK, else None."""
        if self.stated_l0 is not None:
            return self.stated_l0
        counts = [getattr(layer.activation, "k", None) for layer in self.layers if layer.present]
        known = [count for count in counts if count is not None]
        return sum(known) / len(known) if len(known) == len(counts) else None

    @property
    def has_skip(self) -> bool:
        """Whether any layer has a skip connection."""
        return any(layer.skip is not None for layer in self.layers)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.layers[0].dtype

    @property
    def device(self) -> torch.device:
        """The device of layer 0, on which data of several layers is combined."""
        return self.layers[0].device

    def written_layers(self, layer: int) -> range:
        """The layers that features of `layer` write to."""
        return range(layer, layer + self.layers[layer].n_written)

    def encode_layer(self, x: Tensor, layer: int, apply_activation_function: bool = True) -> Tensor:
        """`x (..., d_model)` at the read point of `layer` → (pre-)activations `(..., feature)`."""
        return self.layers[layer].encode(x, apply_activation_function)

    def apply_activation_function(self, layer: int, z: Tensor) -> Tensor:
        """Pre-activations `(..., feature)` of `layer` → activations."""
        return self.layers[layer].activation(z)

    def encode(self, x: Tensor, apply_activation_function: bool = True) -> Tensor:
        """All layers at once: `x (layer, pos, d_model)` → dense `(layer, pos, feature)`."""
        encoded = [self.encode_layer(part, index, apply_activation_function) for index, part in enumerate(x)]
        return torch.stack(encoded)

    @property
    def of_model(self) -> bool:
        """False: the features are the set's."""
        return False

    def readings(self, x: Tensor, layer: int, frozen: Tensor) -> Tensor:
        """Pre-activations `(pos, feature)` of `x (pos, d_model)`, whatever is `frozen`."""
        return self.encode_layer(x, layer, apply_activation_function=False)

    def strongest(self, acts: Tensor, layer: int) -> Tensor:
        """All activations: each may become a node."""
        return acts

    def encoder_rows(self, layer: int, features: Tensor, x: Tensor | None = None) -> Tensor:
        """Encoder rows `(n, d_model)` of `features (n)`, whatever they read."""
        return self.layers[layer].W_enc.rows(features)

    def decoder_rows(self, layer: int, features: Tensor) -> Tensor:
        """Decoder rows `(n, written, d_model)` of `features (n)`, unscaled."""
        return self.layers[layer].W_dec.rows(features)

    def bias(self, layer: int) -> Tensor:
        """`b_dec (d_model)` of `layer`."""
        return self.layers[layer].b_dec

    def skip_matrix(self, layer: int) -> Tensor | None:
        """`S (d_in, d_out)` with skip(x) = x @ S, or None."""
        return self.layers[layer].skip

    def compute_skip(self, layer: int, x: Tensor) -> Tensor:
        """The skip term of `layer`. Raises ValueError without a skip connection."""
        return self.layers[layer].compute_skip(x)

    def decode(self, acts: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Activations `(layer, pos, feature)` → reconstruction `(layer, pos, d_model)`.

        Raises ValueError if there are skip connections and `inputs (layer, pos, d_model)` aren't given.
        """
        if self.has_skip and inputs is None:
            raise ValueError("a set with skip connections needs the inputs to decode")
        out = torch.stack([layer.b_dec.expand(acts.shape[1], -1).clone() for layer in self.layers])
        for index, layer in enumerate(self.layers):
            if inputs is not None and layer.skip is not None:
                out[index] += layer.compute_skip(inputs[index])
            for start, block in layer.W_dec.blocks():
                part = acts[index, :, start : start + len(block)] @ block.flatten(1)
                out[index : index + layer.n_written] += part.view(len(part), *block.shape[1:]).transpose(0, 1)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """`x (layer, pos, d_model)` at the read points → reconstruction `(layer, pos, d_model)`."""
        return self.decode(self.encode(x), x)

    __call__ = forward

    def cover(self, n_layers: int) -> Self:
        """Return the set. Raises ValueError if it needs another number of layers than the model has."""
        if self.n_layers != n_layers:
            raise ValueError(f"a set for {self.n_layers} layers can't be used with {n_layers}")
        return self

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move and cast in place, one tensor at a time; return the set."""
        target = self.device if device is None else torch.device(device)
        for layer in self.layers:
            layer.to(target, self.dtype if dtype is None else dtype)
        return self

    def place(self, devices: Sequence[torch.device], dtype: torch.dtype | None = None) -> Self:
        """Move each layer to its own device and cast it, in place, one tensor at a time; return the set."""
        for layer, device in zip(self.layers, devices, strict=True):
            layer.to(device, self.dtype if dtype is None else dtype)
        return self

    def _check(self, index: int, layer: TranscoderLayer) -> None:
        """Raise ValueError if a layer doesn't fit the others."""
        first = self.layers[0]
        if layer.W_enc.shape != first.W_enc.shape:
            raise ValueError(
                f"layer {index} has an encoder of shape {layer.W_enc.shape}, but layer 0 has {first.W_enc.shape}"
            )
        wanted = (layer.d_transcoder, self._written(index), layer.d_model)
        if layer.W_dec.shape != wanted:
            raise ValueError(f"layer {index} has a decoder of shape {layer.W_dec.shape} instead of {wanted}")

    @abstractmethod
    def write_layer(self, folder: Path, layer: int) -> None:
        """Write the files of one layer in the standard layout."""

    @abstractmethod
    def _written(self, index: int) -> int:
        """Return how many layers the features of a layer must write to."""
