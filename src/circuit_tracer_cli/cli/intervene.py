"""`intervene`: a prompt and feature edits in, what the model says before and after out."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from circuit_tracer_cli.cli import attribute_options as shared
from circuit_tracer_cli.cli import intervene_options as own
from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.destinations import STREAM
from circuit_tracer_cli.cli.errors import judged_by_files
from circuit_tracer_cli.cli.libraries import set_manners
from circuit_tracer_cli.cli.output import Output, number, quoted, visible
from circuit_tracer_cli.cli.progress import progress_on
from circuit_tracer_cli.errors import BadIntervention, MissingFile, UsageError

if TYPE_CHECKING:
    from circuit_tracer_cli.interventions.experiment import Experiment
    from circuit_tracer_cli.interventions.generate import Sampling
    from circuit_tracer_cli.interventions.plan import Plan
    from circuit_tracer_cli.interventions.spec import Intervention
    from circuit_tracer_cli.pipeline import TraceRequest
EMBEDDED = ("demo-clt", "demo-plt")
"""What graphs of the embedded transcoders call these, and `-t` too."""
MOST_FEATURES = 20
"""Edited features that are listed; `--json` has them all."""


def intervene(
    prompt: own.PromptOpt = None,
    transcoder_set: own.TranscoderSetOpt = None,
    model: shared.ModelOpt = None,
    chat: shared.ChatOpt = False,
    system: shared.SystemOpt = None,
    prefill: shared.PrefillOpt = None,
    edit: own.EditOpt = None,
    plan: own.PlanOpt = None,
    save_plan: own.SavePlanOpt = None,
    graph: own.GraphOpt = None,
    supernode: own.SupernodeOpt = None,
    factor: own.FactorOpt = "off",
    freeze_attention: own.FreezeOpt = None,
    constrained_layers: own.ConstrainedOpt = None,
    generate: own.GenerateOpt = 0,
    temperature: own.TemperatureOpt = 0.0,
    seed: own.SeedOpt = 0,
    top_k: own.TopKOpt = 5,
    dtype: shared.DTypeOpt = "float32",
    device: shared.DeviceOpt = "auto",
    device_map: shared.DeviceMapOpt = None,
    backend: shared.BackendOpt = "auto",
    offline: shared.OfflineOpt = False,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Set features to other values and see what the model says then.

    Features are written as in `show`: layer/feature@position. Without -t the embedded demo is used.
    """
    output = Output(quiet=quiet)
    _check_combination(prompt, edit, plan, graph, supernode)
    _check_chat(prompt, chat=chat, parts=(system, prefill))
    layers = None if constrained_layers is None else _layer_ends(constrained_layers)
    shared.check_places(device, device_map)
    set_manners(output, offline=offline)
    from circuit_tracer_cli.interventions.spec import parse_intervention
    from circuit_tracer_cli.interventions.supernodes import parse_factor
    from circuit_tracer_cli.pipeline import TraceRequest, check, offline_mode, with_whole_prompt

    edits = tuple(parse_intervention(text) for text in edit or ())
    parse_factor(factor)
    with judged_by_files(), offline_mode(offline):
        wanted, scan = _gathered(edits, plan, graph, supernode, factor, output)
        wanted = _overridden(wanted, prompt, transcoder_set, model, freeze_attention, layers)
        wanted = _complete(wanted, scan)
        request = TraceRequest(
            prompt=wanted.prompt or "", transcoder_set=wanted.transcoder_set or "demo", model=wanted.model,
            dtype=shared.long_dtype(dtype), device=device, device_map=device_map, backend=backend, offline=offline,
            chat=chat, system=system, prefill=prefill,
        )  # fmt: skip
        check(request)
        request = with_whole_prompt(request)
        wanted = replace(wanted, prompt=request.prompt)
        _check_edits(request, wanted, scan, generates=generate > 0)
        experiment = _run(request, wanted, output, top_k, _sampling(generate, temperature, seed))
    if save_plan is not None:
        _save(wanted, save_plan)
    _tell(wanted, experiment, output, as_json=json_)


def _complete(plan: Plan, scan: str | None) -> Plan:
    """The plan with the embedded set that a graph was made with. Raises for one without a prompt or without edits."""
    if not plan.prompt:
        raise _no_prompt()
    if not plan.edits:
        raise BadIntervention("nothing to change: the plan names no edit", "add --edit 3/120@-1=off")
    return replace(plan, transcoder_set=scan) if plan.transcoder_set is None and scan in EMBEDDED else plan


def _sampling(n_tokens: int, temperature: float, seed: int) -> Sampling | None:
    """How continuations are drawn; None where none is wanted."""
    from circuit_tracer_cli.interventions.generate import Sampling

    return Sampling(max_new_tokens=n_tokens, temperature=temperature, seed=seed) if n_tokens else None


def _tell(plan: Plan, experiment: Experiment, output: Output, *, as_json: bool) -> None:
    if as_json:
        edits = [str(one) for one in plan.edits]
        output.data({"prompt": plan.prompt, "edits": edits, **experiment.to_dict()})
    else:
        _print(experiment, output)


def _check_combination(
    prompt: str | None,
    edit: Sequence[str] | None,
    plan: str | None,
    graph: str | None,
    supernode: Sequence[str] | None,
) -> None:
    """Raise UsageError where nothing is to be changed, or a graph and a supernode don't come together."""
    if supernode and graph is None:
        raise UsageError("--supernode needs the graph file that names it", "add --graph FILE")
    if graph is not None and not supernode:
        raise UsageError("--graph alone changes nothing", "add --supernode NAME")
    if [prompt, plan, graph].count(STREAM) > 1:
        raise UsageError(
            "only one of prompt, plan and graph can come from stdin", "name files for the others"
        )
    if not (edit or plan or supernode):
        raise UsageError("nothing to change: no edit is named", "for example --edit 3/120@-1=off")
    if plan is None and graph is None and not (prompt or "").strip():
        raise _no_prompt()


def _check_chat(prompt: str | None, *, chat: bool, parts: tuple[str | None, str | None]) -> None:
    """Raise UsageError where a conversation isn't one: parts without --chat, or a prompt that is in its template already."""
    if not chat and any(part is not None for part in parts):
        raise UsageError("--system and --prefill are parts of a conversation", "add --chat")
    if chat and prompt is None:
        raise UsageError(
            "--chat needs --prompt: the prompt of a plan or graph is in its template already",
            "leave --chat out",
        )


def _no_prompt() -> UsageError:
    return UsageError("there is no prompt", 'add --prompt "The capital of Texas is"')


def _layer_ends(text: str) -> tuple[int, int | None]:
    """First layer and the one after the last. Raises BadIntervention."""
    parts = re.fullmatch(r"(\d{0,6}):(\d{0,6})", text.strip())
    if parts is None:
        raise BadIntervention(
            f"the range of layers {text!r} is not FIRST:END", hint="for example 0:4, or : for all"
        )
    first, end = int(parts[1] or 0), int(parts[2]) if parts[2] else None
    if end is not None and end <= first:
        raise BadIntervention(
            f"the range of layers {text!r} is empty", hint=f"for example {first}:{first + 1}"
        )
    return first, end


def _gathered(
    typed: Sequence[Intervention],
    plan: str | None,
    graph: str | None,
    supernode: Sequence[str] | None,
    factor: str,
    output: Output,
) -> tuple[Plan, str | None]:
    """All edits: those of the plan, of the command line, of supernodes; and the `scan` of the graph whose features they are.

    The graph's prompt is taken if there's no other.
    """
    from circuit_tracer_cli.interventions.plan import Plan, plan_from_json

    gathered = Plan() if plan is None else plan_from_json(_content(plan, "plan"))
    edits = [*gathered.edits, *typed]
    prompt, scan = gathered.prompt, None
    if graph is not None:
        from circuit_tracer_cli.export.graph_json import read_graph_json
        from circuit_tracer_cli.interventions.supernodes import supernode_edits

        file = read_graph_json(_content(graph, "graph file"), graph)
        for name in supernode or ():
            found, others = supernode_edits(file.qParams.supernodes, name, factor)
            edits += found
            if others:
                output.note(
                    f"{len(others)} nodes of supernode {name!r} are no features and stay: {', '.join(others)}"
                )
        prompt, scan = prompt or file.metadata.prompt, file.metadata.scan
    return replace(gathered, edits=tuple(edits), prompt=prompt), scan


def _content(path: str, what: str) -> bytes:
    if path == STREAM:
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        made_by = {"plan": "`intervene --save-plan FILE`", "graph file": "`export GRAPH --slug NAME`"}[what]
        raise MissingFile(
            f"{what} {path} can't be read: {(error.strerror or str(error)).lower()}",
            f"check the path; {made_by} writes one",
        ) from None


def _overridden(
    plan: Plan,
    prompt: str | None,
    transcoder_set: str | None,
    model: str | None,
    freeze_attention: bool | None,
    layers: tuple[int, int | None] | None,
) -> Plan:
    """The plan with what the command line says instead. Features of another set mean something else, so sets must agree."""
    if transcoder_set is not None and plan.transcoder_set not in (None, transcoder_set):
        raise BadIntervention(
            f"the plan edits features of {plan.transcoder_set}, but --transcoder-set says {transcoder_set}",
            hint="leave --transcoder-set out",
        )
    given = sys.stdin.read().removesuffix("\n") if prompt == STREAM else prompt
    ends = plan.constrained_layers
    return replace(
        plan,
        prompt=plan.prompt if given is None else given,
        transcoder_set=transcoder_set or plan.transcoder_set,
        model=model or plan.model,
        freeze_attention=plan.freeze_attention if freeze_attention is None else freeze_attention,
        constrained_layers=ends if layers is None else layers,
    )


def _check_edits(request: TraceRequest, plan: Plan, scan: str | None, *, generates: bool) -> None:
    """Raise BadIntervention for an edit that doesn't fit set or prompt, before any weight is read.

    `scan` names the transcoders of the graph that features were taken from; of others they mean something else.
    """
    from circuit_tracer_cli.backends.model_config import model_shape, read_config
    from circuit_tracer_cli.backends.tokenizers import load_tokenizer
    from circuit_tracer_cli.interventions.cells import resolve
    from circuit_tracer_cli.pipeline import model_folder
    from circuit_tracer_cli.tokens import ensure_tokenized
    from circuit_tracer_cli.transcoders.loading import inspect_transcoders

    described = inspect_transcoders(request.transcoder_set)
    known = described.config.scan
    if scan is not None and isinstance(known, str) and known != scan:
        raise BadIntervention(
            f"the graph names features of {scan}, and {request.transcoder_set} is {known}",
            "name the graph's own with --transcoder-set",
        )
    folder = model_folder(request.model or described.config.model_name)
    if folder is not None:
        d_vocab = model_shape(read_config(folder)).d_vocab
        tokens = ensure_tokenized(
            request.prompt, load_tokenizer(str(folder)), model_name=str(folder), d_vocab=d_vocab
        )
        if not resolve(plan.edits, len(tokens), described.shape) and not generates:
            raise BadIntervention(
                f"every edit begins after the prompt's {len(tokens)} tokens, and nothing is generated",
                "add --generate 10",
            )


def _run(
    request: TraceRequest, plan: Plan, output: Output, top_k: int, sampling: Sampling | None
) -> Experiment:
    """Load the model and run it without and with the edits."""
    from circuit_tracer_cli.interventions.experiment import run_experiment
    from circuit_tracer_cli.interventions.generate import stop_tokens
    from circuit_tracer_cli.pipeline import load_model

    with progress_on(output, bars=True) as progress:
        model = load_model(request, progress)
        tokens = model.tokenize(request.prompt)
        for note in tokens.notes:
            progress.note(note)
        if sampling is not None:
            sampling = replace(sampling, stop_at=stop_tokens(model.tokenizer))
        return run_experiment(
            model.interventions, tokens, plan, top_k=top_k, sampling=sampling, progress=progress
        )


def _save(plan: Plan, path: str) -> None:
    from circuit_tracer_cli.files.atomic import write_bytes

    write_bytes(path, replace(plan, transcoder_set=plan.transcoder_set or "demo").to_json().encode())


def _print(experiment: Experiment, output: Output) -> None:
    """Edited features, the next token before and after, and both continuations."""
    shown = experiment.features[:MOST_FEATURES]
    output.table(
        "Edited features",
        ("feature", "token", "before#", "after#"),
        [
            (
                f"{f.layer}/{f.feature}@{f.position}",
                quoted(experiment.tokens[f.position], 20),
                number(f.before),
                number(f.after),
            )
            for f in shown
        ],
    )
    idle = [f for f in experiment.features if f.before == f.after]
    if idle:
        output.note(
            f"{len(idle)} of {len(experiment.features)} features have the value already that they are given"
            + (
                "; they aren't active here, and a factor of nothing is nothing"
                if not any(f.after for f in idle)
                else ""
            )
        )
    if len(shown) < len(experiment.features):
        output.result(f"… and {len(experiment.features) - len(shown)} more")
    output.result()
    output.table(
        "Next token",
        ("token", "before#", "after#", "rank#", ""),
        [
            (
                quoted(t.text, 24),
                f"{t.before:.2%}",
                f"{t.after:.2%}",
                f"{t.rank_before} → {t.rank_after}",
                _arrow(t.after - t.before),
            )
            for t in experiment.next_token.tokens
        ],
    )
    output.result(f"KL(before ‖ after) {number(experiment.next_token.kl)} nats")
    if experiment.continuation_after is not None:
        output.result()
        output.table(
            "Continuation",
            ("", ""),
            [
                ("before", visible(experiment.continuation_before or "")),
                ("after", visible(experiment.continuation_after)),
            ],
        )


def _arrow(change: float) -> str:
    return "↑" if change > 0.0005 else "↓" if change < -0.0005 else ""
