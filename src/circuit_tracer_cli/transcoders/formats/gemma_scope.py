"""GemmaScope: `params.npz` per layer, encoder `(d_model, feature)`, JumpReLU."""

from __future__ import annotations

from circuit_tracer_cli.transcoders.base import Kind
from circuit_tracer_cli.transcoders.formats import per_layer
from circuit_tracer_cli.transcoders.formats.base import LoadOptions, SetShape, SetSource
from circuit_tracer_cli.transcoders.formats.parts import layer_files
from circuit_tracer_cli.transcoders.plt import TranscoderSet

KIND: Kind = "plt"
_LAYOUT = per_layer.Layout()


def matches(source: SetSource) -> bool:
    """Whether the layers are npz files with an encoder."""
    return "W_enc" in per_layer.first_tensors(layer_files(source, ".npz"))


def shapes(source: SetSource) -> SetShape:
    """Sizes and activation from the headers."""
    return per_layer.shapes(_LAYOUT, source, layer_files(source, ".npz"))


def load(source: SetSource, options: LoadOptions) -> TranscoderSet:
    """The set."""
    return per_layer.load(_LAYOUT, source, layer_files(source, ".npz"), options)
