"""The standard cross-layer layout: `W_enc_{i}.safetensors` and `W_dec_{i}.safetensors` for every layer."""

from __future__ import annotations

from dataclasses import dataclass

from circuit_tracer_cli.errors import BadTranscoders
from circuit_tracer_cli.files.tensors import TensorFile
from circuit_tracer_cli.transcoders.base import Kind
from circuit_tracer_cli.transcoders.clt import CrossLayerTranscoder
from circuit_tracer_cli.transcoders.formats.base import LoadOptions, SetShape, SetSource
from circuit_tracer_cli.transcoders.formats.parts import (
    activation,
    activation_name,
    encoder_shape,
    numbered_files,
    optional_parameter,
    parameter,
    require_consecutive,
    require_shape,
    require_tensors,
    weights,
)
from circuit_tracer_cli.transcoders.layer import TranscoderLayer

KIND: Kind = "clt"
_ENCODER, _DECODER = "W_enc_", "W_dec_"


@dataclass(frozen=True, slots=True)
class _LayerFiles:
    """The two files of one layer."""

    layer: int
    encoder: TensorFile
    decoder: TensorFile

    def name(self, tensor: str) -> str:
        """A tensor's name in this layer's files."""
        return f"{tensor}_{self.layer}"


def matches(source: SetSource) -> bool:
    """Whether there are encoder or decoder files."""
    return bool(numbered_files(source.folder, _ENCODER) or numbered_files(source.folder, _DECODER))


def shapes(source: SetSource) -> SetShape:
    """Sizes and activation from the headers."""
    files = _open(source)
    d_transcoder, d_model = encoder_shape(files[0].encoder, "W_enc_0")
    return SetShape(
        kind=KIND,
        n_layers=len(files),
        d_model=d_model,
        d_transcoder=d_transcoder,
        activations=tuple(_activation_name(source, file) for file in files),
        skip_layers=tuple(file.layer for file in files if file.name("W_skip") in file.encoder.tensors),
        stored_dtype=files[0].encoder.tensors["W_enc_0"].dtype,
        encoder_bytes=tuple(file.encoder.tensors[file.name("W_enc")].nbytes for file in files),
        decoder_bytes=tuple(file.decoder.tensors[file.name("W_dec")].nbytes for file in files),
    )


def load(source: SetSource, options: LoadOptions) -> CrossLayerTranscoder:
    """The set, its weights read or left in their files as the options say."""
    layers = [_layer(source, file, options.of_layer(layer)) for layer, file in enumerate(_open(source))]
    config = source.config
    return CrossLayerTranscoder(layers, config.feature_input_hook, config.feature_output_hook, config.scan)


def _layer(source: SetSource, files: _LayerFiles, options: LoadOptions) -> TranscoderLayer:
    file = files.encoder
    d_transcoder, _ = encoder_shape(file, files.name("W_enc"))
    return TranscoderLayer(
        W_enc=weights(file, files.name("W_enc"), options, options.lazy_encoder),
        W_dec=weights(files.decoder, files.name("W_dec"), options, options.lazy_decoder),
        b_enc=parameter(file, files.name("b_enc"), options),
        b_dec=parameter(file, files.name("b_dec"), options),
        activation=activation(source.config, file, files.name("threshold"), d_transcoder, options),
        skip=optional_parameter(file, files.name("W_skip"), options),
    )


def _open(source: SetSource) -> list[_LayerFiles]:
    """All files, checked against each other."""
    if source.config.activation in {"topk", "topk_relu"}:
        raise BadTranscoders(f"{source.folder}: activation topk isn't defined for a cross-layer transcoder")
    encoders = numbered_files(source.folder, _ENCODER)
    decoders = numbered_files(source.folder, _DECODER)
    count = max([*encoders, *decoders]) + 1
    files = [
        _LayerFiles(layer, TensorFile(encoder), TensorFile(decoder))
        for layer, (encoder, decoder) in enumerate(
            zip(
                require_consecutive(encoders, source.folder, _ENCODER, count),
                require_consecutive(decoders, source.folder, _DECODER, count),
                strict=True,
            )
        )
    ]
    for file in files:
        _check(source, file, count, files[0])
    return files


def _check(source: SetSource, files: _LayerFiles, count: int, first: _LayerFiles) -> None:
    name, file = files.name, files.encoder
    optional = (name("threshold"), name("W_skip"))
    require_tensors(file, (name("W_enc"), name("b_enc"), name("b_dec")), optional)
    require_tensors(files.decoder, (name("W_dec"),))
    d_transcoder, d_model = encoder_shape(file, name("W_enc"))
    require_shape(file, name("W_enc"), encoder_shape(first.encoder, "W_enc_0"))
    require_shape(files.decoder, name("W_dec"), (d_transcoder, count - files.layer, d_model))
    require_shape(file, name("b_enc"), (d_transcoder,))
    require_shape(file, name("b_dec"), (d_model,))
    require_shape(file, name("threshold"), (d_transcoder,), (1, d_transcoder))
    require_shape(file, name("W_skip"), (d_model, d_model))
    if _activation_name(source, files) != _activation_name(source, first):
        raise BadTranscoders(f"{file.path}: some layers of the set have thresholds, some have none")


def _activation_name(source: SetSource, files: _LayerFiles) -> str:
    return activation_name(source.config, files.encoder, files.name("threshold"))
