"""What a backend provides: records of frozen quantities. Independent of transcoders and graphs.

Axis names: `pos`/`query`/`key` prompt positions, `head` query heads, `kv_head` key-value heads, `d_head`, `d_model`, `vocab`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from circuit_tracer_cli.backends.families.base import Layout, NormKind
from circuit_tracer_cli.backends.points import FeaturePoints
from circuit_tracer_cli.types import UnifiedConfig

WeightGroup = Literal["mlp", "embedding"]
Side = Literal["query", "key"]


@dataclass(frozen=True, slots=True)
class NormWeights:
    """An affine norm with its scale taken out: `out = gain * (x - mean if layer) / scale + bias`.

    The kind `none` is for a block without this norm: its scale and gain are one.
    """

    kind: NormKind
    gain: Tensor  # (d_model)
    eps: float
    bias: Tensor | None = None  # (d_model)

    def scale(self, x: Tensor) -> Tensor:
        """The scale of this norm on `x (..., d_model)`, shape `(...)`, in at least float32 as Hugging Face computes it."""
        x = x if x.dtype in (torch.float32, torch.float64) else x.float()
        if self.kind == "none":
            return torch.ones_like(x[..., 0])
        if self.kind == "layer":
            x = x - x.mean(-1, keepdim=True)
        return (x.square().mean(-1) + self.eps).sqrt()

    def normalized(self, x: Tensor) -> Tensor:
        """`x (..., d_model)` divided by its own scale, centered if the norm centers; without gain and bias."""
        scale = self.scale(x)
        x = x.to(scale.dtype)
        return (x - x.mean(-1, keepdim=True) if self.kind == "layer" else x) / scale[..., None]

    def apply(self, x: Tensor, scale: Tensor) -> Tensor:
        """The norm of `x (..., d_model)` at a frozen `scale (...)`."""
        if self.kind == "layer":
            x = x - x.mean(-1, keepdim=True)
        out = x / scale[..., None] * self.gain.to(x.dtype)
        return out if self.bias is None else out + self.bias.to(x.dtype)

    def pull_back(self, cotangent: Tensor, scale: Tensor) -> Tensor:
        """The transpose of `apply` (bias aside) on `cotangent (..., d_model)`; `scale` broadcasts against `(...)`."""
        out = cotangent * self.gain.to(cotangent.dtype) / scale[..., None]
        return out - out.mean(-1, keepdim=True) if self.kind == "layer" else out


@dataclass(frozen=True, slots=True)
class Projection:
    """One side of a score: `x ↦ rotate(gain ⊙ (W x + b) / scale)` head by head, `x` being the norm's output.

    `norm` is the one on query or key; its scale is taken over a head, or over all heads together if `over_all`.
    """

    W: Tensor  # (head, d_head, d_model); key-value heads on the key side
    b: Tensor | None  # (head, d_head)
    norm: NormWeights | None
    over_all: bool


@dataclass(frozen=True, slots=True)
class ScoreWeights:
    """How a block's attention scores are computed from the normed stream, before cap, mask, sink and softmax.

    `score[q, k] = scaling · ⟨query vector, key vector⟩`. Rotations are given from position 0; without them `cos` is None.
    """

    query: Projection
    key: Projection
    cos: Tensor | None  # (pos, rotary_dim)
    sin: Tensor | None  # (pos, rotary_dim)
    in_pairs: bool  # neighboring dimensions rotate together (GPT-J), otherwise the two halves
    scaling: float
    softcap: float | None
    window: int | None  # a query sees keys less than this many positions before it

    def projection(self, side: Side) -> Projection:
        """One side."""
        return self.query if side == "query" else self.key

    def affine(self, side: Side, head: int, position: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """The frozen map of one head at one position: matrix `(d_head, d_model)` and offset `(d_head)`.

        Args:
            side: Query or key.
            head: Index of the query or key-value head.
            position: The position.
            x: `(d_model)`, the norm's output there, which determines the scale of a norm on query or key.
        """
        projection = self.projection(side)
        W = projection.W[head].to(x)
        b = x.new_zeros(len(W)) if projection.b is None else projection.b[head].to(x)
        if projection.norm is not None:
            gain = projection.norm.gain.to(x)
            gain = gain.view(-1, len(W))[head if projection.over_all else 0] / self._scale(
                projection, head, x
            )
            W, b = W * gain[:, None], b * gain
        return self.rotated(W.T, position).T, self.rotated(b, position)

    def _scale(self, projection: Projection, head: int, x: Tensor) -> Tensor:
        """The scale of the norm on query or key at one position."""
        assert projection.norm is not None
        chosen = slice(None) if projection.over_all else slice(head, head + 1)
        raw = projection.W[chosen].to(x) @ x
        if projection.b is not None:
            raw = raw + projection.b[chosen].to(x)
        return projection.norm.scale(raw.flatten())

    def rotated(self, vectors: Tensor, position: int) -> Tensor:
        """`vectors (…, d_head)` rotated to a position; dimensions beyond the rotary ones stay."""
        if self.cos is None or self.sin is None:
            return vectors
        width = self.cos.shape[1]
        turned, kept = vectors[..., :width], vectors[..., width:]
        if self.in_pairs:
            partner = torch.stack((-turned[..., 1::2], turned[..., ::2]), dim=-1).flatten(-2)
        else:
            partner = torch.cat((-turned[..., width // 2 :], turned[..., : width // 2]), dim=-1)
        out = turned * self.cos[position].to(vectors) + partner * self.sin[position].to(vectors)
        return torch.cat((out, kept), dim=-1)

    def capped(self, score: float) -> float:
        """The score after the soft cap."""
        if self.softcap is None:
            return score
        return self.softcap * float(torch.tanh(torch.tensor(score / self.softcap, dtype=torch.float64)))

    def sees(self, query: int, key: int) -> bool:
        """True if a query can look at a key."""
        return key <= query and (self.window is None or query - key < self.window)


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """The linear weights of one block. Matrices may be views into the model's own parameters."""

    W_V: Tensor  # (kv_head, d_head, d_model): v = W_V x
    W_O: Tensor  # (d_model, head, d_head): out = W_O z
    ln1: NormWeights
    ln2: NormWeights
    ln1_post: NormWeights | None = None
    ln2_post: NormWeights | None = None
    b_V: Tensor | None = None  # (kv_head, d_head)
    b_O: Tensor | None = None  # (d_model)


@dataclass(frozen=True, slots=True)
class LinearWeights:
    """Everything linear between the token embeddings and the unembedding."""

    layers: tuple[LayerWeights, ...]
    ln_final: NormWeights
    W_U: Tensor  # (vocab, d_model), the Hugging Face orientation
    W_E: Tensor  # (vocab, d_model), raw
    parallel: bool = False  # attention and MLP both read the block's input (GPT-NeoX)


@dataclass(frozen=True, slots=True)
class MlpWeights:
    """One block's MLP: `down @ (act(gate @ x + b) * (up @ x + b)) + b`, or `down @ act(up @ x + b) + b` without a gate.

    Matrices are views into the model's own parameters.
    """

    up: Tensor  # (d_mlp, d_model)
    down: Tensor  # (d_model, d_mlp)
    activation: Callable[[Tensor], Tensor]
    gate: Tensor | None = None  # (d_mlp, d_model)
    up_bias: Tensor | None = None  # (d_mlp)
    gate_bias: Tensor | None = None  # (d_mlp)
    down_bias: Tensor | None = None  # (d_model)


@dataclass(frozen=True, slots=True)
class FrozenLayer:
    """The frozen quantities of one block's forward pass."""

    pattern: Tensor  # (head, query, key)
    ln1_scale: Tensor  # (pos)
    ln2_scale: Tensor  # (pos)
    feature_input: Tensor  # (pos, d_model), at the transcoders' read point
    feature_output: Tensor  # (pos, d_model), at the transcoders' write point
    ln1_post_scale: Tensor | None = None  # (pos)
    ln2_post_scale: Tensor | None = None  # (pos)
    residual: Tensor | None = None  # (pos, d_model), the block's input, if requested


@dataclass(frozen=True, slots=True)
class FrozenPass:
    """One unbatched forward pass of the unmodified model."""

    tokens: Tensor  # (pos) int64
    embed: Tensor  # (pos, d_model), the token part of the residual stream's start
    layers: tuple[FrozenLayer, ...]
    ln_final_scale: Tensor  # (pos)
    logits: Tensor  # (vocab), last position, after the model's own softcap


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes and facts of a model, for planning."""

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    parallel: bool = False
    softcap: float | None = None
    rope_switch: int | None = None  # longest prompt with short rotary factors (longrope)
    layout: Layout = field(default_factory=Layout)


@dataclass(frozen=True, slots=True)
class FrozenGraph:
    """Tensors of a frozen forward pass, connected by autograd."""

    embed: Tensor  # (pos, d_model), a leaf
    writes: tuple[Tensor, ...]  # per layer (pos, d_model), leaves at the write points
    reads: tuple[Tensor, ...]  # per layer (pos, d_model), values at the read points
    final: Tensor  # (pos, d_model), output of the final norm


@dataclass(frozen=True, slots=True)
class FreezeNames:
    """The hooks at which a backend's model can be frozen."""

    start: str
    patterns: tuple[str, ...]
    norms: tuple[tuple[str, NormWeights], ...]  # hook prefix of every norm, final one last
    read_norms: tuple[str, ...]  # per layer the prefix of the pre-MLP norm
    read: tuple[str, ...]  # per layer the hook at the read point
    write: tuple[str, ...]  # per layer the hook at the write point


Edit = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True, slots=True)
class Hooks:
    """Functions that see and can replace named values `(1, pos, …)` during a run; names are canonical hook names."""

    by_name: Mapping[str, Sequence[Edit]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartialRun:
    """The part of a pass to run.

    Attributes:
        first: The first block to run.
        residual: The input of that block `(pos, d_model)`; None runs everything.
        outputs_of_block: Number of outputs of the family's blocks, 0 for a bare tensor.
        last_logits: True for only the last position's logits.
    """

    first: int = 0
    residual: Tensor | None = None
    outputs_of_block: int = 0
    last_logits: bool = False


class Backend(Protocol):
    """A loaded model, as the rest of the program sees it."""

    name: str
    shape: ModelShape
    config: UnifiedConfig
    tokenizer: Any
    device: torch.device
    layer_devices: tuple[torch.device, ...]
    dtype: torch.dtype

    @property
    def W_E(self) -> Tensor:
        """Raw token embeddings `(vocab, d_model)`."""

    @property
    def W_U(self) -> Tensor:
        """The unembedding `(vocab, d_model)`."""

    @property
    def weights(self) -> LinearWeights | None:
        """The linear weights, or None if the family has no closed form."""

    @property
    def has_closed_form(self) -> bool:
        """True if `weights` isn't None. Builds nothing."""

    @property
    def n_parameters(self) -> int:
        """Number of the model's parameters, counting tied ones once."""

    def logits_at(self, tokens: Tensor, positions: Sequence[int]) -> Tensor:
        """Logits `(n, vocab)` of the unmodified model at some positions of `tokens (pos)`."""

    def score_weights(self, layer: int, n_pos: int) -> ScoreWeights:
        """How a block's attention scores are made. Raises UnsupportedArchitecture if the family doesn't declare it."""

    def mlp_weights(self, layer: int) -> MlpWeights:
        """A block's MLP. Raises UnsupportedArchitecture where its neurons can't be traced."""

    def forget_weights(self) -> None:
        """Drop the record of linear weights; it is rebuilt when needed."""

    def parameters_of(self, part: WeightGroup) -> list[Tensor]:
        """The parameters of all MLPs, or of embedding and unembedding; each once, including tied ones."""

    def feature_points(self, feature_input_hook: str, feature_output_hook: str) -> FeaturePoints:
        """What the two hook names mean in this family. Raises ModelMismatch naming the hooks that exist."""

    def freeze_names(self, feature_input_hook: str, feature_output_hook: str) -> FreezeNames:
        """The hooks at which this model can be read, pinned and changed."""

    def frozen_pass(
        self, tokens: Tensor, feature_input_hook: str, feature_output_hook: str, residuals: bool = False
    ) -> FrozenPass:
        """Run one forward pass on `tokens (pos)`, without gradient; optionally keep the input of every block."""

    @property
    def outputs_of_block(self) -> int | None:
        """The number of block outputs for `PartialRun`; None if the backend can't run a part, or before a pass with residuals."""

    def run_part(self, tokens: Tensor, hooks: Hooks, part: PartialRun) -> Tensor:
        """Logits `(pos, vocab)`, or `(1, vocab)`, of a part of a pass."""

    def feature_inputs(self, tokens: Tensor, feature_input_hook: str) -> tuple[Tensor, ...]:
        """For each layer, the values `(batch, pos, d_model)` at the read point, for `tokens (batch, pos)` padded on the right."""

    def frozen_graph(
        self,
        tokens: Tensor,
        feature_input_hook: str,
        feature_output_hook: str,
        skips: Sequence[Tensor | None],
    ) -> FrozenGraph:
        """One forward pass with everything non-linear frozen and its autograd graph kept, for the generic engine."""

    def run(self, tokens: Tensor, hooks: Hooks, past: Any = None) -> tuple[Tensor, Any]:
        """Logits `(pos, vocab)` of one pass with hooks, and the key-value cache."""

    def zero_softcap(self) -> AbstractContextManager[None]:
        """Switch the final logit softcap off within a `with` block."""
