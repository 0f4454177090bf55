"""The `cfg.json` that SAELens and sparsify write next to the weights of each layer, read as the config of a set.

For sets without a `config.yaml`: each layer is a folder, and its `cfg.json` tells where it belongs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import BadTranscoders, MissingFile
from circuit_tracer_cli.transcoders.config import ActivationName, SetConfig, read_config
from circuit_tracer_cli.transcoders.settings import (
    COMPUTING,
    NO_SIZES,
    NONE,
    OFF,
    Sizes,
    Vocabulary,
    read_json,
    stated_sizes,
)

CONFIG_NAMES = ("cfg.json", "config.json")
WEIGHT_NAMES = ("sae_weights.safetensors", "sae.safetensors")
_ARCHITECTURES: dict[str, ActivationName] = {
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
_HOOK = re.compile(r"blocks\.(\d+)\.(.+)")
_MODULE = re.compile(r"(?:.*\.)?(\d+)\.(.+)")
_AUTOENCODERS = frozenset(
    {
        "batchtopk",
        "gated",
        "jumprelu",
        "matching_pursuit",
        "matryoshka_batchtopk",
        "standard",
        "temporal",
        "topk",
    }
)
"""SAELens architectures that reconstruct their own input."""

_SAELENS = Vocabulary(
    used=frozenset(
        {
            "architecture",
            "d_in",
            "d_out",
            "d_sae",
            "hook_layer",
            "hook_layer_out",
            "hook_name",
            "hook_name_out",
            "metadata",
            "model_from_pretrained_kwargs",
            "model_name",
        }
    ),
    harmless=frozenset(
        {
            "context_size",
            "dataset_path",
            "dataset_trust_remote_code",
            "device",
            "disable_concat_sequences",
            "dtype",
            "exclude_special_tokens",
            "hf_hook_name",
            "hf_hook_name_out",
            "model_class_name",
            "model_kwargs",
            "neuronpedia_id",
            "prepend_bos",
            "sae_lens_training_version",
            "sae_lens_version",
            "seqpos_slice",
            "sequence_separator_token",
            "training_tokens",
            "use_error_term",
        }
    ),
    switches={
        **COMPUTING,
        "activation_fn": (None, "relu"),
        "activation_fn_str": (None, "relu"),
        "k": (None,),
    },
)
_MODEL_KWARGS = Vocabulary(
    used=frozenset({"fold_ln"}),
    harmless=frozenset(
        {
            "center_unembed",
            "default_prepend_bos",
            "device",
            "dtype",
            "fold_value_biases",
            "n_devices",
            "torch_dtype",
        }
    ),
    switches={
        "center_writing_weights": OFF,
        "refactor_factored_attn_matrices": OFF,
        "checkpoint_index": (None,),
        "checkpoint_value": (None,),
    },
)
"""How the model was loaded for the training. `center_unembed` shifts all logits by one number."""

_SPARSIFY = Vocabulary(
    used=frozenset({"activation", "d_in", "d_out", "k", "num_latents", "skip_connection", "transcode"}),
    harmless=frozenset(
        {"expansion_factor", "gram_table_hash", "lookup_max_order", "multi_topk", "normalize_decoder"}
    ),
    switches={
        **COMPUTING,
        "coalesce_topk": NONE,
        "cross_layer": (None, False, 0),
        "post_encoder_scale": OFF,
        "topk_coalesced": OFF,
        "train_post_encoder": OFF,
    },
)
_GEMMA_SCOPE_2 = Vocabulary(
    used=frozenset({"architecture", "type", "width"}),
    harmless=frozenset(
        {
            "affine_connection",
            "hf_hook_point_in",
            "hf_hook_point_out",
            "l0",
            "l0_target",
            "model_name",
            "site",
        }
    ),
)


@dataclass(frozen=True, slots=True)
class _Layer:
    """The content of one `cfg.json`."""

    index: int
    weights: str  # relative to the set's folder
    feature_input_hook: str
    feature_output_hook: str
    model_name: str | None
    activation: ActivationName
    k: int | None = None
    sizes: Sizes = NO_SIZES
    skip: bool | None = None  # True if its file must have a skip connection, None if it may


def set_config(
    folder: Path, default_scan: str, *, scan: str | None = None, absent: MissingFile | None = None
) -> SetConfig:
    """Return the config of the set in `folder`: its `config.yaml`, else that of its layers.

    Raises MissingFile (`absent`, if given) if there is neither, and BadTranscoders for an invalid one.
    """
    if not (folder / "config.yaml").exists():
        derived = derived_config(folder, scan or default_scan)
        if derived is not None:
            return derived
        if absent is not None:
            raise absent
    return read_config(folder, default_scan, scan)


def check_beside(weights: Iterable[Path]) -> None:
    """Check the configurations that a trainer wrote next to weight files.

    The `config.yaml` decides hooks, activation and k; settings that it can't express must not be ignored. Raises
    BadTranscoders for one that changes the computation.
    """
    for folder in dict.fromkeys(path.parent for path in weights):
        for name in CONFIG_NAMES:
            path = folder / name
            if not path.is_file():
                continue
            values = read_json(path)
            if _is_sparsify(values):
                _check_sparsify(path, values)
            elif name == "cfg.json":
                _check_saelens(path, values)
            elif "hf_hook_point_in" in values:
                _GEMMA_SCOPE_2.require(values, str(path))
                _refuse_autoencoder(path, str(values.get("type", "transcoder")) == "sae")


def derived_config(folder: Path, scan: str) -> SetConfig | None:
    """Return the config of a set without a `config.yaml`; None if its subfolders have no `cfg.json`.

    Raises BadTranscoders if they contain something that can't be traced, or don't match.
    """
    paths = sorted(folder.glob("*/cfg.json"))
    if not paths:
        for path in sorted(folder.glob("*/config.json")):
            _refuse_dictionary(path, read_json(path))
        return None
    for weights in sorted(path for name in WEIGHT_NAMES for path in folder.glob(f"*/{name}")):
        if not (weights.parent / "cfg.json").is_file():
            raise BadTranscoders(
                f"{weights.parent} has no cfg.json, so it isn't known what {weights.name} computes"
            )
    run = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if isinstance(run.get("sae"), Mapping):
        _check_sparsify(folder / "config.json", {"transcode": True, **run["sae"]}, ", sae")
    layers = sorted((_layer(path, run) for path in paths), key=lambda layer: layer.index)
    first = layers[0]
    for before, layer in zip([None, *layers], layers, strict=False):
        if before is not None and before.index == layer.index:
            raise BadTranscoders(f"{folder} has layer {layer.index} twice")
        if _shared(layer) != _shared(first):
            raise BadTranscoders(
                f"{folder}: layers {layer.index} and {first.index} differ in hooks, activation, sizes or model"
            )
    indices = tuple(layer.index for layer in layers)
    return SetConfig(
        kind="plt",
        feature_input_hook=first.feature_input_hook,
        feature_output_hook=first.feature_output_hook,
        model_name=first.model_name,
        scan=scan,
        activation=first.activation,
        k=first.k,
        transcoders=tuple(layer.weights for layer in layers),
        layers=None if indices == tuple(range(len(indices))) else indices,
        sizes=first.sizes,
        skips=tuple(layer.skip for layer in layers),
    )


def _shared(layer: _Layer) -> tuple[object, ...]:
    hooks = layer.feature_input_hook, layer.feature_output_hook
    return (*hooks, layer.model_name, layer.activation, layer.k, layer.sizes)


def _layer(path: Path, run: Mapping[str, Any]) -> _Layer:
    values, name = read_json(path), path.parent.name
    if _is_sparsify(values):
        return _sparsify(path, values, run)
    facts = _check_saelens(path, values)
    read, written = (
        _HOOK.fullmatch(str(facts.get("hook_name"))),
        _HOOK.fullmatch(str(facts.get("hook_name_out"))),
    )
    if read is None or written is None or read[1] != written[1]:
        raise BadTranscoders(f"{path} doesn't name the hooks that the transcoder reads from and writes to")
    for key in ("hook_layer", "hook_layer_out"):
        if facts.get(key) not in (None, int(read[1])):
            raise BadTranscoders(f"{path}: {key} is {facts[key]!r}, but hook_name belongs to layer {read[1]}")
    model = facts.get("model_name")
    return _Layer(
        index=int(read[1]),
        weights=f"{name}/{WEIGHT_NAMES[0]}",
        feature_input_hook=_input_hook(path, read[2], facts),
        feature_output_hook=written[2],
        model_name=model if isinstance(model, str) else None,
        activation=_ARCHITECTURES[str(facts["architecture"])],
        sizes=stated_sizes(facts, str(path)),
        skip=None if "skip" in str(facts["architecture"]) else False,
    )


def _input_hook(path: Path, hook: str, facts: Mapping[str, Any]) -> str:
    """Return what a SAELens hook means here. Raises BadTranscoders if the file leaves that open.

    `hook_mlp_in` is the residual stream before the norm in a HookedTransformer, and the input of the MLP in a
    TransformerBridge, the only way in which SAELens runs Gemma 3.
    """
    kwargs = facts.get("model_from_pretrained_kwargs") or {}
    if kwargs.get("fold_ln") and hook in {"mlp.hook_in", "ln2.hook_out"}:
        raise BadTranscoders(
            f"{path} was trained with fold_ln, where {hook} is before the norm's gain",
            hint="add a config.yaml with feature_input_hook: ln2.hook_normalized",
        )
    if hook != "hook_mlp_in":
        return hook
    model = str(facts.get("model_name"))
    if "gemma-3" in model.lower() or facts.get("model_class_name") == "TransformerBridge":
        return "mlp.hook_in"
    raise BadTranscoders(
        f"{path}: hook_mlp_in is the residual stream before the norm in some versions of TransformerLens and the "
        "input of the MLP in others",
        hint="add a config.yaml with feature_input_hook: hook_resid_mid or mlp.hook_in",
    )


def _check_saelens(path: Path, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of a SAELens transcoder, including metadata. Raises BadTranscoders for one that would be ignored."""
    architecture = values.get("architecture")
    _refuse_autoencoder(path, architecture in _AUTOENCODERS)
    if architecture not in _ARCHITECTURES:
        raise BadTranscoders(
            f"{path} describes {architecture!r}, which is not a transcoder",
            hint=f"transcoders are {', '.join(sorted(_ARCHITECTURES))}",
        )
    facts = dict(values)
    metadata = values.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise BadTranscoders(f"{path}: metadata must be a mapping of keys and values")
    for key, value in (metadata or {}).items():
        if key in values and values[key] != value:
            raise BadTranscoders(f"{path}: {key} is {values[key]!r:.60}, but {value!r:.60} in metadata")
        facts[key] = value
    _SAELENS.require(facts, str(path))
    kwargs = facts.get("model_from_pretrained_kwargs") or {}
    if not isinstance(kwargs, Mapping):
        raise BadTranscoders(f"{path}: model_from_pretrained_kwargs must be a mapping of keys and values")
    _MODEL_KWARGS.require(kwargs, f"{path}, model_from_pretrained_kwargs")
    return facts


def _is_sparsify(values: Mapping[str, Any]) -> bool:
    return "num_latents" in values or ("expansion_factor" in values and "sae_type" not in values)


def _check_sparsify(path: Path, values: Mapping[str, Any], inside: str = "") -> None:
    """Raise BadTranscoders for a sparsify coder that isn't a transcoder, or a setting that would be ignored."""
    _refuse_autoencoder(path, not values.get("transcode"))
    _SPARSIFY.require(values, f"{path}{inside}")
    if values.get("activation", "topk") != "topk":
        raise BadTranscoders(
            f"{path}: only the activation topk is supported, not {values['activation']!r:.60}"
        )


def _refuse_autoencoder(path: Path, found: bool) -> None:
    if found:
        raise BadTranscoders(
            f"{path} describes a sparse autoencoder (SAE), not a transcoder",
            hint="an SAE reconstructs its own input; a graph needs transcoders, which predict an MLP's output",
        )


def _refuse_dictionary(path: Path, values: Mapping[str, Any]) -> None:
    """Raise BadTranscoders for a dictionary of Language-Model-SAEs, naming its kind."""
    kind = values.get("sae_type")
    if kind == "lorsa":
        raise BadTranscoders(
            f"{path} describes a Lorsa, a dictionary for an attention layer; only transcoders of MLPs are supported",
            hint="use the folder of the set's transcoders instead",
        )
    _refuse_autoencoder(
        path, kind is not None and values.get("hook_point_in") == values.get("hook_point_out")
    )
    if kind is not None:
        raise BadTranscoders(
            f"{path} describes a {kind!r:.40} of Language-Model-SAEs, which isn't supported yet",
            hint="save it in the standard layout: layer_{i}.safetensors and config.yaml (docs/transcoder-sets.md)",
        )


def _sparsify(path: Path, values: Mapping[str, Any], run: Mapping[str, Any]) -> _Layer:
    name = path.parent.name
    module = _MODULE.fullmatch(name)
    _check_sparsify(path, values)
    if module is None or module[2] != "mlp":
        raise BadTranscoders(f"{path} belongs to the module {name}; only transcoders of an MLP can be traced")
    if type(values.get("k")) is not int or values["k"] < 1:
        raise BadTranscoders(f"{path}: k must be a whole number greater than 0")
    model = run.get("model")
    return _Layer(
        index=int(module[1]),
        weights=f"{name}/{WEIGHT_NAMES[1]}",
        feature_input_hook="mlp.hook_in",
        feature_output_hook="mlp.hook_out",
        model_name=model if isinstance(model, str) else None,
        activation="topk_relu",
        k=values["k"],
        sizes=stated_sizes(values, str(path)),
        skip=values.get("skip_connection"),
    )
