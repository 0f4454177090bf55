"""The model that a server can run edits on: loaded late, in the queue's thread. Importing this loads no torch."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circuit_tracer_cli.errors import InvalidType, InvalidValue, ModelMismatch
from circuit_tracer_cli.server.fields import flag, number, record, text, texts, whole
from circuit_tracer_cli.server.runs import Work
from circuit_tracer_cli.types import Progress

if TYPE_CHECKING:
    from circuit_tracer_cli.interventions.experiment import Experiment
    from circuit_tracer_cli.interventions.plan import Plan
    from circuit_tracer_cli.interventions.spec import Intervention
    from circuit_tracer_cli.prepare import Prepared
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.request import TraceRequest

_LOOK_SECONDS = 0.1
MOST_EDITS, MOST_WATCHED, MOST_NEW_TOKENS, MOST_TOKENS = 4096, 1024, 256, 50


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """The body of `POST /api/runs`.

    Args:
        prompt: The text, as the graph file has it.
        edits: `LAYER/FEATURE@POS=VALUE` each.
        watch: Node ids whose change is wanted: features and logits.
        prompt_tokens: The graph's tokens; if the model reads the prompt otherwise, the run is refused.
        scan: The graph's transcoders; if they aren't the server's, the run is refused.
        constrained_layers: `[first, end]`, see `Plan`.
        freeze_attention: Whether attention patterns are pinned.
        generate: Continue the prompt by so many tokens, without and with the edits.
        temperature: 0 takes the likeliest tokens.
        seed: Of the draws.
        top_k: So many of the likeliest tokens before and after.
    """

    prompt: str
    edits: tuple[str, ...]
    watch: tuple[str, ...] = ()
    prompt_tokens: tuple[str, ...] | None = None
    scan: str | None = None
    constrained_layers: tuple[int, int | None] | None = None
    freeze_attention: bool = True
    generate: int = 0
    temperature: float = 0.0
    seed: int = 0
    top_k: int = 6

    @classmethod
    def from_json(cls, body: object) -> RunRequest:
        """The request that a body means. Raises InvalidType or InvalidValue naming the part that is wrong."""
        given = record(body, cls.__dataclass_fields__, '{"prompt": "…", "edits": ["3/120@-1=off"]}')
        return cls(
            prompt=text(given, "prompt") or "",
            edits=texts(given, "edits", MOST_EDITS) or (),
            watch=texts(given, "watch", MOST_WATCHED) or (),
            prompt_tokens=texts(given, "prompt_tokens", 1 << 20),
            scan=text(given, "scan"),
            constrained_layers=_layers(given.get("constrained_layers")),
            freeze_attention=flag(given, "freeze_attention", True),
            generate=whole(given, "generate", 0, 0, MOST_NEW_TOKENS),
            temperature=number(given, "temperature", 0.0, 0, 100),
            seed=whole(given, "seed", 0, 0, 1 << 62),
            top_k=whole(given, "top_k", 6, 1, MOST_TOKENS),
        )


class ModelRunner:
    """A model and its transcoders, for a server's runs.

    Args:
        request: What to load; its prompt isn't read.
        model: The same, if it is loaded already.
        prepared: The request as `prepare` understood it, so that no file is read again.
        is_busy: Don't load it; somebody uses one now and hands it over with `adopt`.

    Attributes:
        reading: Held by who tokenises while the model may not be prepared yet. A fast tokenizer drops the padding and truncation
            that its file asks for at its first call, which must not happen beside another; later calls change nothing.
    """

    def __init__(
        self,
        request: TraceRequest | None = None,
        model: ReplacementModel | None = None,
        *,
        prepared: Prepared | None = None,
        is_busy: bool = False,
    ) -> None:
        self._request, self._model, self._prepared = request, model, prepared
        self.reading = threading.Lock()
        self._free = threading.Event()
        if not is_busy:
            self._free.set()

    def adopt(self, model: ReplacementModel) -> None:
        """Takes a model that was loaded elsewhere, and that nobody else uses from now on."""
        self._model = model
        self._free.set()

    @property
    def request(self) -> TraceRequest | None:
        """What it was loaded from, if it wasn't given."""
        return self._request

    @property
    def model(self) -> ReplacementModel | None:
        """The model; None until it's loaded."""
        return self._model

    def describe(self) -> dict[str, Any]:
        """See Runner."""
        model, request = self._model, self._request
        return {
            "model": model.cfg.model_name if model is not None else request and request.model,
            "transcoder_set": request.transcoder_set if request is not None else None,
            "scan": None if model is None else scan_name(model),
            "device": None if model is None else str(model.device),
        }

    def prepare(self, progress: Progress) -> None:
        """See Runner."""
        progress.phase("waiting for the trace to end")
        while not self._free.wait(_LOOK_SECONDS):
            progress.advance(0)
        if self._model is None:
            from circuit_tracer_cli.pipeline import load_model
            from circuit_tracer_cli.prepare import prepare

            assert self._request is not None
            self._model = load_model(self._prepared or prepare(self._request, progress=progress), progress)
        if self._model.tokenizer is not None:
            with self.reading:
                self._model.tokenizer.encode("a", add_special_tokens=False)

    def plan(self, body: object) -> Work:
        """See Runner."""
        from circuit_tracer_cli.interventions.plan import Plan
        from circuit_tracer_cli.interventions.spec import parse_intervention

        wanted = RunRequest.from_json(body)
        if not wanted.prompt:
            raise InvalidValue("the prompt is empty", "send the graph's prompt")
        if not wanted.edits:
            raise InvalidValue("nothing to change: no edit is named", "for example 3/120@-1=off")
        plan = Plan(
            edits=tuple(parse_intervention(text) for text in wanted.edits),
            constrained_layers=wanted.constrained_layers,
            freeze_attention=wanted.freeze_attention,
        )
        return lambda progress: self._run(wanted, plan, progress)

    def _run(self, wanted: RunRequest, plan: Plan, progress: Progress) -> dict[str, Any]:
        from circuit_tracer_cli.interventions.experiment import run_experiment
        from circuit_tracer_cli.interventions.generate import Sampling, stop_tokens

        model = self._model
        assert model is not None
        if wanted.scan is not None and wanted.scan != scan_name(model):
            raise ModelMismatch(
                f"the graph was made with {wanted.scan}, this server runs {scan_name(model)}",
                hint=f"circuit-tracer serve DIR --transcoder-set {wanted.scan}",
            )
        with self.reading:
            tokens = model.tokenize(wanted.prompt)
        if wanted.prompt_tokens is not None and tokens.strings != wanted.prompt_tokens:
            raise ModelMismatch(
                f"this model reads the prompt as {len(tokens)} other tokens than the graph has",
                hint="name the model that the graph was made with: circuit-tracer serve DIR --model MODEL",
            )
        sampling = Sampling(
            max_new_tokens=max(1, wanted.generate),
            temperature=wanted.temperature,
            seed=wanted.seed,
            stop_at=stop_tokens(model.tokenizer),
        )
        features, logits = _watched(wanted.watch, model)
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


def scan_name(model: ReplacementModel) -> str:
    """What graphs call the model's transcoders."""
    from circuit_tracer_cli.export.viewer import scan_names

    return scan_names(model.scan)[0]


def _watched(ids: tuple[str, ...], model: ReplacementModel) -> tuple[dict[str, Intervention], dict[str, int]]:
    """The features and the tokens among node ids; others, such as errors, say nothing that can be measured."""
    from circuit_tracer_cli.interventions.supernodes import feature_edit

    features, logits = {}, {}
    for node_id in dict.fromkeys(ids):
        found = feature_edit(node_id, 0.0)
        if found is None or not isinstance(found.feature, int):
            continue
        if found.layer < model.cfg.n_layers:
            features[node_id] = found
        elif found.feature < model.cfg.d_vocab:
            logits[node_id] = found.feature
    return features, logits


def _node_changes(
    experiment: Experiment, features: Mapping[str, Intervention], logits: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Activation or probability before and after, by node id."""
    cells = {(one.layer, one.feature, one.position): one for one in experiment.watched}
    tokens = {one.token: one for one in experiment.next_token.tokens}
    found: dict[str, dict[str, Any]] = {}
    for node_id, at in features.items():
        one = cells[at.layer, at.feature, at.position]  # type: ignore[index]
        found[node_id] = {"kind": "feature", "before": one.before, "after": one.after}
    for node_id, token in logits.items():
        found[node_id] = {"kind": "logit", "before": tokens[token].before, "after": tokens[token].after}
    return found


def _layers(value: object) -> tuple[int, int | None] | None:
    if value is None:
        return None
    fine = isinstance(value, list) and len(value) == 2 and type(value[0]) is int
    if not fine or type(value[1]) not in (int, type(None)):  # type: ignore[index]
        raise InvalidType("constrained_layers must be [first, end]", "for example [0, null] for all layers")
    return value[0], value[1]  # type: ignore[index]
