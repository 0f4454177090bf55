"""Reads the sizes of a trace from configurations and file headers. Reads no weights."""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path
from typing import Any, Literal

from circuit_tracer_cli.errors import InvalidValue, UsageError
from circuit_tracer_cli.planning.sizes import DEFAULT_TOKENS, TraceSizes, of_model, usual_l0

_HEADER_LIMIT = 100_000_000
_L0_IN_NAME = re.compile(r"(?:average_)?l0_(\d+(?:\.\d+)?)")


def trace_sizes(
    transcoder_set: str,
    model_folder: str | Path | None,
    *,
    n_pos: int | None,
    dtype: str = "float32",
    max_feature_nodes: int = 7500,
    n_targets: int = 10,
    active_per_position: float | None = None,
) -> TraceSizes:
    """The sizes of a trace.

    Args:
        transcoder_set: Reference of the set.
        model_folder: Local folder of the model, or a model of the hub whose configuration is fetched.
        n_pos: Tokens of the prompt; None for a usual number.
        dtype: `float32`, `bfloat16` or `float16`.
        max_feature_nodes: 0 for all.
        n_targets: Logits to explain.
        active_per_position: Active features per position and layer; None for what the set's name says, else a usual value.

    Raises:
        CircuitTracerError: What inspecting the set or reading the configuration raises.
        ModelMismatch: They don't belong together.
        InvalidValue: The prompt is longer than the model takes.
    """
    from circuit_tracer_cli.backends.families import family_for
    from circuit_tracer_cli.backends.model_config import check_agreement, model_shape
    from circuit_tracer_cli.transcoders.loading import inspect_transcoders

    described = inspect_transcoders(transcoder_set)
    config = model_config(model_folder)
    shape, set_shape = model_shape(config), described.shape
    check_agreement(shape, set_shape, str(model_folder))
    set_shape = set_shape.covering(shape.n_layers)
    if n_pos is not None and n_pos > shape.n_ctx:
        raise InvalidValue(
            f"a prompt has {n_pos} tokens, the model takes at most {shape.n_ctx}",
            hint=f"--tokens {shape.n_ctx}",
        )
    width: int = 4 if dtype == "float32" else 2
    stored = set_shape.stored_dtype.itemsize
    kind: Literal["plt", "clt"] = set_shape.kind
    return TraceSizes(
        **of_model(shape),
        kind=kind,
        d_transcoder=set_shape.d_transcoder,
        n_pos=min(DEFAULT_TOKENS, shape.n_ctx) if n_pos is None else n_pos,
        n_targets=n_targets,
        max_feature_nodes=max_feature_nodes,
        active_per_position=active_per_position
        or _l0_of(transcoder_set, described.folder, set_shape.d_transcoder),
        model_params=parameters(model_folder, config),
        dtype_bytes=width,
        encoder_bytes=sum(set_shape.encoder_bytes) * width // stored,
        decoder_bytes=sum(set_shape.decoder_bytes) * width // stored,
        skip_layers=len(set_shape.skip_layers),
        closed_form=family_for(config).closed_form,
    )


def _l0_of(reference: str, folder: Path, d_transcoder: int) -> float:
    """The mean number of active features that a published set's own path names, else the usual one of a set of its width."""
    names = [reference, *(path.name for path in sorted(folder.glob("*/*/*")) if path.is_dir())]
    found = [float(match[1]) for name in names if (match := _L0_IN_NAME.search(name))]
    return sum(found) / len(found) if found else usual_l0(d_transcoder)


def model_config(model: str | Path | None) -> dict[str, Any]:
    """The configuration of a folder, or of a model on the hub. Raises UsageError for none at all."""
    from circuit_tracer_cli.backends.model_config import read_config

    if model is None:
        raise UsageError("the transcoder set names no model", hint="name one with --model")
    if Path(model).is_dir():
        return text_part(read_config(Path(model)))
    from transformers import AutoConfig

    from circuit_tracer_cli.errors import BadModel

    try:
        return text_part(AutoConfig.from_pretrained(str(model)).to_dict())
    except (OSError, ValueError) as error:
        raise BadModel(
            f"the configuration of {model} can't be read: {str(error).splitlines()[0]}",
            hint="check the name, or give a local folder with --model",
        ) from None


def text_part(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's part of a multimodal configuration."""
    text = config.get("text_config")
    return {**text, "architectures": config.get("architectures")} if isinstance(text, dict) else config


def parameters(model: str | Path | None, config: dict[str, Any]) -> int:
    """Parameters of the model: counted in the headers of its files where they are here, else from its sizes."""
    if model is not None and Path(model).is_dir():
        counted = sum(_elements(path) for path in Path(model).glob("*.safetensors"))
        if counted:
            return counted
    return from_sizes(config)


def _elements(path: Path) -> int:
    """Elements of all tensors in a safetensors file; 0 for one that has no readable header."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _HEADER_LIMIT:
                return 0
            header = json.loads(stream.read(length))
        return sum(math.prod(value["shape"]) for name, value in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return 0


def from_sizes(config: dict[str, Any]) -> int:
    """Parameters of a decoder of these sizes."""
    from circuit_tracer_cli.backends.model_config import model_shape

    shape = model_shape(config)
    matrices = 3 if shape.layout.gated else 2
    experts = int(config.get("num_local_experts") or config.get("num_experts") or 1)
    mlp = matrices * shape.d_model * shape.d_mlp * experts
    attention = 2 * shape.d_model * shape.d_head * (shape.n_heads + shape.n_kv_heads)
    embeddings = shape.d_vocab * shape.d_model * (1 if config.get("tie_word_embeddings", True) else 2)
    return shape.n_layers * (mlp + attention) + embeddings
