"""Run a plan on a prompt with and without its edits: changes in features, next token and continuation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.errors import UnsuitableIntervention
from circuit_tracer_cli.interventions.cells import Cells, Edits, conflicts, resolve
from circuit_tracer_cli.interventions.generate import Sampling, generate_steps
from circuit_tracer_cli.interventions.heads import head_conflict, queries_of
from circuit_tracer_cli.interventions.passes import Recording
from circuit_tracer_cli.interventions.plan import Plan
from circuit_tracer_cli.interventions.run import Constraints, Interventions, Unmodified
from circuit_tracer_cli.interventions.spec import AnyEdit, HeadEdit, Intervention
from circuit_tracer_cli.tokens import Tokens, TokenTexts
from circuit_tracer_cli.types import Progress, SilentProgress


@dataclass(frozen=True, slots=True)
class TokenChange:
    """One token before and after.

    Attributes:
        token: Its id.
        text: Decoded alone.
        before, after: Its probability.
        logit_before, logit_after: Its logit.
        rank_before, rank_after: Its rank among all tokens, from 1.
    """

    token: int
    text: str
    before: float
    after: float
    logit_before: float
    logit_after: float
    rank_before: int
    rank_after: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The next token's distribution before and after.

    Attributes:
        tokens: The most likely tokens of both, and requested ones, by probability afterwards.
        kl: KL(before ‖ after) in nats.
    """

    tokens: tuple[TokenChange, ...]
    kl: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def compare(
    before: Tensor, after: Tensor, tokenizer: Any, top_k: int = 5, also: Sequence[int] = ()
) -> Comparison:
    """Compare two rows of logits `(vocab)`: the `top_k` most likely tokens of each, and the ids `also`."""
    logits = torch.stack([before, after]).double().cpu()
    log_probabilities = logits.log_softmax(-1)
    probabilities = log_probabilities.exp()
    order = logits.argsort(dim=-1, descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(1, logits.shape[1] + 1).expand_as(order))
    wanted = dict.fromkeys([*order[1, :top_k].tolist(), *order[0, :top_k].tolist(), *also])
    texts = TokenTexts(tokenizer)
    changes = [
        TokenChange(
            token=token,
            text=texts[token],
            before=float(probabilities[0, token]),
            after=float(probabilities[1, token]),
            logit_before=float(logits[0, token]),
            logit_after=float(logits[1, token]),
            rank_before=int(ranks[0, token]),
            rank_after=int(ranks[1, token]),
        )
        for token in wanted
    ]
    kl = float((probabilities[0] * (log_probabilities[0] - log_probabilities[1])).sum())
    return Comparison(tuple(sorted(changes, key=lambda change: change.rank_after)), max(0.0, kl))


@dataclass(frozen=True, slots=True)
class FeatureChange:
    """A feature at a position, with its activation without the edits and the one set by or resulting from them."""

    layer: int
    position: int
    feature: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class HeadChange:
    """A changed look of a head from one position.

    Attributes:
        layer, head: The head.
        position: The position that it looks from.
        edit: How it was changed.
        key: The position that it looked at most.
        attention: The attention that it paid to that position.
    """

    layer: int
    head: int
    position: int
    edit: str
    key: int
    attention: float


@dataclass(frozen=True, slots=True)
class Experiment:
    """What edits did to a prompt.

    Attributes:
        tokens: The prompt's tokens as text.
        features: Every edited cell of the prompt.
        next_token: The distribution after the prompt, without and with the edits.
        watched: The watched features.
        continuation_before, continuation_after: Generated text, if requested.
        heads: Every changed pattern row of the prompt.
    """

    tokens: tuple[str, ...]
    features: tuple[FeatureChange, ...]
    next_token: Comparison
    watched: tuple[FeatureChange, ...] = ()
    continuation_before: str | None = None
    continuation_after: str | None = None
    heads: tuple[HeadChange, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def run_experiment(
    model: Interventions,
    tokens: Tokens,
    plan: Plan,
    *,
    top_k: int = 5,
    sampling: Sampling | None = None,
    watch: Sequence[Intervention] = (),
    also: Sequence[int] = (),
    progress: Progress | None = None,
) -> Experiment:
    """Run a plan on a prompt. The unmodified run and continuation of an earlier experiment on the same prompt are reused if kept.

    Args:
        model: Model and transcoders.
        tokens: The prompt; the plan's own text is ignored.
        plan: The edits, and what stays pinned.
        top_k: Number of most likely tokens to list, before and after.
        sampling: Also continue the prompt, without and with the edits.
        watch: Other features to report, given as edits whose values don't matter.
        also: Ids of other tokens to report.
        progress: Progress callback; an exception from it ends the experiment, with nothing left behind.

    Raises:
        BadIntervention: An edit doesn't fit model or prompt, or two edits give one cell different values.
    """
    progress = progress or SilentProgress()
    edits = list(plan.edits)
    model.heads(edits, len(tokens))
    clash = conflicts(edits, len(tokens), model.transcoders) or head_conflict(edits, len(tokens))
    if clash is not None:
        what = "look" if isinstance(clash[0], HeadEdit) else "feature"
        raise UnsuitableIntervention(
            f"the edits {clash[0]} and {clash[1]} give the same {what} different values",
            hint="omit one of them",
        )
    constraints = Constraints(
        constrained_layers=_layers(plan, model.site.n_layers), freeze_attention=plan.freeze_attention
    )
    cells = resolve(edits, len(tokens), model.transcoders)
    watched = resolve(watch, len(tokens), model.transcoders)
    progress.phase("unmodified run")
    before = model.unmodified(tokens)
    features, heads = _edited_features(before, cells), _edited_heads(before, edits, len(tokens))
    progress.phase("edited run")
    after = model.run(tokens, edits, constraints, Recording(cells=watched), last_logits=True)
    texts: list[str | None] = [None, None]
    if sampling is not None:
        texts = [_continuation(model, tokens, some, constraints, sampling, progress) for some in ((), edits)]
    return Experiment(
        tokens.strings,
        features,
        compare(before.frozen.logits, after.logits[-1], model.backend.tokenizer, top_k, also),
        _watched_features(before, watched, after.cells, features),
        texts[0],
        texts[1],
        heads,
    )


def _layers(plan: Plan, n_layers: int) -> range | None:
    if plan.constrained_layers is None:
        return None
    first, end = plan.constrained_layers
    return range(first, n_layers if end is None else end)


def _edited_features(unmodified: Unmodified, edits: Edits) -> tuple[FeatureChange, ...]:
    """Every edited cell with its activation in the unmodified run and its new one."""
    found: list[FeatureChange] = []
    for layer, cells in edits.items():
        before = unmodified.at(layer, cells).double()
        found += _changes(layer, cells, before, cells.targets(before))
    return tuple(found)


def _edited_heads(unmodified: Unmodified, edits: Sequence[AnyEdit], n_pos: int) -> tuple[HeadChange, ...]:
    """Every changed pattern row with where the head looked before; for two edits of a row, the one that counts."""
    found: dict[tuple[int, int, int], HeadChange] = {}
    for edit in edits:
        if isinstance(edit, HeadEdit):
            for query in queries_of(edit, n_pos):
                row = unmodified.frozen.layers[edit.layer].pattern[edit.head, query]
                key, what = int(row.argmax()), str(edit).partition("=")[2]
                place = (edit.layer, edit.head, query)
                found[place] = HeadChange(*place, what, key, float(row[key]))
    return tuple(found[place] for place in sorted(found))


def _watched_features(
    unmodified: Unmodified, watched: Edits, after: dict[int, Tensor], edited: Sequence[FeatureChange]
) -> tuple[FeatureChange, ...]:
    """Every watched cell with its activation before and after; an edited one has the value that it was set to."""
    given = {(change.layer, change.position, change.feature): change for change in edited}
    found: list[FeatureChange] = []
    for layer, cells in watched.items():
        found += _changes(layer, cells, unmodified.at(layer, cells), after[layer])
    return tuple(given.get((change.layer, change.position, change.feature), change) for change in found)


def _changes(layer: int, cells: Cells, before: Tensor, after: Tensor) -> list[FeatureChange]:
    columns = (cells.positions, cells.features, before, after)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [FeatureChange(layer, position, feature, old, new) for position, feature, old, new in rows]


def _continuation(
    model: Interventions,
    tokens: Tokens,
    edits: Sequence[AnyEdit],
    constraints: Constraints,
    sampling: Sampling,
    progress: Progress,
) -> str:
    """Only the generated text. Without edits, repeatable text is generated once per prompt."""
    kept = model.unmodified(tokens).continuations
    repeats = not edits and (sampling.seed is not None or sampling.temperature == 0 or not sampling.do_sample)
    if repeats and sampling in kept:
        return kept[sampling]
    progress.phase(
        "continuing with the edits" if edits else "continuing without edits", sampling.max_new_tokens
    )
    ids = []
    # Closed at once on an interruption, so that a traceback doesn't keep the cache alive.
    with closing(generate_steps(model, tokens, edits, constraints, sampling)) as steps:
        for step in steps:
            ids.append(step.token)
            progress.advance()
    text = str(model.backend.tokenizer.decode(ids))
    if repeats:
        kept[sampling] = text
    return text
