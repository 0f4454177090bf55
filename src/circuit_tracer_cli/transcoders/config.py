"""`config.yaml`, the description that lies beside the weights of a transcoder set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from circuit_tracer_cli.errors import BadTranscoders, MissingFile
from circuit_tracer_cli.transcoders.base import Kind

ActivationName = Literal["relu", "jumprelu", "topk", "topk_relu"]

_KINDS: dict[str, Kind] = {"transcoder_set": "plt", "cross_layer_transcoder": "clt"}
_ACTIVATIONS: dict[str, ActivationName] = {
    "relu": "relu",
    "jumprelu": "jumprelu",
    "jump_relu": "jumprelu",
    "topk": "topk",
    "topk_relu": "topk_relu",
}
# Sets whose published config states another k than the one they were trained with.
_TRAINED_K = {"facebook/crv-8b-instruct-transcoders": 128}
_L0_IN_NAME = re.compile(r"(?:^|[/_])(?:average_)?l0_(\d+(?:\.\d+)?)(?:[/_.]|$)")
_MAX_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class SetConfig:
    """What `config.yaml` says. `activation` and `k` are None where the weight files decide."""

    kind: Kind
    feature_input_hook: str
    feature_output_hook: str
    model_name: str | None = None
    scan: str | list[str] | None = None
    activation: ActivationName | None = None
    k: int | None = None
    transcoders: tuple[str, ...] | None = None  # one file reference per layer, where the config lists them
    notes: tuple[str, ...] = ()  # what the user should know about how it was read


def stated_l0(config: SetConfig) -> float | None:
    """Mean active features per layer and position that a set's files name, as GemmaScope's `average_l0_76` do."""
    found = [float(match[1]) for name in config.transcoders or () if (match := _L0_IN_NAME.search(name))]
    return sum(found) / len(found) if found else None


def read_config(folder: Path, default_scan: str, scan: str | None = None) -> SetConfig:
    """The config of the set in `folder`; `scan` overrules what it says. Raises MissingFile or BadTranscoders."""
    path = folder / "config.yaml"
    values = _read_yaml(path)
    return parse_config(values if scan is None else {**values, "scan": scan}, path, default_scan)


def parse_config(values: Mapping[str, Any], path: Path, default_scan: str) -> SetConfig:
    """The config from the mapping read at `path`; keys that aren't known are somebody else's."""
    kind = _required(values, "model_kind", path)
    if kind not in _KINDS:
        raise BadTranscoders(f"{path}: unknown model_kind {kind!r}", hint=f"known kinds: {', '.join(_KINDS)}")
    scan = _scan(values, path) or default_scan
    activation, k, notes = _activation(values, path, scan)
    return SetConfig(
        kind=_KINDS[kind],
        feature_input_hook=_required(values, "feature_input_hook", path),
        feature_output_hook=_required(values, "feature_output_hook", path),
        model_name=_text(values, "model_name", path),
        scan=scan,
        activation=activation,
        k=k,
        transcoders=_files(values, path),
        notes=notes,
    )


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadTranscoders(f"{path} is too large for a config file")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFile(
            f"there is no config.yaml in {path.parent}",
            hint="a transcoder folder needs one with model_kind, feature_input_hook and feature_output_hook",
        ) from None
    except OSError as error:
        raise MissingFile(f"{path} can't be read: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, BadTranscoders):
            raise
        raise BadTranscoders(f"{path} isn't valid YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(values, Mapping):
        raise BadTranscoders(f"{path} must hold keys and values, one a line")
    return values


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
        raise BadTranscoders(f"{path}: transcoders must be a list of files, one a layer")
    return tuple(files)


def _activation(
    values: Mapping[str, Any], path: Path, scan: str | list[str]
) -> tuple[ActivationName | None, int | None, tuple[str, ...]]:
    name = _text(values, "activation", path)
    if name is not None and name not in _ACTIVATIONS:
        raise BadTranscoders(f"{path}: unknown activation {name!r}", hint=f"known: {', '.join(_ACTIVATIONS)}")
    activation = None if name is None else _ACTIVATIONS[name]
    k = values.get("k")
    if k is not None and (type(k) is not int or k < 1):
        raise BadTranscoders(f"{path}: k must be a whole number above 0, not {k!r:.60}")
    trained = _TRAINED_K.get(scan) if isinstance(scan, str) and activation == "topk" else None
    if trained is not None and k != trained:
        return (
            activation,
            trained,
            (f"{scan} was trained with k = {trained}; its config's k = {k} is ignored",),
        )
    return activation, k, ()
