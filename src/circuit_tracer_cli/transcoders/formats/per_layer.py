"""The per-layer layouts: one file per layer. They differ in names of tensors, order of axes and container."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from circuit_tracer_cli.errors import BadTranscoders
from circuit_tracer_cli.files.tensors import StoredTensor, TensorFile
from circuit_tracer_cli.transcoders.activations import JumpReLU
from circuit_tracer_cli.transcoders.base import Kind
from circuit_tracer_cli.transcoders.formats.base import LoadOptions, SetShape, SetSource
from circuit_tracer_cli.transcoders.formats.reading import (
    TOPK,
    activation,
    activation_name,
    encoder_shape,
    is_transposed,
    layer_files,
    open_file,
    optional_parameter,
    parameter,
    require_distinct,
    require_shape,
    require_tensors,
    top_k,
    weights,
)
from circuit_tracer_cli.transcoders.plt import SingleLayerTranscoder, TranscoderSet

Recognise = Callable[[Mapping[str, StoredTensor], Path], bool]


@dataclass(frozen=True, slots=True)
class PerLayer:
    """One per-layer layout: names and orientation of its tensors, and how it is recognized.

    Args:
        recognise: True for the tensors and the path of a layer's file in this layout.
        rectified: A ReLU is also applied, so that a negative threshold counts as 0.
    """

    recognise: Recognise
    W_enc: str = "W_enc"
    W_dec: str = "W_dec"
    b_enc: str = "b_enc"
    b_dec: str = "b_dec"
    threshold: str = "threshold"
    W_skip: str = "W_skip"
    encoder_transposed: bool = True  # stored (d_model, feature)
    skip_transposed: bool = True  # stored (d_out, d_in)
    default_activation: str = "relu"
    rectified: bool = False
    suffix: str = ".safetensors"

    @property
    def KIND(self) -> Kind:
        """Per-layer."""
        return "plt"

    @property
    def required(self) -> tuple[str, ...]:
        """The tensors that every layer has."""
        return self.W_enc, self.W_dec, self.b_enc, self.b_dec

    def matches(self, source: SetSource) -> bool:
        """True if the first layer's file is in this layout."""
        paths = list(layer_files(source, self.suffix).values())
        return bool(paths) and self.recognise(open_file(paths[0]).tensors, paths[0])

    def files(self, source: SetSource) -> list[Path]:
        """Return the weight files, one for each layer that has one."""
        return list(layer_files(source, self.suffix).values())

    def shapes(self, source: SetSource) -> SetShape:
        """Return sizes and activation from the headers."""
        files = self._open(source)
        first = next(iter(files.values()))
        d_transcoder, d_model = self._sizes(first)
        n_layers = max(max(files) + 1, source.config.sizes.n_layers or 0)
        names, encoders, decoders = ["none"] * n_layers, [0] * n_layers, [0] * n_layers
        for layer, file in files.items():
            names[layer] = activation_name(source.config, file, self.threshold, self.default_activation)
            encoders[layer], decoders[layer] = (
                file.tensors[self.W_enc].nbytes,
                file.tensors[self.W_dec].nbytes,
            )
        return SetShape(
            kind="plt",
            n_layers=n_layers,
            d_model=d_model,
            d_transcoder=d_transcoder,
            activations=tuple(names),
            skip_layers=tuple(layer for layer, file in files.items() if self.W_skip in file.tensors),
            stored_dtype=first.tensors[self.W_enc].dtype,
            encoder_bytes=tuple(encoders),
            decoder_bytes=tuple(decoders),
            layers=() if len(files) == n_layers else tuple(files),
        )

    def load(self, source: SetSource, options: LoadOptions) -> TranscoderSet:
        """Return the set, with weights read or left in their files according to the options."""
        files, config = self._open(source), source.config
        loaded = {layer: self._layer(source, file, options.of_layer(layer)) for layer, file in files.items()}
        n_layers = max(max(files) + 1, config.sizes.n_layers or 0)
        return TranscoderSet.of_some_layers(
            loaded, n_layers, config.feature_input_hook, config.feature_output_hook, config.scan
        )

    def _layer(self, source: SetSource, file: TensorFile, options: LoadOptions) -> SingleLayerTranscoder:
        d_transcoder, d_model = self._sizes(file)
        skip = optional_parameter(file, self.W_skip, options)
        function = activation(
            source.config, file, self.threshold, d_transcoder, options, self.default_activation
        )
        if self.rectified and isinstance(function, JumpReLU):
            function = JumpReLU(function.threshold.clamp(min=0))
        return SingleLayerTranscoder(
            W_enc=weights(
                file, self.W_enc, options, options.lazy_encoder, transposed=self.encoder_transposed
            ),
            W_dec=weights(file, self.W_dec, options, options.lazy_decoder, row_shape=(1, d_model)),
            b_enc=parameter(file, self.b_enc, options),
            b_dec=parameter(file, self.b_dec, options),
            activation=function,
            skip=skip.T.contiguous() if skip is not None and self.skip_transposed else skip,
        )

    def _sizes(self, file: TensorFile) -> tuple[int, int]:
        """Return the number of features and the width."""
        first, second = encoder_shape(file, self.W_enc)
        return (second, first) if self.encoder_transposed else (first, second)

    def _open(self, source: SetSource) -> dict[int, TensorFile]:
        """Return all files by layer, checked against each other and the configuration."""
        paths = layer_files(source, self.suffix)
        require_distinct(paths.values())
        files = {layer: open_file(path) for layer, path in paths.items()}
        for file in files.values():
            require_tensors(file, self.required, (self.threshold, self.W_skip, "k"))
        first = self._sizes(next(iter(files.values())))
        skips = source.config.skips or (None,) * len(files)
        for file, skip in zip(files.values(), skips, strict=True):
            self._check(source, file, first)
            if skip is not None and skip != (self.W_skip in file.tensors):
                says = "a" if skip else "no"
                raise BadTranscoders(
                    f"{file.path} {'lacks' if skip else 'has'} {self.W_skip!r}, but its configuration says that there is "
                    f"{says} skip connection"
                )
        return files

    def _check(self, source: SetSource, file: TensorFile, first: tuple[int, int]) -> None:
        d_transcoder, d_model = sizes = self._sizes(file)
        if sizes != first:
            raise BadTranscoders(
                f"{file.path}: {self.W_enc!r} has {sizes[0]} features of width {sizes[1]}, but "
                f"the first layer has {first[0]} of width {first[1]}"
            )
        require_shape(file, self.W_dec, (d_transcoder, d_model))
        require_shape(file, self.b_enc, (d_transcoder,))
        require_shape(file, self.b_dec, (d_model,))
        require_shape(file, self.W_skip, (d_model, d_model))
        require_shape(file, self.threshold, (d_transcoder,), (1, d_transcoder), (), (1,))
        name = activation_name(source.config, file, self.threshold, self.default_activation)
        if name in TOPK:
            top_k(source.config, file, d_transcoder)


def _is_standard(tensors: Mapping[str, StoredTensor], path: Path) -> bool:
    others = "encoder.weight" in tensors or is_transposed(tensors, path)
    return not {"W_enc", "W_dec"}.isdisjoint(tensors) and not others


def _is_gemma_scope_2(tensors: Mapping[str, StoredTensor], path: Path) -> bool:
    return {"w_enc", "w_dec"} <= tensors.keys() and len(tensors["w_dec"].shape) != 3


STANDARD = PerLayer(_is_standard, threshold="activation_function.threshold", encoder_transposed=False)
GEMMA_SCOPE = PerLayer(lambda tensors, path: "W_enc" in tensors, suffix=".npz")
GEMMA_SCOPE_2 = PerLayer(
    _is_gemma_scope_2,
    W_enc="w_enc",
    W_dec="w_dec",
    W_skip="affine_skip_connection",
    skip_transposed=False,  # applied as x @ affine, so it is already (d_in, d_out)
)
SAELENS = PerLayer(is_transposed, rectified=True)
SPARSIFY = PerLayer(
    lambda tensors, path: {"encoder.weight", "W_dec"} <= tensors.keys(),
    W_enc="encoder.weight",
    b_enc="encoder.bias",
    encoder_transposed=False,
    default_activation="topk_relu",
)
