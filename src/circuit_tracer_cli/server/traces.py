"""Graphs of new prompts on the server's model: `POST /api/traces`, `/api/traces/draft`, `/api/predictions`.

Importing this loads no torch.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from circuit_tracer_cli.errors import (
    BadGraphFile,
    BadPrompt,
    BadTarget,
    CircuitTracerError,
    InvalidValue,
    MissingFile,
)
from circuit_tracer_cli.export.slugs import check_slug, invent_slug
from circuit_tracer_cli.graph.defaults import EDGE_THRESHOLD, NODE_THRESHOLD
from circuit_tracer_cli.prepare import (
    Prepared,
    check_counts,
    check_targets,
    prepare,
    prompt_text,
    setup_of,
    with_completion,
)
from circuit_tracer_cli.request import TraceRequest
from circuit_tracer_cli.server.attention import forget_prompt
from circuit_tracer_cli.server.bodies import RequestBody, json_body, parsed
from circuit_tracer_cli.server.live import Both, LiveTrace, PartialGraphs, ended
from circuit_tracer_cli.server.model import Desk, memory_in_words, scan_name
from circuit_tracer_cli.server.replies import NO_STORE
from circuit_tracer_cli.server.runs import Run, Work, without_model

if TYPE_CHECKING:
    from circuit_tracer_cli.attribution.targets import TokenReader
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.tokens import Tokens

_LONGEST_SEARCH = 1000
_EXAMPLE = 'for example {"prompt": "The capital of France is"}'
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(TraceRequest)}
SETTINGS = ("max_n_logits", "desired_logit_prob", "max_feature_nodes", "batch_size")
_OPTIONS = (
    ("model", "-m"), ("system", "--system"), ("prefill", "--prefill"), ("max_n_logits", "--max-n-logits"),
    ("desired_logit_prob", "--desired-logit-prob"), ("max_feature_nodes", "--max-feature-nodes"),
    ("batch_size", "--batch-size"), ("update_interval", "--update-interval"), ("dtype", "--dtype"), ("precision", "--precision"),
    ("device", "--device"), ("device_map", "--device-map"), ("offload", "--offload"), ("backend", "--backend"),
)  # fmt: skip


Count = Annotated[int, Field(ge=1, le=1 << 30)]
Share = Annotated[float, Field(ge=0, le=1)]


class TraceBody(RequestBody):
    """The body of `POST /api/traces`, `/api/traces/draft` and `/api/predictions`.

    Attributes:
        prompt: The text, or the user's message in a conversation.
        chat, system, prefill: True to use the tokenizer's chat template, and the turns around the prompt.
        targets: As in `--target`; empty for the most likely tokens.
        completion: As in `--completion`, instead of `targets`.
        max_n_logits, desired_logit_prob, max_feature_nodes, batch_size: As for `attribute`.
        node_threshold, edge_threshold: How the graph file is pruned.
        slug: Name of the graph file; None for one made from the prompt.
    """

    prompt: str = ""
    chat: bool = False
    system: str | None = None
    prefill: str | None = None
    targets: Annotated[list[str], Field(max_length=256)] = Field([])
    completion: str | None = None
    max_n_logits: Count = _DEFAULTS["max_n_logits"]
    desired_logit_prob: Share = _DEFAULTS["desired_logit_prob"]
    max_feature_nodes: Annotated[int, Field(ge=0, le=1 << 30)] = _DEFAULTS["max_feature_nodes"]
    batch_size: Count = _DEFAULTS["batch_size"]
    node_threshold: Share = NODE_THRESHOLD
    edge_threshold: Share = EDGE_THRESHOLD
    slug: str | None = None

    def conversation(self, base: TraceRequest) -> TraceRequest:
        """Return the request that loaded the model, with this prompt and default targets and numbers. Raises BadPrompt."""
        return replace(
            base,
            prompt=self.prompt,
            chat=self.chat,
            system=self.system or None if self.chat else None,
            prefill=self.prefill or None if self.chat else None,
            completion=None,
            update_interval=_DEFAULTS["update_interval"],
            command="",
        )

    def request(self, base: TraceRequest) -> TraceRequest:
        """Return the full request. Raises as `TraceRequest`."""
        asked: dict[str, Any] = {name: getattr(self, name) for name in SETTINGS}
        completion = self.completion or None
        return replace(self.conversation(base), targets=tuple(self.targets), completion=completion, **asked)


def defaults() -> dict[str, Any]:
    """Return the default settings of a request."""
    settings = {name: _DEFAULTS[name] for name in SETTINGS}
    return {**settings, "node_threshold": NODE_THRESHOLD, "edge_threshold": EDGE_THRESHOLD}


def command_line(request: TraceRequest, body: TraceBody, slug: str, folder: Path) -> str:
    """Return the trace as a command for a POSIX shell, without options at their default."""
    words = ["circuit-tracer", "attribute", "-p", request.prompt or "", "-t", request.transcoder_set]
    for name, option in _OPTIONS:
        value = getattr(request, name)
        if value != _DEFAULTS[name]:
            words += [option, _number(value) if isinstance(value, float) else str(value)]
    words += ["--chat"] if request.chat else []
    words += [word for target in request.targets for word in ("--target", target)]
    words += [] if request.completion is None else ["--completion", request.completion]
    for wish, option in ((request.lazy_encoder, "lazy-encoder"), (request.lazy_decoder, "lazy-decoder")):
        words += [] if wish is None else [f"--{option}" if wish else f"--no-{option}"]
    words += ["--offline"] if request.offline else []
    for threshold, default, option in (
        (body.node_threshold, NODE_THRESHOLD, "--node-threshold"),
        (body.edge_threshold, EDGE_THRESHOLD, "--edge-threshold"),
    ):
        words += [] if threshold == default else [option, _number(threshold)]
    return shlex.join([*words, "--slug", slug, "--graph-file-dir", _shown(folder)])


def _number(value: float) -> str:
    """The shortest text that parses to the same number."""
    return repr(float(value)).removesuffix(".0")


def _shown(folder: Path) -> str:
    """A folder, by its relative path if it is below the current one."""
    try:
        here = Path.cwd()
    except OSError:
        return str(folder)
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)


class SlugTaken(InvalidValue):
    """Raised if the name belongs to another graph."""

    def __init__(self, slug: str, proposal: str) -> None:
        super().__init__(
            f"{slug!r} is the graph of another prompt or set", f"use another name, for example {proposal}"
        )
        self.proposal = proposal


class Tracing:
    """Traces of new prompts into a folder.

    Args:
        desk: The model, the folder, and where pages see the running trace.
    """

    def __init__(self, desk: Desk) -> None:
        self._runner, self._graphs, self._stage = desk.runner, desk.graphs, desk.stage

    def describe(self) -> dict[str, Any]:
        """Return what a page needs to know: default settings, the longest prompt, whether there is a chat template."""
        model = self._runner.model
        known = None if model is None else model.model.shape
        return {
            "defaults": defaults(),
            "chat": model is not None and bool(getattr(model.tokenizer, "chat_template", None)),
            "n_ctx": known and known.n_ctx,
        }

    def draft(self, body: object) -> dict[str, Any]:
        """Return what a request would become, as plain values: tokens, name, command, and its first error.

        Raises InvalidType or InvalidValue for a body that is invalid for any model.
        """
        wanted = parsed(TraceBody, body, _EXAMPLE)
        model = self._runner.model
        found: dict[str, Any] = {
            "tokens": None, "zeroed": 0, "notes": [], "slug": None, "replaces": False, "command": None, "problem": None,
        }  # fmt: skip
        if not wanted.prompt.strip():
            return found
        if model is None:
            try:
                return {**found, "slug": _named(wanted)}
            except InvalidValue as error:
                return {**found, "problem": _problem("slug", error)}
        setup, base = setup_of(model), self._base(model)
        with self._runner.reading:
            try:
                asked = wanted.conversation(base)
                tokens = setup.tokenize(prompt_text(asked, setup) or "")
            except CircuitTracerError as error:
                return {**found, "problem": _problem(_part_of(error), error)}
            found["tokens"] = [
                {"id": token, "text": text}
                for token, text in zip(tokens.ids.tolist(), tokens.strings, strict=True)
            ]
            found |= {"zeroed": len(tokens.zero_positions), "notes": list(tokens.notes)}
            try:
                asked = wanted.request(base)
                check_targets(asked, setup)
                check_counts(asked, setup)
                tokens, _ = with_completion(asked, setup, tokens)
            except CircuitTracerError as error:
                found["problem"] = _problem(_part_of(error), error)
        try:
            found["slug"] = self._slug(wanted, tokens, model)
            found["replaces"] = (self._graphs.root / f"{found['slug']}.json").exists()
        except InvalidValue as error:
            found["problem"] = found["problem"] or _problem("slug", error)
        if found["problem"] is None:
            found["command"] = self._command(asked, wanted, str(found["slug"]))
        return found

    def trace(self, body: object) -> Work:
        """Return the work that traces a request. Raises UsageError for errors that can be found now."""
        wanted = _with_prompt(body)
        if self._runner.model is not None:
            self._prepared(wanted, self._runner.model)
        return lambda run: self._trace(wanted, run)

    def predictions(self, body: object) -> Work:
        """Return the work that finds the most likely next tokens of a request's prompt. Raises as `trace`."""
        wanted = _with_prompt(body)
        model = self._runner.model
        if model is not None:
            with self._runner.reading:
                self._read(wanted, model)
        return lambda run: self._predictions(wanted, run)

    def _predictions(self, wanted: TraceBody, run: Run) -> dict[str, Any]:
        import torch

        from circuit_tracer_cli.attribution.targets import TokenReader
        from circuit_tracer_cli.graph.predictions import TOP_PREDICTIONS, top_predictions

        model = self._runner.model
        assert model is not None
        with memory_in_words(), torch.no_grad():
            with self._runner.reading:
                tokens = self._read(wanted, model)
            run.phase("forward pass")
            logits = model.frozen_pass(tokens.ids).logits
        reader = TokenReader(model.tokenizer, len(logits))
        found = top_predictions(logits, reader.decode)
        with self._runner.reading:
            said = [{**entry, "target": _as_target(reader, entry["token"], entry["id"])} for entry in found]
        return {TOP_PREDICTIONS: said}

    def _trace(self, wanted: TraceBody, run: Run) -> dict[str, Any]:
        from circuit_tracer_cli.export import Destination
        from circuit_tracer_cli.export.annotations import aside_note, is_aside
        from circuit_tracer_cli.export.viewer import export
        from circuit_tracer_cli.graph.prune import pruned_graph
        from circuit_tracer_cli.pipeline import trace_with

        model = self._runner.model
        assert model is not None
        ready, first_slug = self._prepared(wanted, model)
        request, tokens, folder = ready.request, _tokens(ready), self._graphs.root
        live = LiveTrace(first_slug, tokens.text, run=run.id)
        self._stage.trace = live
        partial = PartialGraphs(live, folder, wanted.node_threshold, wanted.edge_threshold)
        forget_prompt()
        with ended(live, "the server's log has the details"), memory_in_words():
            graph = trace_with(model, ready, Both(run, live), partial)
            run.phase("writing the graph")
            slug = self._slug(wanted, tokens, model, insist=False)
            command = self._command(request, wanted, slug)
            graph.metadata["command"] = command or ""
            pruned = pruned_graph(graph, wanted.node_threshold, wanted.edge_threshold)
            written = export(pruned, Destination(slug, folder), command=command)
        aside = next(filter(is_aside, written), None)
        return {
            "slug": slug,
            "command": command,
            "aside": None if aside is None else aside.name,
            "note": None if aside is None else aside_note(Path(aside.name)),
        }

    def _prepared(self, wanted: TraceBody, model: ReplacementModel) -> tuple[Prepared, str]:
        """Check what can be checked before the work, and choose the file's name. Raises BadPrompt, BadTarget, InvalidValue."""
        with self._runner.reading:
            ready = prepare(wanted.request(self._base(model)), setup_of(model))
        return ready, self._slug(wanted, _tokens(ready), model)

    def _read(self, wanted: TraceBody, model: ReplacementModel) -> Tokens:
        """Return the prompt's tokens. Raises BadPrompt, also for one that is too long."""
        setup, asked = setup_of(model), wanted.conversation(self._base(model))
        return model.tokenize(setup.tokenize(prompt_text(asked, setup) or ""))

    def _base(self, model: ReplacementModel) -> TraceRequest:
        return self._runner.request or _request_of(model)

    def _slug(
        self, wanted: TraceBody, tokens: Tokens, model: ReplacementModel, *, insist: bool = True
    ) -> str:
        """Return the file's name: the requested one, or one made from the prompt that no other graph has.

        Raises InvalidValue for a bad one, SlugTaken if `insist` is set and it belongs to another graph.
        """
        slug = _named(wanted)
        ours = tokens.text, scan_name(model)
        if not self._is_of_another(slug, ours):
            return slug
        numbered = (f"{slug}-{number}" for number in range(2, _LONGEST_SEARCH))
        free = next(
            (name for name in numbered if not self._is_of_another(name, ours)),
            f"{slug}-{secrets.token_hex(3)}",
        )
        if wanted.slug and insist:
            raise SlugTaken(slug, free)
        return free

    def _is_of_another(self, slug: str, ours: tuple[str, str]) -> bool:
        try:
            metadata = self._graphs.metadata(slug)
        except MissingFile:
            return False
        except BadGraphFile:
            return True
        return (metadata.get("prompt"), metadata.get("scan")) != ours

    def _command(self, request: TraceRequest, wanted: TraceBody, slug: str) -> str | None:
        """The command that makes the same file; None if it can't name the transcoders."""
        if not request.transcoder_set:
            return None
        return command_line(request, wanted, slug, self._graphs.root)


def _with_prompt(body: object) -> TraceBody:
    """Return the request in a body. Raises EmptyPrompt, InvalidType, InvalidValue."""
    wanted = parsed(TraceBody, body, _EXAMPLE)
    wanted.conversation(TraceRequest())
    return wanted


def _tokens(ready: Prepared) -> Tokens:
    assert ready.tokens is not None  # a body has a prompt
    return ready.tokens


def _part_of(error: CircuitTracerError) -> str:
    """The part of the page's form that an error is about."""
    if isinstance(error, BadPrompt):
        return "prompt"
    return "targets" if isinstance(error, BadTarget) else "settings"


def _named(wanted: TraceBody) -> str:
    """Return the requested name, or one made from the prompt. Raises InvalidValue."""
    return check_slug(wanted.slug) if wanted.slug else invent_slug(wanted.prompt)


def _as_target(reader: TokenReader, text: str, token: int) -> str:
    """Return the target string for a token: its own text if that is read as this token, else its id."""
    try:
        is_read = " - " not in text and reader.single_token(text, lambda message: None) == token
    except BadTarget:
        is_read = False
    return text if is_read else f"id:{token}"


def _problem(part: str, error: CircuitTracerError) -> dict[str, Any]:
    proposal = error.proposal if isinstance(error, SlugTaken) else None
    return {"part": part, "error": error.message, "hint": error.hint, "proposal": proposal}


def _request_of(model: ReplacementModel) -> TraceRequest:
    """Return a request that would load the given model; its set is empty if the set's name isn't known."""
    from circuit_tracer_cli.backends.devices import default_device
    from circuit_tracer_cli.backends.model_source import find_model
    from circuit_tracer_cli.transcoders.references import neuron_reference, resolve

    name = model.cfg.model_name
    reference = scan_name(model).replace("//", "/", 1)
    neurons = neuron_reference(reference) if model.transcoders.of_model else None
    try:
        if neurons is None:
            resolve(reference)
    except CircuitTracerError:
        reference = ""
    device = "auto" if model.device == default_device() else str(model.device)
    return TraceRequest(
        transcoder_set=reference if neurons is None else neurons.text,
        model=None if neurons is None and name == find_model("demo").name else name,
        dtype=str(model.dtype).removeprefix("torch."),
        device=device,
        backend=model.backend,
    )


def plan_trace(desk: Desk, body: object, _path: Mapping[str, Any]) -> Work:
    """Return the work of `POST /api/traces`. Raises UsageError."""
    return Tracing(desk).trace(body)


def plan_predictions(desk: Desk, body: object, _path: Mapping[str, Any]) -> Work:
    """Return the work of `POST /api/predictions`. Raises UsageError."""
    return Tracing(desk).predictions(body)


class TraceRoutes:
    """The endpoints in addition to the tasks: what can be traced, and what a request would become.

    Args:
        desk: The model and the folder; None for a server without a model.
        max_body: The largest request body in bytes.
    """

    def __init__(self, desk: Desk | None, max_body: int) -> None:
        self._tracing, self._max_body = None if desk is None else Tracing(desk), max_body

    def table(self) -> list[Route]:
        """All routes; they come before those of the tasks, whose `/api/traces` only takes POST."""
        return [
            Route("/api/traces", self.describe, methods=["GET"]),
            Route("/api/traces/draft", self.draft, methods=["POST"]),
        ]

    def describe(self, _request: Request) -> Response:
        """GET /api/traces: whether new prompts can be traced, and the default settings."""
        described = {} if self._tracing is None else self._tracing.describe()
        return JSONResponse({"possible": self._tracing is not None, **described}, headers=NO_STORE)

    async def draft(self, request: Request) -> Response:
        """POST /api/traces/draft: a prompt's tokens, its graph's name and command, and the request's first error."""
        if self._tracing is None:
            return without_model()
        found = await run_in_threadpool(self._tracing.draft, await json_body(request, self._max_body))
        return JSONResponse(found, headers=NO_STORE)
