"""The cross-layer layouts: the standard one, with or without biases, and GemmaScope 2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from circuit_tracer_cli.errors import BadTranscoders
from circuit_tracer_cli.files.tensors import TensorFile
from circuit_tracer_cli.transcoders.activations import Activation, OneLayerOfTopK, TopKOverLayers
from circuit_tracer_cli.transcoders.base import Kind
from circuit_tracer_cli.transcoders.clt import CrossLayerTranscoder
from circuit_tracer_cli.transcoders.formats.base import LoadOptions, SetShape, SetSource
from circuit_tracer_cli.transcoders.formats.reading import (
    TOPK,
    activation,
    activation_name,
    encoder_shape,
    layer_files,
    numbered_files,
    optional_parameter,
    parameter,
    require_consecutive,
    require_distinct,
    require_shape,
    require_tensors,
    weights,
)
from circuit_tracer_cli.transcoders.layers import TranscoderLayer
from circuit_tracer_cli.transcoders.weights import LaterSlots, WeightSource

_ENCODER, _DECODER = "W_enc_", "W_dec_"
_JOINT = "cross_layer_topk"
_NORM_TOLERANCE = 0.02  # relative; norms may be stored in bfloat16
_NORMS_CHECKED = 4  # features per layer


@dataclass(frozen=True, slots=True)
class _LayerFiles:
    """The two files of one layer."""

    layer: int
    encoder: TensorFile
    decoder: TensorFile

    def name(self, tensor: str) -> str:
        """Return a tensor's name in this layer's files."""
        return f"{tensor}_{self.layer}"


class Standard:
    """`W_enc_{i}.safetensors` and `W_dec_{i}.safetensors` for every layer.

    With `activation: cross_layer_topk` biases may be missing, and `W_dec_norm_{i} (feature)`, the norm of each decoder over
    all the layers that it writes to, can be in either file; otherwise it is computed from the decoders.
    """

    @property
    def KIND(self) -> Kind:
        """Cross-layer."""
        return "clt"

    def matches(self, source: SetSource) -> bool:
        """True if there are encoder or decoder files."""
        return bool(numbered_files(source.folder, _ENCODER) or numbered_files(source.folder, _DECODER))

    def files(self, source: SetSource) -> list[Path]:
        """Return the weight files, encoders first."""
        encoders, decoders = (
            numbered_files(source.folder, _ENCODER),
            numbered_files(source.folder, _DECODER),
        )
        count = max([*encoders, *decoders]) + 1
        return require_consecutive(encoders, source.folder, _ENCODER, count) + require_consecutive(
            decoders, source.folder, _DECODER, count
        )

    def shapes(self, source: SetSource) -> SetShape:
        """Return sizes and activation from the headers."""
        files = self._open(source)
        d_transcoder, d_model = encoder_shape(files[0].encoder, "W_enc_0")
        return SetShape(
            kind="clt",
            n_layers=len(files),
            d_model=d_model,
            d_transcoder=d_transcoder,
            activations=tuple(_activation_name(source, file) for file in files),
            skip_layers=tuple(file.layer for file in files if file.name("W_skip") in file.encoder.tensors),
            stored_dtype=files[0].encoder.tensors["W_enc_0"].dtype,
            encoder_bytes=tuple(file.encoder.tensors[file.name("W_enc")].nbytes for file in files),
            decoder_bytes=tuple(file.decoder.tensors[file.name("W_dec")].nbytes for file in files),
        )

    def load(self, source: SetSource, options: LoadOptions) -> CrossLayerTranscoder:
        """Return the set, with weights read or left in their files according to the options."""
        files, config = self._open(source), source.config
        layers = [_layer(source, file, options.of_layer(file.layer)) for file in files]
        loaded = CrossLayerTranscoder(
            layers, config.feature_input_hook, config.feature_output_hook, config.scan
        )
        if config.activation == _JOINT:
            assert config.k is not None
            norms = tuple(
                _norms(file, layer.W_dec, options) for file, layer in zip(files, layers, strict=True)
            )
            loaded.joint = TopKOverLayers(config.k, norms)
        return loaded

    def _open(self, source: SetSource) -> list[_LayerFiles]:
        """Return all files, checked against each other."""
        _refuse_topk(source)
        paths = self.files(source)
        count = len(paths) // 2
        pairs = zip(paths[:count], paths[count:], strict=True)
        files = [
            _LayerFiles(layer, TensorFile(enc), TensorFile(dec)) for layer, (enc, dec) in enumerate(pairs)
        ]
        for file in files:
            _check(source, file, count, files[0])
        return files


def _refuse_topk(source: SetSource) -> None:
    if source.config.activation in TOPK:
        raise BadTranscoders(
            f"{source.folder}: activation topk isn't defined for a cross-layer transcoder",
            hint=f"set activation: {_JOINT} if the k largest features are chosen over all layers at once",
        )
    if source.config.activation == _JOINT and source.config.k is None:
        raise BadTranscoders(
            f"{source.folder}: {_JOINT} needs k, the number of active features in all layers together"
        )


def _layer(source: SetSource, files: _LayerFiles, options: LoadOptions) -> TranscoderLayer:
    file = files.encoder
    d_transcoder, d_model = encoder_shape(file, files.name("W_enc"))

    def bias(name: str, size: int) -> Tensor:
        found = optional_parameter(file, files.name(name), options)
        return torch.zeros(size, device=options.device, dtype=options.dtype) if found is None else found

    return TranscoderLayer(
        W_enc=weights(file, files.name("W_enc"), options, options.lazy_encoder),
        W_dec=weights(files.decoder, files.name("W_dec"), options, options.lazy_decoder),
        b_enc=bias("b_enc", d_transcoder),
        b_dec=bias("b_dec", d_model),
        activation=_activation(source, files, d_transcoder, options),
        skip=optional_parameter(file, files.name("W_skip"), options),
    )


def _activation(source: SetSource, files: _LayerFiles, count: int, options: LoadOptions) -> Activation:
    if source.config.activation == _JOINT:
        return OneLayerOfTopK()
    return activation(source.config, files.encoder, files.name("threshold"), count, options)


def _norms(files: _LayerFiles, W_dec: WeightSource, options: LoadOptions) -> Tensor:
    """Return the norm `(feature)` of each decoder over all its layers, at least float32: stored and checked, or computed."""
    name, device = files.name("W_dec_norm"), options.of_layer(files.layer).device
    file = next((file for file in (files.encoder, files.decoder) if name in file.tensors), None)
    if file is None:
        parts = [_norm(block) for _, block in W_dec.blocks()]
        return torch.cat(parts).to(device)
    stored = file.view(name).to(device, torch.promote_types(options.dtype, torch.float32), copy=True)
    some = torch.arange(min(_NORMS_CHECKED, len(stored)))
    found = _norm(W_dec.rows(some)).to(device)
    if not torch.allclose(stored[: len(some)], found, rtol=_NORM_TOLERANCE):
        raise BadTranscoders(
            f"{file.path}: {name!r} isn't the norm of the decoders over the layers that they write to"
        )
    return stored


def _norm(rows: Tensor) -> Tensor:
    accumulate = torch.promote_types(rows.dtype, torch.float32)
    norms: Tensor = torch.linalg.vector_norm(rows.flatten(1), dim=1, dtype=accumulate)
    return norms


def _check(source: SetSource, files: _LayerFiles, count: int, first: _LayerFiles) -> None:
    name, file = files.name, files.encoder
    biases = name("b_enc"), name("b_dec")
    joint = source.config.activation == _JOINT
    optional = [name("W_skip"), *([name("W_dec_norm"), *biases] if joint else [name("threshold")])]
    require_tensors(file, (name("W_enc"), *(() if joint else biases)), optional)
    require_tensors(files.decoder, (name("W_dec"),), (name("W_dec_norm"),) if joint else ())
    d_transcoder, d_model = encoder_shape(file, name("W_enc"))
    require_shape(file, name("W_enc"), encoder_shape(first.encoder, "W_enc_0"))
    require_shape(files.decoder, name("W_dec"), (d_transcoder, count - files.layer, d_model))
    for holder in (file, files.decoder):
        require_shape(holder, name("W_dec_norm"), (d_transcoder,))
    require_shape(file, name("b_enc"), (d_transcoder,))
    require_shape(file, name("b_dec"), (d_model,))
    require_shape(file, name("threshold"), (d_transcoder,), (1, d_transcoder), (), (1,))
    require_shape(file, name("W_skip"), (d_model, d_model))
    if _activation_name(source, files) != _activation_name(source, first):
        raise BadTranscoders(f"{file.path}: some layers of the set have thresholds and others don't")


def _activation_name(source: SetSource, files: _LayerFiles) -> str:
    if source.config.activation == _JOINT:
        return _JOINT
    return activation_name(source.config, files.encoder, files.name("threshold"))


class GemmaScope2:
    """One file for each layer, whose decoder `(feature, layer, d_model)` has a slot for every layer of the model."""

    _SKIP = "affine_skip_connection"

    @property
    def KIND(self) -> Kind:
        """Cross-layer."""
        return "clt"

    def matches(self, source: SetSource) -> bool:
        """True if the first layer's file has `w_enc` and a decoder for several layers."""
        paths = list(layer_files(source).values())
        tensors = TensorFile(paths[0]).tensors if paths else {}
        return {"w_enc", "w_dec"} <= tensors.keys() and len(tensors["w_dec"].shape) == 3

    def files(self, source: SetSource) -> list[Path]:
        """Return the weight files."""
        found = layer_files(source)
        return require_consecutive(found, source.folder, "layer_")

    def shapes(self, source: SetSource) -> SetShape:
        """Return sizes and activation from the headers."""
        files = self._open(source)
        d_model, d_transcoder = encoder_shape(files[0], "w_enc")
        return SetShape(
            kind="clt",
            n_layers=len(files),
            d_model=d_model,
            d_transcoder=d_transcoder,
            activations=tuple(activation_name(source.config, file, "threshold") for file in files),
            skip_layers=tuple(layer for layer, file in enumerate(files) if self._SKIP in file.tensors),
            stored_dtype=files[0].tensors["w_enc"].dtype,
            encoder_bytes=tuple(file.tensors["w_enc"].nbytes for file in files),
            decoder_bytes=tuple(
                file.tensors["w_dec"].nbytes // len(files) * (len(files) - layer)
                for layer, file in enumerate(files)
            ),
        )

    def load(self, source: SetSource, options: LoadOptions) -> CrossLayerTranscoder:
        """Return the set, with each decoder's slots for its own layer and later ones."""
        files, config = self._open(source), source.config
        layers = [
            self._layer(source, file, len(files) - layer, options.of_layer(layer))
            for layer, file in enumerate(files)
        ]
        return CrossLayerTranscoder(
            layers, config.feature_input_hook, config.feature_output_hook, config.scan
        )

    def _layer(
        self, source: SetSource, file: TensorFile, n_written: int, options: LoadOptions
    ) -> TranscoderLayer:
        d_model, d_transcoder = encoder_shape(file, "w_enc")
        decoder = LaterSlots(file, "w_dec", options.device, options.dtype, (n_written, d_model))
        return TranscoderLayer(
            W_enc=weights(file, "w_enc", options, options.lazy_encoder, transposed=True),
            W_dec=decoder if options.lazy_decoder else decoder.load(),
            b_enc=parameter(file, "b_enc", options),
            b_dec=parameter(file, "b_dec", options),
            activation=activation(source.config, file, "threshold", d_transcoder, options),
            skip=optional_parameter(file, self._SKIP, options),
        )

    def _open(self, source: SetSource) -> list[TensorFile]:
        """Return all files, checked against each other."""
        _refuse_topk(source)
        paths = self.files(source)
        require_distinct(paths)
        files = [TensorFile(path) for path in paths]
        for file in files:
            require_tensors(file, ("w_enc", "w_dec", "b_enc", "b_dec"), ("threshold", self._SKIP))
            d_model, d_transcoder = encoder_shape(file, "w_enc")
            require_shape(file, "w_enc", encoder_shape(files[0], "w_enc"))
            require_shape(file, "w_dec", (d_transcoder, len(files), d_model))
            require_shape(file, "b_enc", (d_transcoder,))
            require_shape(file, "b_dec", (d_model,))
            require_shape(file, "threshold", (d_transcoder,), (1, d_transcoder), (), (1,))
            require_shape(file, self._SKIP, (d_model, d_model))
        return files


STANDARD = Standard()
GEMMA_SCOPE_2 = GemmaScope2()
