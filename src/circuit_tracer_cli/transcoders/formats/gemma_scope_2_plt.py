"""GemmaScope 2, per layer: `w_enc (d_model, feature)`, `w_dec (feature, d_model)`, JumpReLU, perhaps an affine skip."""

from __future__ import annotations

from circuit_tracer_cli.transcoders.base import Kind
from circuit_tracer_cli.transcoders.formats import per_layer
from circuit_tracer_cli.transcoders.formats.base import LoadOptions, SetShape, SetSource
from circuit_tracer_cli.transcoders.formats.parts import layer_files
from circuit_tracer_cli.transcoders.plt import TranscoderSet

KIND: Kind = "plt"
# The skip is applied as x @ affine, so it is already (d_in, d_out).
_LAYOUT = per_layer.Layout(
    W_enc="w_enc", W_dec="w_dec", W_skip="affine_skip_connection", skip_transposed=False
)


def matches(source: SetSource) -> bool:
    """Whether the first layer's file has `w_enc` and a decoder for one layer."""
    tensors = per_layer.first_tensors(layer_files(source))
    return {"w_enc", "w_dec"} <= tensors.keys() and len(tensors["w_dec"].shape) != 3


def shapes(source: SetSource) -> SetShape:
    """Sizes and activation from the headers."""
    return per_layer.shapes(_LAYOUT, source, layer_files(source))


def load(source: SetSource, options: LoadOptions) -> TranscoderSet:
    """The set."""
    return per_layer.load(_LAYOUT, source, layer_files(source), options)
