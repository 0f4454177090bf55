"""The sizes that a plan follows from: model, transcoder set, prompt, limits; and the choices that it may make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DEFAULT_L0 = 50.0
"""Active features per position and layer that are expected of a set which doesn't say (Ameisen et al. 2025 report tens)."""

USUAL_RANGE = (10.0, 150.0)
"""Between these most trained sets lie: our judgement, around the tens that Ameisen et al. (2025) report and the 65 and 76 in the
names of GemmaScope's files for the first layers of Gemma 2 2B. No statistic of published sets."""

USUAL_SHARE = 0.01
"""No more than this share of a small transcoder's features is expected to be active."""
DEFAULT_TOKENS = 64
"""Tokens of a prompt that isn't known yet."""


def usual_l0(d_transcoder: int) -> float:
    """Active features per position and layer of a set that doesn't say how many it expects."""
    return min(DEFAULT_L0, USUAL_SHARE * d_transcoder)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSizes:
    """Everything about a trace that decides what it costs. Bytes are as loaded, not as stored."""

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    kind: Literal["plt", "clt"]
    d_transcoder: int
    n_pos: int
    n_targets: int = 10
    max_feature_nodes: int = 0  # 0 for all
    active_per_position: float = DEFAULT_L0  # per layer
    model_params: int = 0
    dtype_bytes: int = 4
    stored_bytes: int = 0  # of an element in the model's files; 0 for what isn't read from any
    encoder_bytes: int = 0
    decoder_bytes: int = 0
    skip_layers: int = 0
    stored_in_16_bits: bool = False  # what the engine multiplies with
    closed_form: bool = True  # whether the engine runs without the model's MLPs

    @property
    def compute_bytes(self) -> int:
        """Bytes of an element in the engine, which computes 16-bit models in float32."""
        return max(4, self.dtype_bytes)

    @property
    def factor_bytes(self) -> int:
        """Bytes of an element of what the engine keeps to multiply with."""
        return 2 if self.stored_in_16_bits else self.compute_bytes

    @property
    def active(self) -> int:
        """Active features on the prompt; position 0 has none."""
        per_position = min(self.active_per_position, self.d_transcoder)
        return round(per_position * self.n_layers * max(0, self.n_pos - 1))

    @property
    def features(self) -> int:
        """Features that become nodes."""
        return min(self.max_feature_nodes or self.active, self.active)

    @property
    def decoder_entries(self) -> int:
        """Decoder rows in use: one for each active feature and layer that it writes to."""
        if self.kind == "plt":
            return self.active
        return round(self.active * (self.n_layers + 1) / 2)

    @property
    def columns(self) -> int:
        """Sources of a row: active features, errors, tokens."""
        return self.active + (self.n_layers + 1) * self.n_pos

    @property
    def nodes(self) -> int:
        """Nodes of the graph."""
        return self.features + (self.n_layers + 1) * self.n_pos + self.n_targets

    @property
    def resting_bytes(self) -> int:
        """MLPs and embeddings, which the closed form doesn't need after the forward pass (untied ones aren't counted twice)."""
        if not self.closed_form:
            return 0
        attention = 2 * self.d_model * (self.attention_width + self.value_width) * self.n_layers
        return max(0, self.model_params - attention) * self.dtype_bytes

    @property
    def cast_bytes(self) -> int:
        """The largest weight as it is stored, beside itself as it is loaded; 0 where nothing is cast."""
        cast = self.stored_bytes not in (0, self.dtype_bytes)
        return self.d_vocab * self.d_model * self.stored_bytes if cast else 0

    @property
    def attention_width(self) -> int:
        """Heads times head width."""
        return self.n_heads * self.d_head

    @property
    def value_width(self) -> int:
        """Key-value heads times head width."""
        return self.n_kv_heads * self.d_head


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """How a trace is run."""

    work: int  # rows times positions in one block of the engine
    lazy_encoder: bool = False
    lazy_decoder: bool = True
    on_gpu: bool = False
    offload: Literal["none", "cpu", "disk"] = "none"


@dataclass(frozen=True, slots=True)
class DeviceBudget:
    """One of several devices that share the layers."""

    name: str
    free: int
    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Budget:
    """Memory that there is, in bytes."""

    host: int
    device: int | None = None  # None where the device is the host
    devices: tuple[DeviceBudget, ...] = ()  # by first layer, where layers lie on several
    unified: bool = False  # whether the device works in the host's memory, so that both share `host`
    busy_work: int | None = None  # rows times positions that keep the device busy; None for a usual one
