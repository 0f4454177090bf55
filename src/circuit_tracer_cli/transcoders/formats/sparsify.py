"""EleutherAI sparsify transcoders: `sae.safetensors` and `cfg.json` per layer, ReLU before TopK, perhaps a skip."""

from __future__ import annotations

from circuit_tracer_cli.transcoders.base import Kind
from circuit_tracer_cli.transcoders.formats import per_layer
from circuit_tracer_cli.transcoders.formats.base import LoadOptions, SetShape, SetSource
from circuit_tracer_cli.transcoders.formats.parts import layer_files
from circuit_tracer_cli.transcoders.plt import TranscoderSet

KIND: Kind = "plt"
_LAYOUT = per_layer.Layout(
    W_enc="encoder.weight", b_enc="encoder.bias", encoder_transposed=False, default_activation="topk_relu"
)


def matches(source: SetSource) -> bool:
    """Whether the first layer's file has an encoder module and a decoder matrix."""
    return {"encoder.weight", "W_dec"} <= per_layer.first_tensors(layer_files(source)).keys()


def shapes(source: SetSource) -> SetShape:
    """Sizes and activation from the headers."""
    return per_layer.shapes(_LAYOUT, source, layer_files(source))


def load(source: SetSource, options: LoadOptions) -> TranscoderSet:
    """The set."""
    return per_layer.load(_LAYOUT, source, layer_files(source), options)
