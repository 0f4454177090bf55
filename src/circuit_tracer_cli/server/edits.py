"""Edits on the server's model: the body of `POST /api/runs`, and the work that measures what they change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator

from circuit_tracer_cli.errors import InvalidValue, ModelMismatch
from circuit_tracer_cli.server.bodies import RequestBody, parsed
from circuit_tracer_cli.server.model import Desk, scan_name
from circuit_tracer_cli.server.runs import Work
from circuit_tracer_cli.types import Progress

if TYPE_CHECKING:
    from circuit_tracer_cli.interventions.experiment import Experiment, FeatureChange
    from circuit_tracer_cli.interventions.plan import Plan
    from circuit_tracer_cli.interventions.spec import Intervention
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.tokens import Tokens

_EXAMPLE = 'for example {"prompt": "…", "edits": ["3/120@-1=off"]}'


class AboutPrompt(RequestBody):
    """The graph and prompt that a request is about.

    Attributes:
        prompt: The text, as in the graph file.
        prompt_tokens: The graph's tokens; if the model tokenizes the prompt differently, the request is refused.
        scan: The graph's transcoders; if they aren't the server's, the request is refused.
    """

    prompt: str = ""
    prompt_tokens: Annotated[list[str], Field(max_length=1 << 20)] | None = None
    scan: str | None = None


def model_and_tokens(desk: Desk, wanted: AboutPrompt) -> tuple[ReplacementModel, Tokens]:
    """Return the server's model and a request's prompt. Raises ModelMismatch if the graph was made with another model."""
    model = desk.runner.model
    assert model is not None
    if wanted.scan is not None and wanted.scan != scan_name(model):
        raise ModelMismatch(
            f"the graph was made with {wanted.scan}, but this server runs {scan_name(model)}",
            hint=f"circuit-tracer serve DIR --transcoder-set {wanted.scan}",
        )
    with desk.runner.reading:
        tokens = model.tokenize(wanted.prompt)
    if wanted.prompt_tokens is not None and list(tokens.strings) != wanted.prompt_tokens:
        raise ModelMismatch(
            f"this model splits the prompt into {len(tokens)} tokens, which differ from the graph's",
            hint="use the model that the graph was made with: circuit-tracer serve DIR --model MODEL",
        )
    return model, tokens


class RunRequest(AboutPrompt):
    """The body of `POST /api/runs`.

    Attributes:
        edits: Strings `LAYER/FEATURE@POS=VALUE`, or `L14H3@POS=VALUE` for a head.
        watch: Ids of features and logits to report changes of.
        constrained_layers: `[first, end]`, see `Plan`.
        freeze_attention: Pin the attention patterns.
        generate: Number of tokens to continue the prompt by, with and without the edits.
        temperature: 0 takes the most likely tokens.
        seed: Sampling seed.
        top_k: Number of most likely tokens to return, before and after.
    """

    edits: Annotated[list[str], Field(max_length=4096)] = Field([])
    watch: Annotated[list[str], Field(max_length=1024)] = Field([])
    constrained_layers: Annotated[list[int | None], Field(min_length=2, max_length=2)] | None = None
    freeze_attention: bool = True
    generate: Annotated[int, Field(ge=0, le=256)] = 0
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.0
    seed: Annotated[int, Field(ge=0, le=1 << 62)] = 0
    top_k: Annotated[int, Field(ge=1, le=50)] = 6

    @field_validator("constrained_layers")
    @classmethod
    def _has_a_first_layer(cls, value: list[int | None] | None) -> list[int | None] | None:
        if value is not None and value[0] is None:
            raise ValueError("must be [first, end], for example [0, null] for all layers")
        return value


def plan_edits(desk: Desk, body: object, _path: Mapping[str, Any]) -> Work:
    """Return the work of a request's edits. Raises UsageError for a body that is invalid for any model."""
    from circuit_tracer_cli.interventions.plan import Plan
    from circuit_tracer_cli.interventions.spec import parse_intervention

    wanted = parsed(RunRequest, body, _EXAMPLE)
    if not wanted.prompt:
        raise InvalidValue("the prompt is empty", "send the graph's prompt")
    if not wanted.edits:
        raise InvalidValue("no edits are given", "for example 3/120@-1=off")
    layers = wanted.constrained_layers
    plan = Plan(
        edits=tuple(parse_intervention(text) for text in wanted.edits),
        constrained_layers=None if layers is None or layers[0] is None else (layers[0], layers[1]),
        freeze_attention=wanted.freeze_attention,
    )
    return lambda progress: _run(desk, wanted, plan, progress)


def _run(desk: Desk, wanted: RunRequest, plan: Plan, progress: Progress) -> dict[str, Any]:
    from circuit_tracer_cli.interventions.experiment import run_experiment
    from circuit_tracer_cli.interventions.generate import Sampling, stop_tokens

    model, tokens = model_and_tokens(desk, wanted)
    sampling = Sampling(
        max_new_tokens=max(1, wanted.generate),
        temperature=wanted.temperature,
        seed=wanted.seed,
        stop_at=stop_tokens(model.tokenizer),
    )
    features, logits = _watched(wanted.watch, model, len(tokens))
    experiment = run_experiment(
        model.interventions,
        tokens,
        plan,
        top_k=wanted.top_k,
        sampling=sampling if wanted.generate else None,
        watch=list(features.values()),
        also=list(logits.values()),
        progress=progress,
    )
    return {
        **experiment.to_dict(),
        "edits": [str(edit) for edit in plan.edits],
        "nodes": _node_changes(experiment, features, logits),
    }


def _watched(
    ids: list[str], model: ReplacementModel, n_pos: int
) -> tuple[dict[str, Intervention], dict[str, int]]:
    """The features and next tokens among node ids; others, such as errors and tokens in between, can't be measured."""
    from circuit_tracer_cli.interventions.spec import feature_edit

    features, logits = {}, {}
    for node_id in dict.fromkeys(ids):
        found = feature_edit(node_id, 0.0)
        if found is None or not isinstance(found.feature, int):
            continue
        if found.layer < model.cfg.n_layers:
            features[node_id] = found
        elif found.feature < model.cfg.d_vocab and found.position == n_pos - 1:
            logits[node_id] = found.feature
    return features, logits


def _node_changes(
    experiment: Experiment, features: Mapping[str, Intervention], logits: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Activation or probability before and after, by node id."""
    cells: dict[object, FeatureChange] = {
        (one.layer, one.feature, one.position): one for one in experiment.watched
    }
    tokens = {one.token: one for one in experiment.next_token.tokens}
    found: dict[str, dict[str, Any]] = {}
    for node_id, at in features.items():
        one = cells[at.layer, at.feature, at.position]
        found[node_id] = {"kind": "feature", "before": one.before, "after": one.after}
    for node_id, token in logits.items():
        found[node_id] = {"kind": "logit", "before": tokens[token].before, "after": tokens[token].after}
    return found
