"""What the per-layer layouts have in common: one file a layer, which differ in names and in the order of axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from circuit_tracer_cli.errors import BadTranscoders
from circuit_tracer_cli.files.tensors import StoredTensor, TensorFile
from circuit_tracer_cli.transcoders.formats.base import LoadOptions, SetShape, SetSource
from circuit_tracer_cli.transcoders.formats.parts import (
    activation,
    activation_name,
    encoder_shape,
    optional_parameter,
    parameter,
    require_shape,
    require_tensors,
    top_k,
    weights,
)
from circuit_tracer_cli.transcoders.npz_file import NpzFile
from circuit_tracer_cli.transcoders.plt import SingleLayerTranscoder, TranscoderSet
from circuit_tracer_cli.transcoders.rows import WeightSource
from circuit_tracer_cli.transcoders.views import TransposedWeights


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors' names, and how they lie."""

    W_enc: str = "W_enc"
    W_dec: str = "W_dec"
    b_enc: str = "b_enc"
    b_dec: str = "b_dec"
    threshold: str = "threshold"
    W_skip: str = "W_skip"
    encoder_transposed: bool = True  # stored (d_model, feature)
    skip_transposed: bool = True  # stored (d_out, d_in)
    default_activation: str = "relu"

    @property
    def required(self) -> tuple[str, ...]:
        """The tensors that every layer has."""
        return self.W_enc, self.W_dec, self.b_enc, self.b_dec


def open_file(path: Path) -> TensorFile:
    """The file, whichever container it is."""
    return NpzFile(path) if path.suffix == ".npz" else TensorFile(path)


def first_tensors(paths: Sequence[Path]) -> Mapping[str, StoredTensor]:
    """What the first layer's file holds; nothing if there is none."""
    return open_file(paths[0]).tensors if paths else {}


def shapes(layout: Layout, source: SetSource, paths: Sequence[Path]) -> SetShape:
    """Sizes and activation from the headers."""
    files = _open(layout, source, paths)
    d_transcoder, d_model = _sizes(layout, files[0])
    names = (activation_name(source.config, f, layout.threshold, layout.default_activation) for f in files)
    return SetShape(
        kind="plt",
        n_layers=len(files),
        d_model=d_model,
        d_transcoder=d_transcoder,
        activations=tuple(names),
        skip_layers=tuple(index for index, file in enumerate(files) if layout.W_skip in file.tensors),
        stored_dtype=files[0].tensors[layout.W_enc].dtype,
        encoder_bytes=tuple(file.tensors[layout.W_enc].nbytes for file in files),
        decoder_bytes=tuple(file.tensors[layout.W_dec].nbytes for file in files),
    )


def load(layout: Layout, source: SetSource, paths: Sequence[Path], options: LoadOptions) -> TranscoderSet:
    """The set, its weights read or left in their files as the options say."""
    files = _open(layout, source, paths)
    layers = [_layer(layout, source, file, options.of_layer(layer)) for layer, file in enumerate(files)]
    config = source.config
    return TranscoderSet(layers, config.feature_input_hook, config.feature_output_hook, config.scan)


def encoder(file: TensorFile, name: str, options: LoadOptions) -> WeightSource:
    """An encoder stored `(d_model, feature)`, left in its file or read now."""
    source = TransposedWeights(file, name, options.device, options.dtype)
    return source if options.lazy_encoder else source.load()


def _layer(
    layout: Layout, source: SetSource, file: TensorFile, options: LoadOptions
) -> SingleLayerTranscoder:
    d_transcoder, d_model = _sizes(layout, file)
    skip = optional_parameter(file, layout.W_skip, options)
    default = layout.default_activation
    return SingleLayerTranscoder(
        W_enc=encoder(file, layout.W_enc, options)
        if layout.encoder_transposed
        else weights(file, layout.W_enc, options, options.lazy_encoder),
        W_dec=weights(file, layout.W_dec, options, options.lazy_decoder, row_shape=(1, d_model)),
        b_enc=parameter(file, layout.b_enc, options),
        b_dec=parameter(file, layout.b_dec, options),
        activation=activation(source.config, file, layout.threshold, d_transcoder, options, default),
        skip=skip.T.contiguous() if skip is not None and layout.skip_transposed else skip,
    )


def _sizes(layout: Layout, file: TensorFile) -> tuple[int, int]:
    first, second = encoder_shape(file, layout.W_enc)
    return (second, first) if layout.encoder_transposed else (first, second)


def _open(layout: Layout, source: SetSource, paths: Sequence[Path]) -> list[TensorFile]:
    """All files, checked against each other."""
    files = [open_file(path) for path in paths]
    for file in files:
        require_tensors(file, layout.required, (layout.threshold, layout.W_skip, "k"))
    for file in files:
        _check(layout, source, file, files[0])
    return files


def _check(layout: Layout, source: SetSource, file: TensorFile, first: TensorFile) -> None:
    d_transcoder, d_model = sizes = _sizes(layout, file)
    if sizes != _sizes(layout, first):
        raise BadTranscoders(
            f"{file.path}: {layout.W_enc!r} is of {sizes} features and width, layer 0 of {_sizes(layout, first)}"
        )
    require_shape(file, layout.W_dec, (d_transcoder, d_model))
    require_shape(file, layout.b_enc, (d_transcoder,))
    require_shape(file, layout.b_dec, (d_model,))
    require_shape(file, layout.W_skip, (d_model, d_model))
    require_shape(file, layout.threshold, (d_transcoder,), (1, d_transcoder))
    name = activation_name(source.config, file, layout.threshold, layout.default_activation)
    if name in {"topk", "topk_relu"}:
        top_k(source.config, file, d_transcoder)
