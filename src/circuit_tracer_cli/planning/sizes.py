"""The sizes that a plan depends on (model, transcoder set, prompt, limits), and the choices that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DEFAULT_L0 = 50.0
"""Active features per position and layer assumed for a set that doesn't tell (Ameisen et al. 2025 report tens)."""

USUAL_RANGE = (10.0, 150.0)
"""The range of most trained sets. Our judgment, around the tens that Ameisen et al. (2025) report and the 65 and 76 in the
names of GemmaScope's files for the first layers of Gemma 2 2B; not a statistic of published sets."""

USUAL_SHARE = 0.01
"""Largest share of a small transcoder's features that is assumed to be active."""
DEFAULT_TOKENS = 64
"""Assumed number of tokens of a prompt that isn't known yet."""


def usual_l0(d_transcoder: int) -> float:
    """Return the active features per position and layer assumed for a set that doesn't tell."""
    return min(DEFAULT_L0, USUAL_SHARE * d_transcoder)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSizes:
    """Everything that determines the cost of a trace. Bytes are as loaded, not as stored."""

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
    stored_bytes: int = 0  # of an element in the model's files; 0 if it isn't read from files
    encoder_bytes: int = 0
    decoder_bytes: int = 0
    skip_layers: int = 0
    stored_in_16_bits: bool = False  # what the engine multiplies with
    closed_form: bool = True  # whether the engine runs without the model's MLPs

    @property
    def compute_bytes(self) -> int:
        """Return the bytes per element in the engine, which computes 16-bit models in float32."""
        return max(4, self.dtype_bytes)

    @property
    def factor_bytes(self) -> int:
        """Bytes of an element of what the engine keeps to multiply with."""
        return 2 if self.stored_in_16_bits else self.compute_bytes

    @property
    def active(self) -> int:
        """Return the number of active features on the prompt; position 0 has none."""
        per_position = min(self.active_per_position, self.d_transcoder)
        return round(per_position * self.n_layers * max(0, self.n_pos - 1))

    @property
    def features(self) -> int:
        """Return the number of features that become nodes."""
        return min(self.max_feature_nodes or self.active, self.active)

    @property
    def decoder_entries(self) -> int:
        """Return the number of decoder rows in use: one per active feature and layer that it writes to."""
        if self.kind == "plt":
            return self.active
        return round(self.active * (self.n_layers + 1) / 2)

    @property
    def columns(self) -> int:
        """Return the number of sources of a row: active features, errors, tokens."""
        return self.active + (self.n_layers + 1) * self.n_pos

    @property
    def nodes(self) -> int:
        """Return the number of nodes of the graph."""
        return self.features + (self.n_layers + 1) * self.n_pos + self.n_targets

    @property
    def resting_bytes(self) -> int:
        """Return the elements that the closed form needs only in the forward pass: MLPs, embeddings (tied ones count once)."""
        if not self.closed_form:
            return 0
        attention = 2 * self.d_model * (self.attention_width + self.value_width) * self.n_layers
        return max(0, self.model_params - attention) * self.dtype_bytes

    @property
    def cast_bytes(self) -> int:
        """Return the bytes of the largest weight as stored plus as loaded; 0 if nothing is cast."""
        cast = self.stored_bytes not in (0, self.dtype_bytes)
        return self.d_vocab * self.d_model * self.stored_bytes if cast else 0

    @property
    def attention_width(self) -> int:
        """Return heads times head width."""
        return self.n_heads * self.d_head

    @property
    def value_width(self) -> int:
        """Return key-value heads times head width."""
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
    """Available memory in bytes."""

    host: int
    device: int | None = None  # None where the device is the host
    devices: tuple[DeviceBudget, ...] = ()  # by first layer, if layers are on several
    unified: bool = False  # whether the device works in the host's memory, so that both share `host`
    busy_work: int | None = None  # rows times positions that keep the device busy; None for a usual one
