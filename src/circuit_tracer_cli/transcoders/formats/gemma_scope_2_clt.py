"""GemmaScope 2, cross-layer: one file a layer, whose decoder `(feature, layer, d_model)` has a slot for every layer."""

from __future__ import annotations

from circuit_tracer_cli.errors import BadTranscoders
from circuit_tracer_cli.files.tensors import TensorFile
from circuit_tracer_cli.transcoders.base import Kind
from circuit_tracer_cli.transcoders.clt import CrossLayerTranscoder
from circuit_tracer_cli.transcoders.formats import per_layer
from circuit_tracer_cli.transcoders.formats.base import LoadOptions, SetShape, SetSource
from circuit_tracer_cli.transcoders.formats.parts import (
    activation,
    activation_name,
    encoder_shape,
    layer_files,
    optional_parameter,
    parameter,
    require_shape,
    require_tensors,
)
from circuit_tracer_cli.transcoders.layer import TranscoderLayer
from circuit_tracer_cli.transcoders.views import LaterSlots

KIND: Kind = "clt"
_SKIP = "affine_skip_connection"


def matches(source: SetSource) -> bool:
    """Whether the first layer's file has `w_enc` and a decoder for several layers."""
    tensors = per_layer.first_tensors(layer_files(source))
    return {"w_enc", "w_dec"} <= tensors.keys() and len(tensors["w_dec"].shape) == 3


def shapes(source: SetSource) -> SetShape:
    """Sizes and activation from the headers."""
    files = _open(source)
    d_model, d_transcoder = encoder_shape(files[0], "w_enc")
    return SetShape(
        kind=KIND,
        n_layers=len(files),
        d_model=d_model,
        d_transcoder=d_transcoder,
        activations=tuple(activation_name(source.config, file, "threshold") for file in files),
        skip_layers=tuple(layer for layer, file in enumerate(files) if _SKIP in file.tensors),
        stored_dtype=files[0].tensors["w_enc"].dtype,
        encoder_bytes=tuple(file.tensors["w_enc"].nbytes for file in files),
        decoder_bytes=tuple(
            file.tensors["w_dec"].nbytes // len(files) * (len(files) - layer)
            for layer, file in enumerate(files)
        ),
    )


def load(source: SetSource, options: LoadOptions) -> CrossLayerTranscoder:
    """The set; of each decoder the slots of the layer itself and of later ones."""
    files = _open(source)
    layers = [
        _layer(source, file, len(files) - layer, options.of_layer(layer)) for layer, file in enumerate(files)
    ]
    config = source.config
    return CrossLayerTranscoder(layers, config.feature_input_hook, config.feature_output_hook, config.scan)


def _layer(source: SetSource, file: TensorFile, n_written: int, options: LoadOptions) -> TranscoderLayer:
    d_model, d_transcoder = encoder_shape(file, "w_enc")
    decoder = LaterSlots(file, "w_dec", options.device, options.dtype, (n_written, d_model))
    return TranscoderLayer(
        W_enc=per_layer.encoder(file, "w_enc", options),
        W_dec=decoder if options.lazy_decoder else decoder.load(),
        b_enc=parameter(file, "b_enc", options),
        b_dec=parameter(file, "b_dec", options),
        activation=activation(source.config, file, "threshold", d_transcoder, options),
        skip=optional_parameter(file, _SKIP, options),
    )


def _open(source: SetSource) -> list[TensorFile]:
    """All files, checked against each other."""
    if source.config.activation in {"topk", "topk_relu"}:
        raise BadTranscoders(f"{source.folder}: activation topk isn't defined for a cross-layer transcoder")
    files = [TensorFile(path) for path in layer_files(source)]
    for file in files:
        require_tensors(file, ("w_enc", "w_dec", "b_enc", "b_dec"), ("threshold", _SKIP))
        d_model, d_transcoder = encoder_shape(file, "w_enc")
        require_shape(file, "w_enc", encoder_shape(files[0], "w_enc"))
        require_shape(file, "w_dec", (d_transcoder, len(files), d_model))
        require_shape(file, "b_enc", (d_transcoder,))
        require_shape(file, "b_dec", (d_model,))
        require_shape(file, "threshold", (d_transcoder,), (1, d_transcoder))
        require_shape(file, _SKIP, (d_model, d_model))
    return files
