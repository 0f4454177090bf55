"""The standard per-layer layout: `layer_{i}.safetensors`, each with one transcoder."""

from __future__ import annotations

from pathlib import Path

from circuit_tracer_cli.errors import BadTranscoders
from circuit_tracer_cli.files.tensors import TensorFile
from circuit_tracer_cli.transcoders.base import Kind
from circuit_tracer_cli.transcoders.formats.base import LoadOptions, SetShape, SetSource
from circuit_tracer_cli.transcoders.formats.parts import (
    activation,
    activation_name,
    encoder_shape,
    is_transposed,
    listed_files,
    numbered_files,
    optional_parameter,
    parameter,
    require_consecutive,
    require_shape,
    require_tensors,
    top_k,
    weights,
)
from circuit_tracer_cli.transcoders.plt import SingleLayerTranscoder, TranscoderSet

KIND: Kind = "plt"
_STEM = "layer_"
_THRESHOLD = "activation_function.threshold"


def matches(source: SetSource) -> bool:
    """Whether the first layer's file is a safetensors file with `W_enc` or `W_dec`, of the same shape if both."""
    listed = listed_files(source)
    paths = list(numbered_files(source.folder, _STEM).values()) if listed is None else listed
    if not paths or paths[0].suffix != ".safetensors":
        return False
    tensors = TensorFile(paths[0]).tensors
    others = "encoder.weight" in tensors or is_transposed(tensors, paths[0])
    return not {"W_enc", "W_dec"}.isdisjoint(tensors) and not others


def shapes(source: SetSource) -> SetShape:
    """Sizes and activation from the headers."""
    files = _open(source)
    d_transcoder, d_model = encoder_shape(files[0], "W_enc")
    return SetShape(
        kind=KIND,
        n_layers=len(files),
        d_model=d_model,
        d_transcoder=d_transcoder,
        activations=tuple(activation_name(source.config, file, _THRESHOLD) for file in files),
        skip_layers=tuple(layer for layer, file in enumerate(files) if "W_skip" in file.tensors),
        stored_dtype=files[0].tensors["W_enc"].dtype,
        encoder_bytes=tuple(file.tensors["W_enc"].nbytes for file in files),
        decoder_bytes=tuple(file.tensors["W_dec"].nbytes for file in files),
    )


def load(source: SetSource, options: LoadOptions) -> TranscoderSet:
    """The set, its weights read or left in their files as the options say."""
    layers = [_layer(source, file, options.of_layer(layer)) for layer, file in enumerate(_open(source))]
    config = source.config
    return TranscoderSet(layers, config.feature_input_hook, config.feature_output_hook, config.scan)


def _layer(source: SetSource, file: TensorFile, options: LoadOptions) -> SingleLayerTranscoder:
    d_transcoder, d_model = encoder_shape(file, "W_enc")
    W_skip = optional_parameter(file, "W_skip", options)
    return SingleLayerTranscoder(
        W_enc=weights(file, "W_enc", options, options.lazy_encoder),
        W_dec=weights(file, "W_dec", options, options.lazy_decoder, row_shape=(1, d_model)),
        b_enc=parameter(file, "b_enc", options),
        b_dec=parameter(file, "b_dec", options),
        activation=activation(source.config, file, _THRESHOLD, d_transcoder, options),
        skip=None if W_skip is None else W_skip.T.contiguous(),
    )


def _open(source: SetSource) -> list[TensorFile]:
    """All files, checked against each other."""
    files = [TensorFile(path) for path in _paths(source)]
    for file in files:
        require_tensors(file, ("W_enc", "W_dec", "b_enc", "b_dec"), ("W_skip", _THRESHOLD, "k"))
    first = encoder_shape(files[0], "W_enc")
    for file in files:
        _check(source, file, first)
    return files


def _check(source: SetSource, file: TensorFile, first: tuple[int, int]) -> None:
    d_transcoder, d_model = encoder_shape(file, "W_enc")
    if (d_transcoder, d_model) != first:
        raise BadTranscoders(f"{file.path}: 'W_enc' has shape {(d_transcoder, d_model)}, layer 0 has {first}")
    require_shape(file, "W_dec", (d_transcoder, d_model))
    require_shape(file, "b_enc", (d_transcoder,))
    require_shape(file, "b_dec", (d_model,))
    require_shape(file, "W_skip", (d_model, d_model))
    require_shape(file, _THRESHOLD, (d_transcoder,), (1, d_transcoder))
    if activation_name(source.config, file, _THRESHOLD) in {"topk", "topk_relu"}:
        top_k(source.config, file, d_transcoder)


def _paths(source: SetSource) -> list[Path]:
    listed = listed_files(source)
    if listed is not None:
        return listed
    return require_consecutive(numbered_files(source.folder, _STEM), source.folder, _STEM)
