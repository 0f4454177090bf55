"""SAELens transcoders: `sae_weights.safetensors` and `cfg.json` per layer, encoder `(d_model, feature)`."""

from __future__ import annotations

from circuit_tracer_cli.transcoders.activations import JumpReLU
from circuit_tracer_cli.transcoders.base import Kind
from circuit_tracer_cli.transcoders.formats import per_layer
from circuit_tracer_cli.transcoders.formats.base import LoadOptions, SetShape, SetSource
from circuit_tracer_cli.transcoders.formats.parts import is_transposed, layer_files
from circuit_tracer_cli.transcoders.plt import TranscoderSet

KIND: Kind = "plt"
_LAYOUT = per_layer.Layout()


def matches(source: SetSource) -> bool:
    """Whether the first layer's file has the standard names and its encoder lies across."""
    paths = layer_files(source)
    return bool(paths) and is_transposed(per_layer.first_tensors(paths), paths[0])


def shapes(source: SetSource) -> SetShape:
    """Sizes and activation from the headers."""
    return per_layer.shapes(_LAYOUT, source, layer_files(source))


def load(source: SetSource, options: LoadOptions) -> TranscoderSet:
    """The set. Its JumpReLU is a ReLU as well, so a threshold below 0 counts as 0."""
    loaded = per_layer.load(_LAYOUT, source, layer_files(source), options)
    for layer in loaded:
        if isinstance(layer.activation, JumpReLU):
            layer.activation = JumpReLU(layer.activation.threshold.clamp(min=0))
    return loaded
