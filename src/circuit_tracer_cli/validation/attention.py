"""Attention: does turning a head off remove what goes through it, and do scores change as their strongest pairs predict?

Each is measured twice: with everything else pinned, where the frozen network is exact, and free, with later patterns and norms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.attention.loadings import mixed
from circuit_tracer_cli.attention.pairs import top_pairs
from circuit_tracer_cli.attention.prompt import FrozenPrompt, freeze_tokens
from circuit_tracer_cli.attention.qk import Factor, Score
from circuit_tracer_cli.attention.walks import pull
from circuit_tracer_cli.attribution.linear import Targets, push_attention
from circuit_tracer_cli.attribution.targets import Unembedding
from circuit_tracer_cli.backends.base import Hooks
from circuit_tracer_cli.errors import UnsupportedArchitecture
from circuit_tracer_cli.interventions.cells import resolve
from circuit_tracer_cli.interventions.passes import EditedPass
from circuit_tracer_cli.interventions.run import Constraints
from circuit_tracer_cli.interventions.spec import HeadEdit, Intervention, Scaled
from circuit_tracer_cli.validation.direct import ATOL, RTOL
from circuit_tracer_cli.validation.pace import Phase
from circuit_tracer_cli.validation.precision import rounded_to
from circuit_tracer_cli.validation.statistics import spearman, strong_and_random
from circuit_tracer_cli.validation.subject import Subject

PAIRS = 64
"""Number of a score's pairs among which the strongest pair of features is searched."""
FREE = Constraints(freeze_attention=False)


@dataclass(frozen=True, slots=True)
class HeadAblation:
    """What goes through heads, compared with turning them off.

    Attributes:
        n_heads: Number of heads turned off at all positions, one at a time.
        max_absolute_error: Largest difference of any target's demeaned logit, with everything else pinned.
        agrees: True if every difference is within 5e-4 + 1e-5·|change|, which float32 rounding explains; None in 16 bits.
        spearman: Rank correlation for the most likely target with nothing pinned; None with too few heads.
    """

    n_heads: int
    max_absolute_error: float
    agrees: bool | None
    spearman: float | None


@dataclass(frozen=True, slots=True)
class ScoreAblation:
    """Differences of two keys' scores without the strongest pair of features, compared with the model's ratio of attention.

    Attributes:
        n_scores: Number of heads' looks whose pair was turned off.
        max_absolute_error: Largest difference of a logarithm of a ratio, with everything else pinned.
        agrees: True if rounding explains it; None in 16 bits, and if norms on query or key change with the edit.
        spearman: Rank correlation with nothing pinned; None with too few scores.
    """

    n_scores: int
    max_absolute_error: float
    agrees: bool | None
    spearman: float | None


@torch.no_grad()
def ablation_effects(prompt: FrozenPrompt, targets: Targets) -> Tensor:
    """What goes through every head to targets, for the full stream including the values' biases.

    With patterns and norm scales frozen, a target's pre-activation (a logit, demeaned) decreases by exactly this when all rows
    of the head's pattern are set to zero: the map is affine in each row.

    Args:
        prompt: The frozen prompt, with the input of every block.
        targets: The targets whose change is predicted.

    Returns:
        `(target, layer, head, query)` in float64; the sum over queries is the ablation at all positions.
    """
    engine = prompt.engine
    n_pos = int(targets.positions.max()) + 1
    out = torch.zeros(len(targets), engine.n_layers, prompt.n_heads, prompt.n_pos, dtype=torch.float64)
    for level in pull(engine, targets):
        frozen, weights = prompt.frozen.layers[level.layer], engine.weights.layers[level.layer]
        assert frozen.residual is not None
        folded = engine.layers[level.layer]
        values = push_attention(folded, frozen.residual.to(level.z)[None], 0)[0]  # (1, key, kv_head, d_head)
        bias = level.z.new_zeros(values.shape[2:])
        if weights.ln1.bias is not None:
            bias = bias + weights.W_V.to(bias) @ weights.ln1.bias.to(bias)
        if weights.b_V is not None:
            bias = bias + weights.b_V.to(bias)
        # The folded pattern is divided by the norm's scales, which don't apply to biases.
        values = values + frozen.ln1_scale.to(bias)[:, None, None] * bias
        read = mixed(folded, values[:, :n_pos], 0)[0]  # (query, kv_head, group, d_head)
        shares = torch.einsum("qnga,tqnga->tngq", read, level.z)
        out[:, level.layer, :, :n_pos] = shares.flatten(1, 2).double().cpu()
    return out


class AttentionSubject:
    """A subject's prompt with its paths split by heads, and the heads to try.

    Args:
        subject: The graph on its model.
        count: Number of heads to try, half of them the strongest.
        seed: Seed for drawing the others.
    """

    def __init__(self, subject: Subject, count: int, seed: int) -> None:
        self.subject = subject
        self.prompt: FrozenPrompt = freeze_tokens(subject.tokens, subject.model)
        self.token_ids = _target_tokens(subject)
        self.effects = ablation_effects(self.prompt, self._targets())  # (target, layer, head, query)
        strength = self.effects.sum(-1).abs().sum(0).flatten()
        places = strong_and_random(range(len(strength)), strength, count, seed)
        order = sorted(places, key=lambda place: -float(strength[place]))
        self.heads = [divmod(place, self.prompt.n_heads) for place in order]

    def _targets(self) -> Targets:
        """The demeaned logits of the targets."""
        n, n_layers = len(self.token_ids), self.prompt.engine.n_layers
        unembedding = Unembedding(self.subject.model.model.W_U)
        rows = [unembedding.vector(token) - unembedding.mean() for token in self.token_ids]
        ends = torch.full((n,), n_layers), torch.full((n,), self.prompt.n_pos - 1)
        return Targets(*ends, torch.stack(rows).to(self.prompt.engine.dtype))

    def logits(self, edits: Sequence[HeadEdit], constraints: Constraints) -> Tensor:
        """Demeaned logits of the targets in float64; an edit that changes nothing keeps the pins."""
        with self.subject.model.zero_softcap():
            interventions, tokens = self.subject.model.interventions, self.subject.tokens
            last = interventions.run(tokens, edits, constraints, last_logits=True).logits[-1].double().cpu()
        return (last - last.mean())[self.token_ids]


def can_be_asked(subject: Subject) -> bool:
    """True if the family has a closed form and declares how it makes its scores, and a target is a token."""
    backend = subject.model.model
    try:
        backend.score_weights(0, len(subject.tokens))
    except UnsupportedArchitecture:
        return False
    return backend.has_closed_form and bool(_target_tokens(subject))


def _target_tokens(subject: Subject) -> list[int]:
    """The targets that are tokens, most likely first."""
    if "custom" in str(subject.graph.metadata.get("targets", "")):
        return []
    ids = subject.graph.logit_token_ids.cpu()
    known = ids[ids < min(subject.graph.cfg.d_vocab, subject.graph.vocab_size)]
    return list(dict.fromkeys(known.tolist()))


def _judged(subject: Subject, agrees: bool) -> bool | None:
    return None if rounded_to(subject.graph) else agrees


@torch.no_grad()
def measure_heads(about: AttentionSubject, phase: Phase | None = None) -> HeadAblation:
    """Turn heads off one at a time."""
    subject = about.subject
    everything = Constraints(constrained_layers=range(subject.n_layers))
    worst, agrees = 0.0, True
    told, free = [], []
    with phase or Phase() as phase:
        nothing = [HeadEdit(0, 0, value=Scaled(1.0))]
        pinned, loose = (about.logits(nothing, some) for some in (everything, FREE))
        for layer, head in phase.each(about.heads):
            off = [HeadEdit(layer, head)]
            wanted = about.effects[:, layer, head].sum(-1)
            lost = pinned - about.logits(off, everything)
            difference = (lost - wanted).abs()
            worst = max(worst, float(difference.max()))
            agrees = agrees and bool((difference <= ATOL + RTOL * wanted.abs()).all())
            told.append(float(wanted[0]))
            free.append(float((loose - about.logits(off, FREE))[0]))
    correlation = spearman(*(torch.tensor(some, dtype=torch.float64) for some in (told, free)))
    return HeadAblation(len(told), worst, _judged(subject, agrees), correlation)


@torch.no_grad()
def measure_scores_of_heads(about: AttentionSubject, phase: Phase | None = None) -> ScoreAblation:
    """Turn off the strongest pair of features of each head's strongest look."""
    subject = about.subject
    worst, agrees, exact = 0.0, True, True
    told, free = [], []
    with phase or Phase() as phase:
        for layer, head in phase.each(about.heads):
            look = _Look.of(about, layer, head)
            if look is None:
                continue
            exact = exact and look.score.weights.query.norm is None and look.score.weights.key.norm is None
            difference = abs(look.measured(subject, pinned=True) - look.predicted)
            worst = max(worst, difference)
            agrees = agrees and difference <= ATOL + 1e-3 * abs(look.predicted)
            told.append(look.predicted)
            free.append(look.measured(subject, pinned=False))
    correlation = spearman(*(torch.tensor(some, dtype=torch.float64) for some in (told, free)))
    return ScoreAblation(len(told), worst, _judged(subject, agrees) if exact else None, correlation)


@dataclass(frozen=True, slots=True)
class _Look:
    """Two keys of a head's look, the features of the strongest pair of their difference, and the effect of removing them."""

    score: Score
    query: int
    keys: tuple[int, int]
    edits: tuple[Intervention, ...]
    predicted: float

    @classmethod
    def of(cls, about: AttentionSubject, layer: int, head: int) -> _Look | None:
        """Choose the position with the strongest look; None without two keys or a pair of features."""
        prompt = about.prompt
        score = Score(prompt, layer, head)
        query = int(about.effects[:, layer, head].abs().sum(0).argmax())
        seen = [key for key in range(query + 1) if score.weights.sees(query, key)]
        if layer == 0 or len(seen) < 2:
            return None
        order = score.pattern[query, seen].argsort(descending=True)[:2].tolist()
        keys = seen[order[0]], seen[order[1]]
        Q = score.factor("query", ((query, 1.0),))
        K = [score.factor("key", ((key, 1.0),)) for key in keys]
        both = score.factor("key", ((keys[0], 1.0), (keys[1], -1.0)))
        nodes = prompt.node_of_column
        n_features = len(prompt.active)
        places, _ = top_pairs(Q.sources, both.sources, PAIRS)
        pair = next((p for p in places.tolist() if max(int(nodes[c]) for c in p) < n_features), None)
        if pair is None:
            return None
        columns = sorted(set(pair))
        before, after = (
            [score.weights.capped(float(_without(Q, gone) @ _without(one, gone))) for one in K]
            for gone in ([], columns)
        )
        edits = [prompt.active.indices[int(nodes[column])].tolist() for column in columns]
        return cls(
            score, query, keys, tuple(Intervention(at[0], at[1], at[2], 0.0) for at in edits),
            (after[0] - after[1]) - (before[0] - before[1]),
        )  # fmt: skip

    def measured(self, subject: Subject, *, pinned: bool) -> float:
        """The change in the model itself of the logarithm of the ratio of attention to the two keys."""
        before, after = (self._log_ratio(subject, edits, pinned) for edits in ((), self.edits))
        return after - before

    def _log_ratio(self, subject: Subject, edits: Sequence[Intervention], pinned: bool) -> float:
        interventions, tokens = subject.model.interventions, subject.tokens
        constraints = Constraints(constrained_layers=range(subject.n_layers)) if pinned else FREE
        cells = resolve(edits, len(tokens), interventions.transcoders)
        original = interventions.unmodified(tokens).at
        edited = EditedPass(
            interventions.site,
            cells,
            interventions.pins(tokens, constraints),
            original,
            tokens.zero_positions,
        )
        seen: list[Tensor] = []
        hooks = dict(edited.hooks().by_name)
        name = interventions.site.names.patterns[self.score.layer]
        # Before the pin: the attention that the head would pay for its current input.
        hooks[name] = [
            lambda pattern: seen.append(pattern[0, self.score.head, self.query]),
            *hooks.get(name, []),
        ]
        subject.model.model.run(tokens.ids, Hooks(hooks))
        row = seen[0].double().clamp(min=1e-38).log()
        return float(row[self.keys[0]] - row[self.keys[1]])


def _without(factor: Factor, columns: Sequence[int]) -> Tensor:
    """The full vector `(d_head)` of one side minus some sources; those that don't reach it aren't among its columns."""
    there = [column for column in columns if column < factor.sources.shape[1]]
    return factor.whole - factor.sources[:, there].sum(1)
