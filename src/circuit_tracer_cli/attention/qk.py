"""Why a head looks where it looks: its score before cap, mask and softmax as an exact sum over pairs of sources.

With norm scales frozen, both vectors are affine in the stream, and the stream is affine in the graph's sources, so

    score[q, k] = scaling · ⟨Σ_i Q_i, Σ_j K_j⟩ = Σ_ij scaling · ⟨Q_i, K_j⟩,   i, j over sources and constants.

`Q` and `K` are rows of the engine with cotangents that begin at the block's input. Lower attention is traced as on any edge: no
remainder is left (Kamath et al. 2025, "Tracing attention computation through feature interactions", stop at one layer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from circuit_tracer_cli.attention.constants import NAMES, Origins, origins
from circuit_tracer_cli.attention.pairs import summed, top_pairs
from circuit_tracer_cli.attention.prompt import FrozenPrompt, freeze
from circuit_tracer_cli.backends.base import ScoreWeights, Side
from circuit_tracer_cli.errors import InvalidValue, UnsuitableValue
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.replacement import ReplacementModel

if TYPE_CHECKING:
    import pandas

STRONGEST = 10
"""Default number of pairs and nodes to list."""

Against = int | Literal["rest"] | None
Grouping = Literal["feature"] | Mapping[str, Sequence[str]] | None
Positions = tuple[tuple[int, float], ...]
"""Positions with weights: one key, the difference of two, or one less the average."""


@dataclass(frozen=True, slots=True)
class QKAttribution:
    """The explanation of a score.

    Attributes:
        layer, head: The head.
        query, key: Positions; `key` is None if only the pattern was requested.
        against: What `key` is compared with: another key, `"rest"` (all keys, by weight), or None.
        score: The score before cap, mask, sink and softmax; for a comparison, the difference.
        pattern: The attention paid to `key`, or to all keys if that is None.
        softcap_factor: Factor of the soft cap on the score and every pair; 1 without a soft cap.
        constants: Parts that don't come from two sources, by name.
        q: Sources of the query with their contribution to the score with the full key; strongest first.
        k: The same for the key, with the full query.
        q_constants, k_constants: Contributions of constants; with all of `q` (or `k`) they add up to the score.
        q_rest, k_rest: Sum of the sources that aren't listed.
        pairs: The strongest pairs (source of the query, source of the key, value).
        rest: All other pairs: pairs + constants + rest = score.
        unexplained: The score from the model's own stream minus the sum of all pairs and constants: rounding.
        scores: The scores of all visible keys, if `key` is None.
    """

    layer: int
    head: int
    query: int
    key: int | None
    against: Against
    score: float | None
    pattern: float | tuple[float, ...]
    softcap_factor: float = 1.0
    constants: tuple[tuple[str, float], ...] = ()
    q: tuple[tuple[str, float], ...] = ()
    k: tuple[tuple[str, float], ...] = ()
    q_constants: float = 0.0
    k_constants: float = 0.0
    q_rest: float = 0.0
    k_rest: float = 0.0
    pairs: tuple[tuple[str, str, float], ...] = ()
    rest: float = 0.0
    unexplained: float = 0.0
    scores: tuple[float | None, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record that `--json` prints."""
        pattern: Any = self.pattern
        if isinstance(pattern, tuple):
            pattern = [
                {"position": position, "value": value, "score": score}
                for position, (value, score) in enumerate(zip(pattern, self.scores, strict=True))
            ]
        named = ("node", "value")
        return {
            "layer": self.layer, "head": self.head, "query": self.query, "key": self.key, "against": self.against,
            "score": self.score, "pattern": pattern,
            "constants": [{"name": name, "value": value} for name, value in self.constants],
            "q": [dict(zip(named, one, strict=True)) for one in self.q],
            "k": [dict(zip(named, one, strict=True)) for one in self.k],
            "pairs": [{"q": q, "k": k, "value": value} for q, k, value in self.pairs],
            "rest": self.rest, "softcap_factor": self.softcap_factor, "q_constants": self.q_constants,
            "k_constants": self.k_constants, "q_rest": self.q_rest, "k_rest": self.k_rest,
            "unexplained": self.unexplained,
        }  # fmt: skip

    def to_dataframe(self) -> pandas.DataFrame:
        """The listed pairs, one row each."""
        import pandas as pd

        return pd.DataFrame(list(self.pairs), columns=["q", "k", "value"])

    def to_neuronpedia(self) -> dict[str, Any]:
        """Return `qk_tracing_results`, the record of a node for Neuronpedia's viewer."""
        return {
            "pair_wise_contributors": [[q, k, value] for q, k, value in self.pairs],
            "top_q_marginal_contributors": [list(one) for one in self.q],
            "top_k_marginal_contributors": [list(one) for one in self.k],
        }


def qk_attribution(
    graph: Graph,
    model: ReplacementModel,
    *,
    layer: int,
    head: int,
    query: int,
    key: int | None = None,
    against: Against = None,
    n: int = STRONGEST,
    group: Grouping = None,
) -> QKAttribution:
    """Explain why a head looks from one position at another.

    Args:
        graph: The graph of the prompt.
        model: The model and transcoders that it was made with.
        layer, head: The head.
        query: The position that the head looks from; negative ones count from the end.
        key: The position that it looks at; None for the pattern alone.
        against: Another key, or `"rest"` for all keys weighted by attention: the first-order change of the logarithm of
            the attention.
        n: Number of pairs and nodes to list; 0 for all nodes, and as many pairs.
        group: Sum sources before ranking: `"feature"` over positions, or by supernodes, name → ids.

    Raises:
        InvalidValue: There is no such layer, head or position, or the query can't see the key.
        ModelMismatch: The graph wasn't made with this model.
        UnsupportedArchitecture: The family doesn't declare how it makes its scores.
    """
    return attend(freeze(graph, model), layer, head, query, key, against, n, group)


@torch.no_grad()
def attend(
    prompt: FrozenPrompt, layer: int, head: int, query: int, key: int | None = None, against: Against = None,
    n: int = STRONGEST, group: Grouping = None,
) -> QKAttribution:  # fmt: skip
    """`qk_attribution` for a frozen prompt."""
    prompt.head(layer, head)
    query = prompt.position(query, "query")
    score = Score(prompt, layer, head)
    if key is None:
        if against is not None:
            raise InvalidValue("a comparison needs a key", hint="add --key 4")
        row = score.pattern[query].tolist()
        seen = [
            score.value(query, at) if score.weights.sees(query, at) else None for at in range(prompt.n_pos)
        ]
        return QKAttribution(layer, head, query, None, None, None, tuple(row), scores=tuple(seen))
    key, against, keys = _compared(score, query, key, against)
    return _explained(score, query, key, against, keys, n, group)


def _compared(score: Score, query: int, key: int, against: Against) -> tuple[int, Against, Positions]:
    """The keys with their weights. Raises InvalidValue for one that the query can't see."""
    prompt = score.prompt
    key = prompt.position(key, "key")
    _check_seen(score, query, key)
    if against is None:
        return key, None, ((key, 1.0),)
    if against == "rest":
        average = [(at, -float(score.pattern[query, at])) for at in range(prompt.n_pos)]
        seen = tuple((at, weight) for at, weight in average if score.weights.sees(query, at))
        return key, "rest", ((key, 1.0), *seen)
    if not isinstance(against, int):
        raise InvalidValue(
            f"against is neither a position nor rest: {against!r}",
            hint="give another key's position, or rest",
        )
    other = prompt.position(against, "other key's")
    _check_seen(score, query, other)
    if other == key:
        raise InvalidValue(f"key {key} is compared with itself", hint="use another key, or rest")
    return key, other, ((key, 1.0), (other, -1.0))


def _check_seen(score: Score, query: int, key: int) -> None:
    if key > query:
        raise UnsuitableValue(
            f"query {query} can't look ahead to key {key}", hint=f"keys go from 0 to {query}"
        )
    if not score.weights.sees(query, key):
        raise UnsuitableValue(
            f"key {key} is outside the window of query {query}: layer {score.layer} sees {score.weights.window} tokens",
            hint=f"its keys go from {query - (score.weights.window or 0) + 1} to {query}",
        )


@dataclass(frozen=True, slots=True)
class Factor:
    """One side of a score: vectors `(d_head, source)` by the engine's column, `(d_head, name)` of constants, and their total."""

    sources: Tensor
    constants: Tensor
    whole: Tensor  # (d_head), from the model's own stream

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the constants."""
        return (*NAMES, "the projection's own bias")


class Score:
    """The scores of one head on a prompt.

    Args:
        prompt: The frozen prompt.
        layer, head: The head.
    """

    def __init__(self, prompt: FrozenPrompt, layer: int, head: int) -> None:
        self.prompt, self.layer, self.head = prompt, layer, head
        self.weights: ScoreWeights = prompt.model.model.score_weights(layer, prompt.n_pos)
        layers = prompt.engine.weights.layers
        self.norm = layers[layer].ln1
        residual = prompt.frozen.layers[layer].residual
        assert residual is not None
        self.scale = prompt.frozen.layers[layer].ln1_scale.to(prompt.engine.dtype)
        self.normed = self.norm.apply(residual.to(prompt.engine.dtype), self.scale)
        self.pattern = prompt.frozen.layers[layer].pattern[head]
        self._origins: Origins | None = None

    @property
    def origins(self) -> Origins:
        """The parts of the block's input stream."""
        if self._origins is None:
            self._origins = origins(self.prompt, self.layer)
        return self._origins

    def affine(self, side: Side, position: int) -> tuple[Tensor, Tensor]:
        """Matrix and offset of one side at a position, on the norm's output; those of the query include the scaling."""
        head = self.head
        if side == "key":
            shape = self.prompt.model.model.shape
            head = self.head * shape.n_kv_heads // shape.n_heads
        matrix, offset = self.weights.affine(side, head, position, self.normed[position])
        factor = self.weights.scaling if side == "query" else 1.0
        return matrix * factor, offset * factor

    def vector(self, side: Side, position: int) -> Tensor:
        """The query's or key's vector `(d_head)`."""
        matrix, offset = self.affine(side, position)
        return matrix @ self.normed[position] + offset

    def value(self, query: int, key: int) -> float:
        """The score before cap, mask and softmax."""
        return float(self.vector("query", query) @ self.vector("key", key))

    def factor(self, side: Side, positions: Positions) -> Factor:
        """One side at a weighted sum of positions."""
        engine = self.prompt.engine
        device = engine.devices[self.layer]
        d_head, d_model = self.weights.query.W.shape[1:]
        G = torch.zeros(d_head, self.prompt.n_pos, d_model, dtype=engine.dtype, device=device)
        constants = torch.zeros(d_head, len(NAMES) + 1, dtype=engine.dtype, device=device)
        whole = torch.zeros(d_head, dtype=engine.dtype, device=device)
        for position, weight in positions:
            matrix, offset = (part.to(device) * weight for part in self.affine(side, position))
            back = self.norm.pull_back(matrix, self.scale[position].expand(d_head))
            G[:, position] += back
            constants[:, :-1] += back @ self.origins.constants[:, position].to(back).T
            bias = offset if self.norm.bias is None else offset + matrix @ self.norm.bias.to(matrix)
            constants[:, -1] += bias
            whole += matrix @ self.normed[position] + offset
        last = max(position for position, _ in positions) + 1
        return Factor(engine.rows_from(self.layer, G[:, :last]), constants, whole)


def _explained(
    score: Score, query: int, key: int, against: Against, keys: Positions, n: int, group: Grouping
) -> QKAttribution:
    """The record of one score or comparison."""
    prompt = score.prompt
    Q, K = score.factor("query", ((query, 1.0),)), score.factor("key", keys)
    q_sources, k_sources = Q.sources.sum(1), K.sources.sum(1)
    value = float(Q.whole @ K.whole)
    constants = [
        *(
            (f"{name} (query)", float(part @ k_sources))
            for name, part in zip(Q.names, Q.constants.T, strict=True)
        ),
        *(
            (f"{name} (key)", float(q_sources @ part))
            for name, part in zip(K.names, K.constants.T, strict=True)
        ),
        ("constants on both sides", float(Q.constants.sum(1) @ K.constants.sum(1))),
    ]
    constants = [(name, part) for name, part in constants if part]
    constant = sum(part for _, part in constants)
    names = _Names(prompt, group)
    q_groups, k_groups = names.grouped(Q.sources), names.grouped(K.sources)
    places, values = top_pairs(q_groups, k_groups, n or STRONGEST)
    pairs = tuple(
        (names[q], names[k], value) for (q, k), value in zip(places.tolist(), values.tolist(), strict=True)
    )
    q, q_rest = _strongest(names, K.whole @ q_groups, n, float(K.whole @ q_sources))
    k, k_rest = _strongest(names, Q.whole @ k_groups, n, float(Q.whole @ k_sources))
    capped = sum(weight * score.weights.capped(score.value(query, at)) for at, weight in keys)
    return QKAttribution(
        score.layer, score.head, query, key, against, value, float(score.pattern[query, key]),
        capped / value if value else 1.0, tuple(constants), q, k,
        float(K.whole @ Q.constants.sum(1)), float(Q.whole @ K.constants.sum(1)), q_rest, k_rest, pairs,
        value - constant - sum(pair[2] for pair in pairs),
        value - constant - float(q_sources @ k_sources),
    )  # fmt: skip


def _strongest(
    names: _Names, values: Tensor, n: int, whole: float
) -> tuple[tuple[tuple[str, float], ...], float]:
    """The strongest sources with their values, and the sum of all others."""
    order = values.abs().argsort(descending=True, stable=True)[: n or len(values)]
    listed = tuple(
        (names[index], value)
        for index, value in zip(order.tolist(), values[order].tolist(), strict=True)
        if value
    )
    return listed, whole - sum(value for _, value in listed)


class _Names:
    """Names of sources, individually or in groups.

    Args:
        prompt: The prompt of the sources.
        group: How they are grouped.
    """

    def __init__(self, prompt: FrozenPrompt, group: Grouping) -> None:
        self.prompt, self.group = prompt, group
        self.nodes = prompt.node_of_column.tolist()
        self._labels: list[str] = []
        self._group_of: Tensor | None = None
        if group is not None:
            self._set_groups(group)

    def __getitem__(self, index: int) -> str:
        return self._labels[index] if self.group is not None else self.prompt.name_of(self.nodes[index])

    def grouped(self, factor: Tensor) -> Tensor:
        """The columns of `factor (d_head, source)` summed by group."""
        if self._group_of is None:
            return factor
        return summed(factor, self._group_of[: factor.shape[1]], len(self._labels))

    def _set_groups(self, group: Literal["feature"] | Mapping[str, Sequence[str]]) -> None:
        ids = [self.prompt.name_of(node) for node in self.nodes]
        if group == "feature":
            label_of = {name: name.rsplit("_", 1)[0] for name in ids}
        else:
            label_of = {name: label for label, members in group.items() for name in members}
        self._labels = list(dict.fromkeys(label_of.get(name, name) for name in ids))
        place = {label: number for number, label in enumerate(self._labels)}
        self._group_of = torch.tensor([place[label_of.get(name, name)] for name in ids])
