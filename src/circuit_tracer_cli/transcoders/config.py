"""`config.yaml`, the description next to the weights of a transcoder set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from circuit_tracer_cli.errors import BadTranscoders, MissingFile
from circuit_tracer_cli.transcoders.base import Kind
from circuit_tracer_cli.transcoders.settings import (
    NO_SIZES,
    SIZE_KEYS,
    Sizes,
    Vocabulary,
    read_yaml,
    stated_sizes,
)

ActivationName = Literal["relu", "jumprelu", "topk", "topk_relu", "cross_layer_topk"]

_KINDS: dict[str, Kind] = {"transcoder_set": "plt", "cross_layer_transcoder": "clt"}
_ACTIVATIONS: dict[str, ActivationName] = {
    "relu": "relu",
    "jumprelu": "jumprelu",
    "jump_relu": "jumprelu",
    "topk": "topk",
    "topk_relu": "topk_relu",
    "cross_layer_topk": "cross_layer_topk",
}
# Sets whose published config states a k other than the one used in training.
_TRAINED_K = {"facebook/crv-8b-instruct-transcoders": 128}
_LAYER_IN_NAME = re.compile(r"(?:^|[/_.])(?:layers?|blocks)[._](\d+)(?=[/_.]|$)")
_L0_IN_NAME = re.compile(r"(?:^|[/_])(?:average_)?l0_(\d+(?:\.\d+)?)(?:[/_.]|$)")
KEYS = Vocabulary(
    used=frozenset(
        {
            "activation",
            "feature_input_hook",
            "feature_output_hook",
            "k",
            "layers",
            "ln2_hook_normalized",
            "model_kind",
            "model_name",
            "scan",
            "transcoders",
            *SIZE_KEYS,
        }
    ),
    harmless=frozenset(
        {
            "author",
            "authors",
            "citation",
            "comment",
            "created",
            "dataset",
            "dataset_path",
            "date",
            "description",
            "device",
            "dtype",
            "license",
            "name",
            "neuronpedia_id",
            "notes",
            "repo_id",
            "revision",
            "subfolder",
            "tags",
            "version",
        }
    ),
)
"""The keys of `config.yaml`. Changing this list changes which sets load: docs/transcoder-sets.md explains each key."""

_NORMALIZED = {"scaled": "ln2.hook_normalized", "affine": "ln2.hook_out"}


@dataclass(frozen=True, slots=True)
class SetConfig:
    """The content of `config.yaml`. `activation` and `k` are None if the weight files decide.

    `layers` are the model's layers that the listed files belong to, None for `0, 1, …`. `normalized` is how
    to read `ln2.hook_normalized` in a model with LayerNorm: `scaled` for `(x - mean) / scale`, `affine` for that
    times the gain plus the bias; None if unknown.
    """

    kind: Kind
    feature_input_hook: str
    feature_output_hook: str
    model_name: str | None = None
    scan: str | list[str] | None = None
    activation: ActivationName | None = None
    k: int | None = None
    transcoders: tuple[str, ...] | None = None  # one file reference per layer, if the config lists them
    notes: tuple[str, ...] = ()  # notes for the user on how it was read
    layers: tuple[int, ...] | None = None
    sizes: Sizes = NO_SIZES
    normalized: Literal["scaled", "affine"] | None = None
    skips: tuple[
        bool | None, ...
    ] = ()  # for each listed file: True if it must have a skip connection, None if it may

    @property
    def k_is_known(self) -> bool:
        """True if `k` is known from the set's training and overrides its files."""
        return isinstance(self.scan, str) and _TRAINED_K.get(self.scan) == self.k


def stated_l0(config: SetConfig) -> float | None:
    """Mean active features per layer and position according to the names of a set's files, as in GemmaScope's `average_l0_76`."""
    found = [float(match[1]) for name in config.transcoders or () if (match := _L0_IN_NAME.search(name))]
    return sum(found) / len(found) if found else None


def read_config(folder: Path, default_scan: str, scan: str | None = None) -> SetConfig:
    """Return the config of the set in `folder`; `scan` overrides its own. Raises MissingFile or BadTranscoders."""
    path = folder / "config.yaml"
    if not path.exists():
        raise MissingFile(
            f"there is no config.yaml in {folder}",
            hint="a transcoder folder needs one with model_kind, feature_input_hook and feature_output_hook",
        )
    values = read_yaml(path)
    return parse_config(values if scan is None else {**values, "scan": scan}, path, default_scan)


def parse_config(values: Mapping[str, Any], path: Path, default_scan: str) -> SetConfig:
    """Return the config from the mapping read at `path`. Raises BadTranscoders for a key that would be ignored."""
    kind = _required(values, "model_kind", path)
    if kind not in _KINDS:
        raise BadTranscoders(f"{path}: unknown model_kind {kind!r}", hint=f"known kinds: {', '.join(_KINDS)}")
    KEYS.require(values, str(path))
    scan = _scan(values, path) or default_scan
    activation, k, notes = _activation(values, path, scan)
    files, layers = _files(values, path), _layers(values, path)
    if layers is not None and (files is None or len(files) != len(layers)):
        raise BadTranscoders(f"{path}: layers must name one layer for each file in transcoders")
    hook, normalized, said = _input_hook(values, path)
    return SetConfig(
        kind=_KINDS[kind],
        feature_input_hook=hook,
        feature_output_hook=_required(values, "feature_output_hook", path),
        model_name=_text(values, "model_name", path),
        scan=scan,
        activation=activation,
        k=k,
        transcoders=files,
        notes=notes + said + _order_notes(files, layers, path),
        layers=layers,
        sizes=stated_sizes(values, str(path)),
        normalized=normalized,
    )


def _input_hook(
    values: Mapping[str, Any], path: Path
) -> tuple[str, Literal["scaled", "affine"] | None, tuple[str, ...]]:
    """Return the hook that features read from, the meaning of `ln2.hook_normalized` if given, and notes."""
    hook, meaning = _required(values, "feature_input_hook", path), values.get("ln2_hook_normalized")
    if meaning is None:
        return hook, None, ()
    if meaning not in _NORMALIZED:
        raise BadTranscoders(f"{path}: ln2_hook_normalized must be scaled or affine, not {meaning!r:.60}")
    if hook != "ln2.hook_normalized":
        raise BadTranscoders(f"{path} sets ln2_hook_normalized, but feature_input_hook is {hook}")
    said = f"ln2.hook_normalized is read as {meaning}, as set in config.yaml"
    return _NORMALIZED[meaning], meaning, (said,) if meaning == "affine" else ()


def _required(values: Mapping[str, Any], key: str, path: Path) -> str:
    value = _text(values, key, path)
    if value is None:
        raise BadTranscoders(f"{path} lacks {key}")
    return value


def _text(values: Mapping[str, Any], key: str, path: Path) -> str | None:
    value = values.get(key)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise BadTranscoders(f"{path}: {key} must be text, not {value!r:.60}")
    return value


def _strings(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(item, str) for item in value)


def _scan(values: Mapping[str, Any], path: Path) -> str | list[str] | None:
    scan = values.get("scan")
    if scan is None or isinstance(scan, str):
        return scan or None
    if not _strings(scan):
        raise BadTranscoders(f"{path}: scan must be text or a list of texts, not {scan!r:.60}")
    return list(scan)


def _files(values: Mapping[str, Any], path: Path) -> tuple[str, ...] | None:
    files = values.get("transcoders")
    if files is None:
        return None
    if not _strings(files):
        raise BadTranscoders(f"{path}: transcoders must be a list of files, one for each layer")
    repeated = next((name for index, name in enumerate(files) if name in files[:index]), None)
    if repeated is not None:
        first, second = [index for index, name in enumerate(files) if name == repeated][:2]
        raise BadTranscoders(
            f"{path} lists {repeated} for two layers, entries {first} and {second} of transcoders"
        )
    return tuple(files)


def _layers(values: Mapping[str, Any], path: Path) -> tuple[int, ...] | None:
    layers = values.get("layers")
    if layers is None:
        return None
    if (
        not isinstance(layers, list)
        or not layers
        or not all(type(n) is int and 0 <= n < 10**4 for n in layers)
    ):
        raise BadTranscoders(f"{path}: layers must be a list of layer numbers")
    if sorted(set(layers)) != layers:
        raise BadTranscoders(f"{path}: layers must be ascending and distinct")
    return tuple(layers)


def _order_notes(
    files: tuple[str, ...] | None, layers: tuple[int, ...] | None, path: Path
) -> tuple[str, ...]:
    """Return a note if the files' names suggest other layers than those that they are listed for."""
    named = [match and int(match[1]) for match in map(_LAYER_IN_NAME.search, files or ())]
    meant = list(layers) if layers is not None else list(range(len(named)))
    wrong = [
        index
        for index, (name, layer) in enumerate(zip(named, meant, strict=True))
        if name not in (None, layer)
    ]
    if not wrong or files is None:
        return ()
    said = f"{path} lists {files[wrong[0]]} for layer {meant[wrong[0]]}: the order in transcoders counts, not the name"
    return (said,)


def _activation(
    values: Mapping[str, Any], path: Path, scan: str | list[str]
) -> tuple[ActivationName | None, int | None, tuple[str, ...]]:
    name = _text(values, "activation", path)
    if name is not None and name not in _ACTIVATIONS:
        raise BadTranscoders(f"{path}: unknown activation {name!r}", hint=f"known: {', '.join(_ACTIVATIONS)}")
    activation = None if name is None else _ACTIVATIONS[name]
    k = values.get("k")
    if k is not None and (type(k) is not int or k < 1):
        raise BadTranscoders(f"{path}: k must be a whole number greater than 0, not {k!r:.60}")
    if k is not None and activation in {"relu", "jumprelu"}:
        raise BadTranscoders(
            f"{path} sets k: {k}, which activation: {name} doesn't use",
            hint="set activation: topk (or topk_relu) if the set keeps the k largest features, else remove k",
        )
    trained = _TRAINED_K.get(scan) if isinstance(scan, str) and activation == "topk" else None
    if trained is not None and k != trained:
        return (
            activation,
            trained,
            (f"{scan} was trained with k = {trained}; its config's k = {k} is ignored",),
        )
    return activation, k, ()
