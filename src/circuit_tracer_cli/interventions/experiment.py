"""One plan run on one prompt, with and without its edits: what changed in the features, the next token and the continuation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from circuit_tracer_cli.errors import BadIntervention
from circuit_tracer_cli.interventions.cells import Edits, conflicts, resolve
from circuit_tracer_cli.interventions.compare import Comparison, compare
from circuit_tracer_cli.interventions.generate import Sampling, generate
from circuit_tracer_cli.interventions.plan import Plan
from circuit_tracer_cli.interventions.run import Constraints, Interventions
from circuit_tracer_cli.interventions.spec import Intervention
from circuit_tracer_cli.tokens import Tokens


@dataclass(frozen=True, slots=True)
class EditedFeature:
    """A feature at a position, with the activation that it had and the one that it was given."""

    layer: int
    position: int
    feature: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Experiment:
    """What edits did to a prompt.

    Attributes:
        tokens: The prompt's tokens as text.
        features: Every edited cell of the prompt.
        next_token: The distribution after the prompt, without and with the edits.
        continuation_before, continuation_after: Generated text, if asked for.
    """

    tokens: tuple[str, ...]
    features: tuple[EditedFeature, ...]
    next_token: Comparison
    continuation_before: str | None = None
    continuation_after: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)


def run_experiment(
    model: Interventions, tokens: Tokens, plan: Plan, *, top_k: int = 5, sampling: Sampling | None = None
) -> Experiment:
    """Run a plan on a prompt.

    Args:
        model: Model and transcoders.
        tokens: The prompt; the plan's own text isn't read.
        plan: Edits and what stays pinned.
        top_k: So many of the likeliest tokens, before and after.
        sampling: Also continue the prompt, without and with the edits.

    Raises:
        BadIntervention: An edit doesn't fit model or prompt, or two edits give one cell different values.
    """
    edits = list(plan.edits)
    clash = conflicts(edits, len(tokens), model.transcoders)
    if clash is not None:
        raise BadIntervention(
            f"the edits {clash[0]} and {clash[1]} give the same feature different values",
            hint="leave one of them out",
        )
    constraints = Constraints(
        constrained_layers=_layers(plan, model.site.n_layers), freeze_attention=plan.freeze_attention
    )
    features = _edited_features(model, tokens, resolve(edits, len(tokens), model.transcoders))
    before = model.run(tokens, (), constraints)
    after = model.run(tokens, edits, constraints)
    tokenizer = model.backend.tokenizer
    texts: list[str | None] = [None, None]
    if sampling is not None:
        texts = [_continuation(model, tokens, some, constraints, sampling) for some in ((), edits)]
    return Experiment(
        tokens.strings,
        features,
        compare(before.logits[-1], after.logits[-1], tokenizer, top_k),
        texts[0],
        texts[1],
    )


def _layers(plan: Plan, n_layers: int) -> range | None:
    if plan.constrained_layers is None:
        return None
    first, end = plan.constrained_layers
    return range(first, n_layers if end is None else end)


def _edited_features(model: Interventions, tokens: Tokens, edits: Edits) -> tuple[EditedFeature, ...]:
    """Every cell with its activation in the unmodified run and its new one."""
    found = []
    for layer, cells in edits.items():
        before = model.unmodified(tokens).at(layer, cells).double()
        rows = zip(
            cells.positions.tolist(),
            cells.features.tolist(),
            before.tolist(),
            cells.targets(before).tolist(),
            strict=True,
        )
        found += [EditedFeature(layer, position, feature, old, new) for position, feature, old, new in rows]
    return tuple(found)


def _continuation(
    model: Interventions,
    tokens: Tokens,
    edits: Sequence[Intervention],
    constraints: Constraints,
    sampling: Sampling,
) -> str:
    """The generated text alone."""
    generation = generate(model, tokens, edits, constraints, sampling)
    return str(model.backend.tokenizer.decode(generation.ids[len(tokens) :].tolist()))
