"""Facts from a model's `config.json`, before weights are read. Imports neither torch nor transformers at the top."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from circuit_tracer_cli.backends.families import architecture_of, class_name, flat
from circuit_tracer_cli.errors import BadModel, ModelMismatch, UnsupportedArchitecture
from circuit_tracer_cli.types import UnifiedConfig

if TYPE_CHECKING:
    from circuit_tracer_cli.backends.base import ModelShape


class HasSizes(Protocol):
    """The sizes that model and transcoders must share."""

    @property
    def n_layers(self) -> int:
        """Layers."""

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""


_ALIASES = {
    "n_layers": ("num_hidden_layers", "n_layer"),
    "d_model": ("hidden_size", "n_embd"),
    "n_heads": ("num_attention_heads", "n_head"),
    "d_mlp": ("intermediate_size", "n_inner"),
    "d_vocab": ("vocab_size",),
    "n_ctx": ("max_position_embeddings", "n_positions", "n_ctx"),
}


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a local model folder. Raises BadModel if there is none or it isn't a JSON object."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadModel(
            f"{folder} has no config.json", hint="use a Hugging Face model folder or a model on the hub"
        ) from None
    except RecursionError:
        raise BadModel(f"{path} is nested too deeply to be a configuration") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise BadModel(f"{path} can't be read: {error}") from error
    if not isinstance(config, dict):
        raise BadModel(f"{path} is not a JSON object")
    return config


def fact(config: Mapping[str, Any], name: str) -> int:
    """One size, by its TransformerLens name. Raises UnsupportedArchitecture if no known field has it."""
    config = flat(config)
    for alias in _ALIASES[name]:
        value = config.get(alias)
        if isinstance(value, int) and not isinstance(value, bool):
            if value < 1:
                raise UnsupportedArchitecture(f"{alias} is {value} in the model's config.json")
            return max(value, _scaled_context(config, value)) if name == "n_ctx" else value
    if name == "d_mlp":
        return 4 * fact(config, "d_model")
    raise UnsupportedArchitecture(f"the model's config.json doesn't say {' or '.join(_ALIASES[name])}")


def _scaled_context(config: Mapping[str, Any], longest: int) -> int:
    """Number of positions that the rotary scaling is made for, if stated; `longest` is `max_position_embeddings`.

    YaRN and similar scalings state the training length and a factor; dynamic scaling stretches `max_position_embeddings`.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    factor = rope.get("factor") if isinstance(rope, Mapping) else None
    if not isinstance(rope, Mapping) or not isinstance(factor, (int, float)):
        return longest
    kind, trained = rope.get("rope_type", rope.get("type")), rope.get("original_max_position_embeddings")
    if kind in ("yarn", "longrope", "llama3") and isinstance(trained, int):
        return int(trained * factor)
    return int(longest * factor) if kind == "dynamic" else longest


def rope_switch(config: Mapping[str, Any]) -> int | None:
    """The length above which a model rotates all keys by other factors (longrope); None for other models."""
    config = flat(config)
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(rope, Mapping) or rope.get("rope_type", rope.get("type")) not in ("longrope", "su"):
        return None
    trained = rope.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
    return trained if isinstance(trained, int) else None


def model_shape(config: Mapping[str, Any]) -> ModelShape:
    """Sizes of a model from its configuration."""
    from circuit_tracer_cli.backends.base import ModelShape

    layout, config = architecture_of(config).layout, flat(config)
    d_model, n_heads = fact(config, "d_model"), fact(config, "n_heads")
    for name in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"):
        eps = config.get(name, 1.0)
        if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not 0 <= eps < 1e3:
            raise UnsupportedArchitecture(f"{name} is {eps!r} in the model's config.json, not a small number")
    for name in ("num_key_value_heads", "head_dim"):
        size = config.get(name)
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise UnsupportedArchitecture(
                f"{name} is {size!r} in the model's config.json, not a number of 1 or more"
            )
    softcap = config.get("final_logit_softcapping")
    return ModelShape(
        n_layers=fact(config, "n_layers"),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=int(config.get("num_key_value_heads") or n_heads),
        d_head=int(config.get("head_dim") or d_model // n_heads),
        d_mlp=fact(config, "d_mlp"),
        d_vocab=fact(config, "d_vocab"),
        n_ctx=fact(config, "n_ctx"),
        parallel=layout.is_parallel(config),
        layout=layout,
        rope_switch=rope_switch(config),
        softcap=None if softcap is None else float(softcap),
    )


class SetSizes(HasSizes, Protocol):
    """Sizes and kind of a transcoder set."""

    @property
    def kind(self) -> Literal["plt", "clt"]:
        """Per-layer sets can leave out layers of the model; features of cross-layer sets write to all later layers."""


def check_agreement(ours: HasSizes, theirs: SetSizes, model: str) -> None:
    """Raise ModelMismatch if a model and a transcoder set don't match.

    Args:
        ours: Sizes of the model.
        theirs: Sizes that the transcoders were made for.
        model: Its name or folder.
    """
    for what in ("n_layers", "d_model"):
        has, needed = getattr(ours, what), getattr(theirs, what)
        if what == "n_layers" and theirs.kind == "plt" and needed < has:
            continue
        if has != needed:
            raise ModelMismatch(
                f"the model has {what} {has}, but the transcoders were made for {what} {needed}",
                hint=f"the model is {model}; name the transcoders' own with --model",
            )


def unified_config(config: Mapping[str, Any], name: str, dtype: str) -> UnifiedConfig:
    """The record stored in graphs (names as in TransformerLens)."""
    shape = model_shape(config)
    return UnifiedConfig(
        n_layers=shape.n_layers,
        d_model=shape.d_model,
        d_head=shape.d_head,
        n_heads=shape.n_heads,
        d_mlp=shape.d_mlp,
        d_vocab=shape.d_vocab,
        tokenizer_name=name,
        model_name=name,
        original_architecture=class_name(config),
        n_key_value_heads=shape.n_kv_heads,
        dtype=dtype,
    )
