"""Traces of new prompts on the server's model: what a prompt would become, and the work that makes its graph.

Importing this loads no torch.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuit_tracer_cli.errors import (
    BadGraphFile,
    BadPrompt,
    BadTarget,
    CircuitTracerError,
    InvalidValue,
    MissingFile,
    OutOfMemory,
)
from circuit_tracer_cli.export.slugs import check_slug, invent_slug
from circuit_tracer_cli.prepare import (
    Prepared,
    check_counts,
    check_targets,
    prepare,
    prompt_text,
    setup_of,
)
from circuit_tracer_cli.request import TraceRequest
from circuit_tracer_cli.server.graphs import GraphFolder
from circuit_tracer_cli.server.live import LiveStage, LiveTrace
from circuit_tracer_cli.server.model import ModelRunner, scan_name
from circuit_tracer_cli.server.runs import Run, Work
from circuit_tracer_cli.server.trace_request import TraceBody, command_line, defaults

if TYPE_CHECKING:
    from circuit_tracer_cli.attribution.targets import TokenReader
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.tokens import Tokens

_LONGEST_SEARCH = 1000


class SlugTaken(InvalidValue):
    """The name belongs to another graph."""

    def __init__(self, slug: str, proposal: str) -> None:
        super().__init__(
            f"{slug!r} is the graph of another prompt or set", f"take another name, for example {proposal}"
        )
        self.proposal = proposal


class Tracing:
    """Traces new prompts into a folder.

    Args:
        runner: The model.
        graphs: The folder.
        stage: Where pages see the trace that is under way.
    """

    def __init__(self, runner: ModelRunner, graphs: GraphFolder, stage: LiveStage) -> None:
        self._runner, self._graphs, self._stage = runner, graphs, stage

    def describe(self) -> dict[str, Any]:
        """What a page must know to ask: settings by default; a loaded model's longest prompt, and if it has a chat template."""
        model = self._runner.model
        known = None if model is None else model.model.shape
        return {
            "defaults": defaults(),
            "chat": model is not None and bool(getattr(model.tokenizer, "chat_template", None)),
            "n_ctx": known and known.n_ctx,
        }

    def draft(self, body: object) -> dict[str, Any]:
        """What a request would become, as plain values: tokens, name, command, and the first thing that is wrong with it.

        Raises InvalidType or InvalidValue for a body that can't be meant.
        """
        wanted = TraceBody.from_json(body)
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
        """The work that traces a request. Raises UsageError for one that can't be meant, as far as that is known by now."""
        wanted = _with_prompt(body)
        if self._runner.model is not None:
            self._prepared(wanted, self._runner.model)
        return lambda run: self._trace(wanted, run)

    def predictions(self, body: object) -> Work:
        """The work that finds the likeliest next tokens of a request's prompt. Raises as `trace`."""
        wanted = _with_prompt(body)
        return lambda run: self._predictions(wanted, run)

    def _predictions(self, wanted: TraceBody, run: Run) -> dict[str, Any]:
        import torch

        from circuit_tracer_cli.attribution.targets import TokenReader
        from circuit_tracer_cli.graph.predictions import TOP_PREDICTIONS, top_predictions

        model = self._runner.model
        assert model is not None
        with memory_in_words(), torch.no_grad():
            with self._runner.reading:
                setup, asked = setup_of(model), wanted.conversation(self._base(model))
                tokens = model.tokenize(setup.tokenize(prompt_text(asked, setup) or ""))
            run.phase("forward pass")
            logits = model.frozen_pass(tokens.ids).logits
        reader = TokenReader(model.tokenizer, len(logits))
        found = top_predictions(logits, reader.decode)
        with self._runner.reading:
            said = [{**entry, "target": _as_target(reader, entry["token"], entry["id"])} for entry in found]
        return {TOP_PREDICTIONS: said}

    def _trace(self, wanted: TraceBody, run: Run) -> dict[str, Any]:
        from circuit_tracer_cli.export.annotations import aside_note, is_aside
        from circuit_tracer_cli.export.viewer import export
        from circuit_tracer_cli.pipeline import trace_with
        from circuit_tracer_cli.server.partial import Both, PartialGraphs, ended

        model = self._runner.model
        assert model is not None
        ready, first_slug = self._prepared(wanted, model)
        request, tokens, folder = ready.request, _tokens(ready), self._graphs.root
        live = LiveTrace(first_slug, tokens.text, run=run.id)
        self._stage.trace = live
        partial = PartialGraphs(live, folder, wanted.node_threshold, wanted.edge_threshold)
        with ended(live, "the server's log has the details"), memory_in_words():
            graph = trace_with(model, ready, Both(run, live), partial)
            run.phase("writing the graph")
            slug = self._slug(wanted, tokens, model, insist=False)
            command = self._command(request, wanted, slug)
            graph.metadata["command"] = command or ""
            written = export(
                graph,
                slug=slug,
                directory=folder,
                node_threshold=wanted.node_threshold,
                edge_threshold=wanted.edge_threshold,
                command=command,
            )
        aside = next(filter(is_aside, written), None)
        return {
            "slug": slug,
            "command": command,
            "aside": None if aside is None else aside.name,
            "note": None if aside is None else aside_note(Path(aside.name)),
        }

    def _prepared(self, wanted: TraceBody, model: ReplacementModel) -> tuple[Prepared, str]:
        """Everything that can be judged before the work, and the file's name. Raises BadPrompt, BadTarget, InvalidValue."""
        with self._runner.reading:
            ready = prepare(wanted.request(self._base(model)), setup_of(model))
        return ready, self._slug(wanted, _tokens(ready), model)

    def _base(self, model: ReplacementModel) -> TraceRequest:
        return self._runner.request or _request_of(model)

    def _slug(
        self, wanted: TraceBody, tokens: Tokens, model: ReplacementModel, *, insist: bool = True
    ) -> str:
        """The file's name: the one asked for, or one from the prompt that no other graph has.

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
        if wanted.slug is not None and insist:
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
        """The command that makes the same file; None where the transcoders can't be named in one."""
        if not request.transcoder_set:
            return None
        return command_line(request, wanted, slug, self._graphs.root)


@contextmanager
def memory_in_words() -> Iterator[None]:
    """Around work on the model: raises OutOfMemory for what Python and torch raise when there is no memory left."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        from circuit_tracer_cli.attribution.backoff import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            "there is not enough memory for this prompt",
            "shorten it, or lower the number of feature nodes; circuit-tracer estimate says what a trace needs",
        ) from error


def _with_prompt(body: object) -> TraceBody:
    """The request that a body means. Raises EmptyPrompt for one without a prompt, and as `TraceBody.from_json`."""
    wanted = TraceBody.from_json(body)
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
    """The name asked for, or one made from the prompt. Raises InvalidValue."""
    return invent_slug(wanted.prompt) if wanted.slug is None else check_slug(wanted.slug)


def _as_target(reader: TokenReader, text: str, token: int) -> str:
    """The text that means a token as a target: its own where that is read as this token, else its number."""
    try:
        is_read = " - " not in text and reader.single_token(text, lambda message: None) == token
    except BadTarget:
        is_read = False
    return text if is_read else f"id:{token}"


def _problem(part: str, error: CircuitTracerError) -> dict[str, Any]:
    proposal = error.proposal if isinstance(error, SlugTaken) else None
    return {"part": part, "error": error.message, "hint": error.hint, "proposal": proposal}


def _request_of(model: ReplacementModel) -> TraceRequest:
    """A request that would load a model that was given loaded; its set is empty where no name of it is known."""
    from circuit_tracer_cli.backends.devices import default_device
    from circuit_tracer_cli.backends.model_source import find_model
    from circuit_tracer_cli.transcoders.references import resolve

    reference = scan_name(model).replace("//", "/", 1)
    try:
        resolve(reference)
    except CircuitTracerError:
        reference = ""
    name = model.cfg.model_name
    device = "auto" if model.device == default_device() else str(model.device)
    return TraceRequest(
        transcoder_set=reference,
        model=None if name == find_model("demo").name else name,
        dtype=str(model.dtype).removeprefix("torch."),
        device=device,
        backend=model.backend,
    )
