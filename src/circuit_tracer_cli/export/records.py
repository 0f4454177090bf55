"""The JSON graph file as records. Imports no torch.

Fields are named as in the file. All other content of a file is kept in `extra`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.graph.layout import edges_left_out, error_id, feature_id, token_id

SCHEMA_VERSION = 1
GENERATOR = "circuit-tracer-cli"
STABILITY = "stability"
"""Optional key of a link: share of the prunings of a fixed grid (`STABILITY_GRID`) that keep it."""
FEATURE_TYPE = "cross layer transcoder"
ERROR_TYPE = "mlp reconstruction error"
TOKEN_TYPE = "embedding"
LOGIT_TYPE = "logit"


def cantor_code(layer: int, feature: int) -> int:
    """One number for a feature: the Cantor pairing of layer and feature. Raises InvalidValue for negative numbers."""
    if layer < 0 or feature < 0:
        raise InvalidValue(f"layer {layer} and feature {feature} have no code: they must be 0 or more")
    diagonal = layer + feature
    return diagonal * (diagonal + 1) // 2 + feature


def cantor_decode(code: int) -> tuple[int, int]:
    """Layer and feature of a code, exact for any size. Raises InvalidValue for a negative number."""
    if code < 0:
        raise InvalidValue(f"{code} is not a feature code: it must be 0 or more")
    diagonal = (math.isqrt(8 * code + 1) - 1) // 2
    feature = code - diagonal * (diagonal + 1) // 2
    return diagonal - feature, feature


def target_weight(feature_type: object, is_target: object, token_prob: object) -> float:
    """Return the weight of a node of a graph file as a target: 0 unless it is a logit, or marked as the target."""
    if feature_type != LOGIT_TYPE and is_target is not True:
        return 0.0
    if (
        not isinstance(token_prob, int | float)
        or isinstance(token_prob, bool)
        or not math.isfinite(token_prob)
    ):
        return 0.0
    return float(token_prob)


@dataclass(frozen=True, slots=True)
class Metadata:
    """A graph file's metadata, and its entry in the list of graphs."""

    slug: str
    scan: str
    prompt_tokens: list[str]
    prompt: str
    transcoder_list: list[str] = field(default_factory=list)
    node_threshold: float | None = None
    schema_version: int | None = SCHEMA_VERSION
    feature_details: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    generation_settings: dict[str, Any] = field(default_factory=dict)
    pruning_settings: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QParams:
    """The saved state of the view; a supernode is its label and its node ids."""

    pinnedIds: list[str] = field(default_factory=list)
    supernodes: list[list[str]] = field(default_factory=list)
    linkType: str = "both"
    clickedId: str = ""
    sg_pos: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as the viewer reads it."""

    node_id: str
    feature: int | None
    layer: str
    ctx_idx: int
    feature_type: str
    token_prob: float = 0.0
    is_target_logit: bool = False
    run_idx: int = 0
    reverse_ctx_idx: int = 0
    jsNodeId: str
    clerp: str = ""
    influence: float | None = None
    activation: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def feature_node(
        cls,
        layer: int,
        position: int,
        feature: int,
        influence: float | None = None,
        activation: float | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Node:
        """A transcoder feature; the type is the same for per-layer ones."""
        return cls(
            node_id=feature_id(layer, feature, position),
            feature=cantor_code(layer, feature),
            layer=str(layer),
            ctx_idx=position,
            feature_type=FEATURE_TYPE,
            jsNodeId=f"{layer}_{feature}-0",
            influence=influence,
            activation=activation,
            extra=extra or {},
        )

    @classmethod
    def error_node(cls, layer: int, position: int, influence: float | None = None) -> Node:
        """What the transcoder of a layer doesn't explain at a position."""
        return cls(
            node_id=error_id(layer, position),
            feature=-1,
            layer=str(layer),
            ctx_idx=position,
            feature_type=ERROR_TYPE,
            jsNodeId=f"{layer}_-1-{position}",
            influence=influence,
        )

    @classmethod
    def token_node(cls, position: int, vocab_idx: int, influence: float | None = None) -> Node:
        """A prompt token's embedding."""
        return cls(
            node_id=token_id(vocab_idx, position),
            feature=position,
            layer="E",
            ctx_idx=position,
            feature_type=TOKEN_TYPE,
            jsNodeId=f"E_{vocab_idx}-{position}",
            influence=influence,
        )

    @classmethod
    def logit_node(
        cls,
        node_id: str,
        position: int,
        vocab_idx: int,
        token: str,
        probability: float,
        is_first: bool,
        n_layers: int,
    ) -> Node:
        """A target; its id comes from the layout, which marks the targets that repeat."""
        repeat = node_id.removeprefix(f"{n_layers + 1}_{vocab_idx}_{position}")
        return cls(
            node_id=node_id,
            feature=vocab_idx,
            layer=str(n_layers + 1),
            ctx_idx=position,
            feature_type=LOGIT_TYPE,
            jsNodeId=f"L_{vocab_idx}-{position}{repeat}",
            token_prob=probability,
            is_target_logit=is_first,
            clerp=f'Output "{token}" (p={probability:.3f})',
        )


@dataclass(frozen=True, slots=True)
class Link:
    """A direct effect, signed and not normalized; optional keys that other viewers ignore are in `extra`."""

    source: str
    target: str
    weight: float
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A full graph file; `beside` has the other keys at the level of nodes and links."""

    metadata: Metadata
    qParams: QParams
    nodes: list[Node]
    links: list[Link]
    beside: dict[str, Any] = field(default_factory=dict)

    @property
    def left_out(self) -> int:
        """How many links were left out because their weight wasn't finite, now or when the graph was first read."""
        return edges_left_out(self.metadata.extra)


def to_values(record: Metadata | QParams | Node | Link) -> dict[str, Any]:
    """Return a record as an object for the file; the content of `extra` comes last."""
    values = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    extra = values.pop("extra", {})
    return {**values, **extra}
