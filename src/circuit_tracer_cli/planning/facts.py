"""The sizes of a trace, from the configurations and headers of model and transcoder set. Reads no weights."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from circuit_tracer_cli.planning.sizes import DEFAULT_TOKENS, TraceSizes, usual_l0

if TYPE_CHECKING:
    from circuit_tracer_cli.backends.base import ModelShape
    from circuit_tracer_cli.transcoders.config import SetConfig
    from circuit_tracer_cli.transcoders.loading import InspectedTranscoders

_HEADER_LIMIT = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupSizes:
    """What a model and a transcoder set contribute to the sizes of every trace on them. Weights are counted in elements."""

    shape: ModelShape
    model_elements: int
    closed_form: bool
    kind: Literal["plt", "clt"]
    d_transcoder: int
    encoder_elements: int
    decoder_elements: int
    skip_layers: int
    active_per_position: float | None = None  # None if neither name nor settings of the set tell
    active_said_by: str | None = None  # the part of the set that tells
    stored_bytes: int = 0  # of the widest number in the model's files; 0 if they aren't local


def trace_sizes(
    setup: SetupSizes,
    *,
    dtype_bytes: int,
    n_pos: int | None = None,
    n_targets: int = 10,
    max_feature_nodes: int = 7500,
    active_per_position: float | None = None,
    precision: str = "float32",
) -> TraceSizes:
    """Return the sizes of a trace.

    Args:
        setup: Model and set.
        dtype_bytes: Bytes per element of the loaded weights.
        n_pos: Number of tokens of the prompt; None for a typical number.
        n_targets: Number of logits to explain.
        max_feature_nodes: 0 for all.
        active_per_position: Active features per position and layer; None for the set's own value, else a typical one.
        precision: Of the engine's products.
    """
    shape = setup.shape
    return TraceSizes(
        n_layers=shape.n_layers,
        d_model=shape.d_model,
        n_heads=shape.n_heads,
        n_kv_heads=shape.n_kv_heads,
        d_head=shape.d_head,
        d_mlp=shape.d_mlp,
        d_vocab=shape.d_vocab,
        kind=setup.kind,
        d_transcoder=setup.d_transcoder,
        n_pos=min(DEFAULT_TOKENS, shape.n_ctx) if n_pos is None else n_pos,
        n_targets=n_targets,
        max_feature_nodes=max_feature_nodes,
        active_per_position=active_per_position or setup.active_per_position or usual_l0(setup.d_transcoder),
        model_params=setup.model_elements,
        dtype_bytes=dtype_bytes,
        stored_bytes=setup.stored_bytes,
        encoder_bytes=setup.encoder_elements * dtype_bytes,
        decoder_bytes=setup.decoder_elements * dtype_bytes,
        skip_layers=setup.skip_layers,
        closed_form=setup.closed_form,
        stored_in_16_bits=precision == "bf16",
    )


def sizes_of_files(
    described: InspectedTranscoders, config: Mapping[str, Any], folder: Path | None
) -> SetupSizes:
    """Return the sizes of a model and a set that aren't loaded.

    Args:
        described: The set, as described by its files.
        config: The model's configuration.
        folder: The model's folder, if it has one.

    Raises:
        UnsupportedArchitecture: The model's family isn't known.
    """
    from circuit_tracer_cli.backends.families import family_for
    from circuit_tracer_cli.backends.model_config import model_shape

    shape = model_shape(config)
    of_set = described.shape.covering(shape.n_layers)
    kind: Literal["plt", "clt"] = of_set.kind
    active, said_by = active_by_the_set(described.config, described.shape.n_layers)
    return SetupSizes(
        shape=shape,
        model_elements=parameters(folder, config),
        closed_form=family_for(config).closed_form,
        kind=kind,
        d_transcoder=of_set.d_transcoder,
        encoder_elements=sum(of_set.encoder_bytes) // of_set.stored_dtype.itemsize,
        decoder_elements=sum(of_set.decoder_bytes) // of_set.stored_dtype.itemsize,
        skip_layers=len(of_set.skip_layers),
        active_per_position=active,
        active_said_by=said_by,
        stored_bytes=_widest(folder),
    )


def active_by_the_set(config: SetConfig, n_layers: int) -> tuple[float | None, str | None]:
    """Return active features per layer and position according to the set, and the part of it that tells; None if none does."""
    from circuit_tracer_cli.transcoders.config import stated_l0

    named = stated_l0(config)
    if named is not None:
        return named, "the names of its files (average_l0)"
    if config.k is None:
        return None, None
    if config.activation == "cross_layer_topk":
        return config.k / n_layers, f"its k of {config.k} over all layers"
    return float(config.k), f"its k of {config.k}"


def parameters(folder: Path | None, config: Mapping[str, Any]) -> int:
    """Return the number of the model's parameters: from the headers of local files, else from its sizes."""
    counted = sum(_elements(path) for path in folder.glob("*.safetensors")) if folder is not None else 0
    return counted or from_sizes(config)


def _widest(folder: Path | None) -> int:
    """Return the bytes of the widest floating-point number in a folder's safetensors files; 0 if there is none."""
    widths = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
    paths = folder.glob("*.safetensors") if folder is not None else ()
    return max((widths.get(dtype, 0) for path in paths for dtype, _ in _tensors(path)), default=0)


def _elements(path: Path) -> int:
    """Return the number of elements in a safetensors file; 0 if its header isn't readable."""
    return sum(count for _, count in _tensors(path))


def _tensors(path: Path) -> list[tuple[str, int]]:
    """Yield type and number of elements of each tensor in a safetensors file; nothing if its header isn't readable."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _HEADER_LIMIT:
                return []
            header = json.loads(stream.read(length))
        entries = [value for name, value in header.items() if name != "__metadata__"]
        return [(str(value["dtype"]), math.prod(value["shape"])) for value in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return []


def from_sizes(config: Mapping[str, Any]) -> int:
    """Return the number of parameters of a decoder of these sizes."""
    from circuit_tracer_cli.backends.families import flat
    from circuit_tracer_cli.backends.model_config import model_shape

    shape, values = model_shape(config), flat(config)
    matrices = 3 if shape.layout.gated else 2
    experts = int(values.get("num_local_experts") or values.get("num_experts") or 1)
    mlp = matrices * shape.d_model * shape.d_mlp * experts
    attention = 2 * shape.d_model * shape.d_head * (shape.n_heads + shape.n_kv_heads)
    embeddings = shape.d_vocab * shape.d_model * (1 if values.get("tie_word_embeddings", True) else 2)
    return shape.n_layers * (mlp + attention) + embeddings
