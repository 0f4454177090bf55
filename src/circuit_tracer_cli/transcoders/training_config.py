"""What SAELens and sparsify write beside the weights of each layer (`cfg.json`), read as the config of a whole set.

For sets that nobody has written a `config.yaml` for: each layer is a folder, and its `cfg.json` says where it belongs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import BadTranscoders, MissingFile
from circuit_tracer_cli.transcoders.config import ActivationName, SetConfig, read_config

CONFIG_NAMES = ("cfg.json", "config.json")
WEIGHT_NAMES = ("sae_weights.safetensors", "sae.safetensors")
_MAX_BYTES = 2**20
_TRANSCODERS = {"transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"}
_HOOK = re.compile(r"blocks\.(\d+)\.(.+)")
_MODULE = re.compile(r"(?:.*\.)?(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one `cfg.json` says."""

    index: int
    weights: str  # relative to the set's folder
    feature_input_hook: str
    feature_output_hook: str
    model_name: str | None
    activation: ActivationName | None = None
    k: int | None = None


def set_config(
    folder: Path, default_scan: str, *, scan: str | None = None, absent: MissingFile | None = None
) -> SetConfig:
    """The config of the set in `folder`: its `config.yaml`, else what its layers say.

    Raises MissingFile (`absent`, if given) where there is neither, and BadTranscoders for one that is wrong.
    """
    if not (folder / "config.yaml").exists():
        derived = derived_config(folder, scan or default_scan)
        if derived is not None:
            return derived
        if absent is not None:
            raise absent
    return read_config(folder, default_scan, scan)


def derived_config(folder: Path, scan: str) -> SetConfig | None:
    """The config of a set without a `config.yaml`; None if its subfolders hold no `cfg.json`.

    Raises BadTranscoders if they hold something that can't be traced, or don't agree.
    """
    paths = sorted(folder.glob("*/cfg.json"))
    if not paths:
        return None
    run = _read(folder / "config.json") if (folder / "config.json").is_file() else {}
    layers = sorted((_layer(path, run) for path in paths), key=lambda layer: layer.index)
    for index, layer in enumerate(layers):
        if layer.index != index:
            what = "twice" if layer.index < index else "not"
            raise BadTranscoders(f"{folder} holds layer {min(index, layer.index)} {what}")
    first = layers[0]
    for layer in layers:
        if _shared(layer) != _shared(first):
            raise BadTranscoders(
                f"{folder}: layer {layer.index} has other hooks, activation or model than layer 0"
            )
    return SetConfig(
        kind="plt",
        feature_input_hook=first.feature_input_hook,
        feature_output_hook=first.feature_output_hook,
        model_name=first.model_name,
        scan=scan,
        activation=first.activation,
        k=first.k,
        transcoders=tuple(layer.weights for layer in layers),
    )


def _shared(layer: _Layer) -> tuple[object, ...]:
    return layer.feature_input_hook, layer.feature_output_hook, layer.model_name, layer.activation, layer.k


def _layer(path: Path, run: Mapping[str, Any]) -> _Layer:
    values, name = _read(path), path.parent.name
    if "num_latents" in values or "expansion_factor" in values:
        return _sparsify(path, values, run)
    if values.get("architecture") not in _TRANSCODERS:
        raise BadTranscoders(
            f"{path} describes {values.get('architecture')!r}, which is no transcoder",
            hint=f"transcoders are {', '.join(sorted(_TRANSCODERS))}",
        )
    facts = {**values, **(values["metadata"] if isinstance(values.get("metadata"), Mapping) else {})}
    if facts.get("apply_b_dec_to_input") or facts.get("normalize_activations") not in {None, "none"}:
        raise BadTranscoders(f"{path}: a transcoder that normalises its input can't be traced")
    read = _HOOK.fullmatch(str(facts.get("hook_name")))
    written = _HOOK.fullmatch(str(facts.get("hook_name_out")))
    if read is None or written is None or read[1] != written[1]:
        raise BadTranscoders(
            f"{path} doesn't say at which hooks of one block the transcoder reads and writes"
        )
    model = facts.get("model_name")
    weights = f"{name}/{WEIGHT_NAMES[0]}"
    return _Layer(int(read[1]), weights, read[2], written[2], model if isinstance(model, str) else None)


def _sparsify(path: Path, values: Mapping[str, Any], run: Mapping[str, Any]) -> _Layer:
    name = path.parent.name
    module = _MODULE.fullmatch(name)
    if not values.get("transcode"):
        raise BadTranscoders(f"{path} describes a sparse autoencoder, which is no transcoder")
    if module is None or module[2] != "mlp":
        raise BadTranscoders(f"{path} belongs to the module {name}; only transcoders of an mlp can be traced")
    if values.get("activation", "topk") != "topk" or type(values.get("k")) is not int:
        raise BadTranscoders(f"{path}: only the activation topk with a whole k is known")
    model = run.get("model")
    return _Layer(
        index=int(module[1]),
        weights=f"{name}/{WEIGHT_NAMES[1]}",
        feature_input_hook="mlp.hook_in",
        feature_output_hook="mlp.hook_out",
        model_name=model if isinstance(model, str) else None,
        activation="topk_relu",
        k=values["k"],
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadTranscoders(f"{path} is too large for a config file")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadTranscoders):
            raise
        raise BadTranscoders(f"{path} isn't valid JSON") from None
    if not isinstance(values, Mapping):
        raise BadTranscoders(f"{path} must hold keys and values")
    return values
