"""Shared by loaders: finding files, checking their content, turning tensors into weights."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from circuit_tracer_cli.errors import BadTranscoders
from circuit_tracer_cli.files.tensors import StoredTensor, TensorFile
from circuit_tracer_cli.transcoders.activations import Activation, JumpReLU, RectifiedTopK, ReLU, TopK
from circuit_tracer_cli.transcoders.config import SetConfig
from circuit_tracer_cli.transcoders.formats.base import LoadOptions, SetSource
from circuit_tracer_cli.transcoders.npz_file import NpzFile
from circuit_tracer_cli.transcoders.weights import (
    LazyWeights,
    TransposedWeights,
    WeightSource,
    require_finite,
)

TOPK = frozenset({"topk", "topk_relu"})


def numbered_files(folder: Path, stem: str, suffix: str = ".safetensors") -> dict[int, Path]:
    """The files `{stem}{number}{suffix}` by number. Raises BadTranscoders if two share one."""
    pattern = re.compile(re.escape(stem) + r"(\d+)" + re.escape(suffix))
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = pattern.fullmatch(path.name)
        if match is None:
            continue
        layer = int(match[1])
        if layer in found:
            raise BadTranscoders(f"{folder} has layer {layer} twice: {found[layer].name} and {path.name}")
        found[layer] = path
    return found


def require_consecutive(
    found: dict[int, Path], folder: Path, stem: str, count: int | None = None, suffix: str = ".safetensors"
) -> list[Path]:
    """The files of layers `0 … count-1`, or to the highest. Raises BadTranscoders naming a missing one."""
    wanted = max(found) + 1 if count is None else count
    for layer in range(wanted):
        if layer not in found:
            raise BadTranscoders(
                f"{folder} lacks {stem}{layer}{suffix} (layer {layer} of {wanted})",
                hint="features of a cross-layer set write to all later layers, so it needs all its files",
            )
    return [found[layer] for layer in range(wanted)]


def require_tensors(file: TensorFile, required: Collection[str], optional: Collection[str] = ()) -> None:
    """Raise BadTranscoders if a tensor is missing, unknown, or (except `k`) not of a floating-point type."""
    for name in required:
        if name not in file.tensors:
            raise BadTranscoders(f"{file.path} lacks the tensor {name!r}")
    for name, stored in file.tensors.items():
        if name not in required and name not in optional:
            raise BadTranscoders(f"{file.path} has an unknown tensor {name!r}")
        if name != "k" and not stored.dtype.is_floating_point:
            dtype = str(stored.dtype).removeprefix("torch.")
            raise BadTranscoders(f"{file.path}: tensor {name!r} is {dtype}, not floating point")


def require_shape(file: TensorFile, name: str, *allowed: tuple[int, ...]) -> None:
    """Raise BadTranscoders if an existing tensor has none of the allowed shapes."""
    if name in file.tensors and file.tensors[name].shape not in allowed:
        shape = file.tensors[name].shape
        raise BadTranscoders(f"{file.path}: tensor {name!r} has shape {shape} instead of {allowed[0]}")


def encoder_shape(file: TensorFile, name: str) -> tuple[int, int]:
    """`(feature, d_model)` of an encoder. Raises BadTranscoders if it isn't a matrix."""
    shape = file.tensors[name].shape
    if len(shape) != 2 or 0 in shape:
        raise BadTranscoders(f"{file.path}: tensor {name!r} has shape {shape} instead of (feature, d_model)")
    return shape[0], shape[1]


def open_file(path: Path) -> TensorFile:
    """Open a weight file of any container."""
    return NpzFile(path) if path.suffix == ".npz" else TensorFile(path)


def weights(
    file: TensorFile,
    name: str,
    options: LoadOptions,
    lazy: bool,
    row_shape: tuple[int, ...] | None = None,
    *,
    transposed: bool = False,
) -> WeightSource:
    """A matrix of the file, left there or read now; `transposed` if stored as `(d_model, feature)`."""
    kind = TransposedWeights if transposed else LazyWeights
    source = kind(file, name, options.device, options.dtype, row_shape)
    return source if lazy else source.load()


def parameter(file: TensorFile, name: str, options: LoadOptions) -> Tensor:
    """A small tensor, read now. Raises BadTranscoders if it isn't finite."""
    stored = file.view(name)
    tensor = stored.to(options.device, options.dtype, copy=True)
    require_finite(tensor, f"{file.path}: tensor {name!r}", stored)
    return tensor


def optional_parameter(file: TensorFile, name: str, options: LoadOptions) -> Tensor | None:
    """The same for a tensor that may be missing."""
    return parameter(file, name, options) if name in file.tensors else None


def activation_name(config: SetConfig, file: TensorFile, threshold: str, default: str = "relu") -> str:
    """Return the activation from the config, else from the tensors. Raises BadTranscoders if they contradict each other."""
    has_threshold, has_k = threshold in file.tensors, "k" in file.tensors
    name = config.activation or ("jumprelu" if has_threshold else "topk" if has_k else default)
    if name == "jumprelu" and not has_threshold:
        raise BadTranscoders(f"{file.path} lacks the tensor {threshold!r}, but the activation is jumprelu")
    if name != "jumprelu" and has_threshold:
        raise BadTranscoders(
            f"{file.path} has thresholds, but the set's configuration says activation: {name}"
        )
    if name not in TOPK:
        if has_k:
            raise BadTranscoders(f"{file.path} has k, but the activation is {name}")
        if config.k is not None:
            raise BadTranscoders(
                f"config.yaml sets k: {config.k}, but no activation that uses it; according to its files the set uses {name}",
                hint="add activation: topk (or topk_relu) to config.yaml, or remove k",
            )
    return name


def activation(
    config: SetConfig,
    file: TensorFile,
    threshold: str,
    d_transcoder: int,
    options: LoadOptions,
    default: str = "relu",
) -> Activation:
    """Return the activation function of one layer; `default` if neither config nor tensors tell."""
    name = activation_name(config, file, threshold, default)
    if name == "topk":
        return TopK(top_k(config, file, d_transcoder))
    if name == "topk_relu":
        return RectifiedTopK(top_k(config, file, d_transcoder))
    if name == "relu":
        return ReLU()
    values = file.view(threshold).to(options.device, options.dtype, copy=True).flatten()
    # An infinite threshold is a way to switch a feature off; NaN is damage.
    if bool(values.isnan().any()):
        raise BadTranscoders(f"{file.path}: tensor {threshold!r} contains NaN")
    return JumpReLU(values)


def top_k(config: SetConfig, file: TensorFile, d_transcoder: int) -> int:
    """Return `k` from the config, else the file. Raises BadTranscoders if there is none, or they contradict each other."""
    k = config.k if config.k is not None else _stored_k(file)
    if not 1 <= k <= d_transcoder:
        raise BadTranscoders(f"{file.path}: k = {k} doesn't fit {d_transcoder} features")
    if "k" in file.tensors and not config.k_is_known and _stored_k(file) != k:
        raise BadTranscoders(f"{file.path} has k = {_stored_k(file)}, but config.yaml says k: {k}")
    return k


def _stored_k(file: TensorFile) -> int:
    if "k" not in file.tensors:
        raise BadTranscoders(
            f"activation is topk, but neither config.yaml nor {file.path} says k",
            hint="add k: NUMBER to config.yaml",
        )
    stored = file.tensors["k"]
    if stored.shape not in ((), (1,)) or stored.dtype is torch.bool:
        raise BadTranscoders(f"{file.path}: tensor 'k' isn't a single number")
    value = file.view("k").reshape(()).item()
    if value != int(value):
        raise BadTranscoders(f"{file.path}: tensor 'k' isn't a whole number")
    return int(value)


def listed_files(source: SetSource) -> dict[int, Path] | None:
    """Return the files that the config lists, by layer, relative ones in the set's folder; None if it lists none."""
    config = source.config
    if config.transcoders is None:
        return None
    remote = [reference for reference in config.transcoders if "://" in reference]
    if remote:
        raise BadTranscoders(
            f"{source.folder}/config.yaml lists {remote[0]}, but the config of a local folder can't list files elsewhere",
            hint="download the files and list them by their local names",
        )
    paths = [source.folder / Path(reference).expanduser() for reference in config.transcoders]
    return dict(zip(config.layers or range(len(paths)), paths, strict=True))


def layer_files(source: SetSource, suffix: str = ".safetensors", stem: str = "layer_") -> dict[int, Path]:
    """Return the files of a per-layer layout by layer: those that the config lists, else `{stem}{i}{suffix}`."""
    listed = listed_files(source)
    if listed is not None:
        return listed if all(path.suffix == suffix for path in listed.values()) else {}
    return dict(sorted(numbered_files(source.folder, stem, suffix).items()))


def require_distinct(paths: Collection[Path]) -> None:
    """Raise BadTranscoders if two names lead to one file."""
    seen: dict[tuple[int, int], Path] = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue  # opening it gives the reason
        place = status.st_dev, status.st_ino
        if place in seen:
            raise BadTranscoders(f"{seen[place]} and {path} are the same file, listed for two layers")
        seen[place] = path


def is_transposed(tensors: Mapping[str, StoredTensor], path: Path) -> bool:
    """True if `W_enc` is stored as `(d_model, feature)`. If the two are equal, a `cfg.json` next to the file decides."""
    if not {"W_enc", "W_dec"} <= tensors.keys():
        return False
    encoder, decoder = tensors["W_enc"].shape, tensors["W_dec"].shape
    if len(encoder) != 2 or encoder != decoder[::-1]:
        return False
    return encoder[0] < encoder[1] or (path.parent / "cfg.json").is_file()
