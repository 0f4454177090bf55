"""`intervene`: run a prompt with feature edits, and print the model's output before and after."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli import request_options as ask
from circuit_tracer_cli.cli.destinations import STREAM
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output, number, quoted, visible
from circuit_tracer_cli.cli.progress import progress_on
from circuit_tracer_cli.cli.request_options import request_from
from circuit_tracer_cli.errors import (
    BadIntervention,
    MissingFile,
    UnsuitableIntervention,
    UnsuitablePrompt,
    UsageError,
)
from circuit_tracer_cli.files.inputs import (
    LARGEST_TEXT,
    kind_of_file,
    open_pipe,
    read_file,
    read_limited,
)

if TYPE_CHECKING:
    from circuit_tracer_cli.interventions.experiment import Experiment
    from circuit_tracer_cli.interventions.generate import Sampling
    from circuit_tracer_cli.interventions.plan import Plan
    from circuit_tracer_cli.interventions.spec import AnyEdit
    from circuit_tracer_cli.prepare import Prepared
    from circuit_tracer_cli.types import Progress
EDITS, PINS, SHOWN = "Edits", "What is frozen", "Output"

EditOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--edit",
        "-e",
        metavar="EDIT",
        help="LAYER/FEATURE@POS=VALUE. POS: 3, -1, 2:5 or 6: (to the end and beyond). VALUE: 4.5, x2 or off. Repeatable.",
        rich_help_panel=EDITS,
    ),
]
HeadOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--head",
        metavar="EDIT",
        help="L14H3@POS=VALUE: change where a head looks from POS (default all). VALUE: off, x0.5, or @4 for there. Repeatable.",
        rich_help_panel=EDITS,
    ),
]
PlanOpt = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Read saved edits and settings; - reads stdin.", rich_help_panel=EDITS),
]
SavePlanOpt = Annotated[
    str | None, typer.Option(metavar="FILE", help="Save edits and settings as JSON.", rich_help_panel=EDITS)
]
GraphOpt = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="A viewer file (.json) with named supernodes; - reads stdin.",
        rich_help_panel=EDITS,
    ),
]
SupernodeOpt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Edit the features of this supernode. Repeatable.", rich_help_panel=EDITS
    ),
]
FactorOpt = Annotated[
    str,
    typer.Option(metavar="FACTOR", help="Multiply supernodes by this, or off.", rich_help_panel=EDITS),
]
FreezeOpt = Annotated[
    bool | None,
    typer.Option(
        "--freeze-attention/--no-freeze-attention",
        show_default="freeze-attention",
        help="Keep the attention patterns of the unedited run.",
        rich_help_panel=PINS,
    ),
]
ConstrainedOpt = Annotated[
    str | None,
    typer.Option(
        metavar="FIRST:END",
        help="Freeze these layers' outputs except for the edits; : is all layers.",
        rich_help_panel=PINS,
    ),
]
GenerateOpt = Annotated[
    int, typer.Option(min=0, metavar="N", help="Also continue the prompt by N tokens.", rich_help_panel=SHOWN)
]
TemperatureOpt = Annotated[
    float,
    typer.Option(
        min=0, metavar="T", help="Sampling temperature; 0 takes the most likely token.", rich_help_panel=SHOWN
    ),
]
SeedOpt = Annotated[int, typer.Option(metavar="N", help="Sampling seed.", rich_help_panel=SHOWN)]
TopKOpt = Annotated[
    int, typer.Option(min=1, metavar="N", help="List the N most likely tokens.", rich_help_panel=SHOWN)
]

EMBEDDED = ("demo-clt", "demo-plt")
"""The names of the embedded transcoders in graphs and for `-t`."""
LARGEST_GRAPH_FILE = 2 << 30
"""Largest viewer file that is read, in bytes."""
MOST_FEATURES = 20
"""Number of edited features that are listed; `--json` has all of them."""


def intervene(
    ctx: typer.Context,
    prompt: ask.OptionalPromptOpt = None,
    transcoder_set: ask.OptionalSetOpt = None,
    model: ask.ModelOpt = None,
    chat: ask.ChatOpt = False,
    system: ask.SystemOpt = None,
    prefill: ask.PrefillOpt = None,
    edit: EditOpt = None,
    head: HeadOpt = None,
    plan: PlanOpt = None,
    save_plan: SavePlanOpt = None,
    graph: GraphOpt = None,
    supernode: SupernodeOpt = None,
    factor: FactorOpt = "off",
    freeze_attention: FreezeOpt = None,
    constrained_layers: ConstrainedOpt = None,
    generate: GenerateOpt = 0,
    temperature: TemperatureOpt = 0.0,
    seed: SeedOpt = 0,
    top_k: TopKOpt = 5,
    dtype: ask.DTypeOpt = "float32",
    device: ask.DeviceOpt = "auto",
    device_map: ask.DeviceMapOpt = None,
    backend: ask.BackendOpt = "auto",
    offline: ask.OfflineOpt = False,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Change features, or turn attention heads off, and see what the model says then.

    Features are written as in `show`: layer/feature@position; heads as in `heads`: L14H3. Without -t, the embedded demo is used.
    """
    output = Output(quiet=quiet)
    _check_combination(prompt, [*(edit or ()), *(head or ())], plan, graph, supernode)
    if chat and prompt is None:
        raise UsageError(
            "--chat needs --prompt: the prompt of a plan or graph is in its template already",
            "omit --chat",
        )
    layers = None if constrained_layers is None else _layer_ends(constrained_layers)
    silence_libraries(output, offline=offline)
    typed = request_from(ctx.params)
    from circuit_tracer_cli.interventions.spec import parse_factor, parse_head_edit, parse_intervention
    from circuit_tracer_cli.prepare import prepare

    edits = (*map(parse_intervention, edit or ()), *map(parse_head_edit, head or ()))
    parse_factor(factor)
    wanted, scan = _gathered(edits, plan, graph, supernode, factor, output)
    wanted = _overridden(wanted, typed.prompt, transcoder_set, model, freeze_attention, layers)
    wanted = _complete(wanted, scan)
    request = replace(
        typed,
        prompt=wanted.prompt,
        transcoder_set=wanted.transcoder_set or "demo",
        model=wanted.model,
    )
    with progress_on(output, bars=True) as progress:
        prepared = prepare(request, progress=progress)
        wanted = replace(wanted, prompt=prepared.text)
        _check_edits(prepared, wanted, scan, generates=generate > 0)
        sampling = _sampling(generate, temperature, seed)
        experiment = _run(prepared, wanted, progress, top_k, sampling)
    if save_plan is not None:
        _save(wanted, save_plan)
    if json_:
        output.data(
            {"prompt": wanted.prompt, "edits": [str(one) for one in wanted.edits], **experiment.to_dict()}
        )
    else:
        _print(experiment, output)


def _complete(plan: Plan, scan: str | None) -> Plan:
    """Return the plan with the embedded set that a graph was made with. Raises if it has no prompt or no edits."""
    if not plan.prompt:
        raise UnsuitablePrompt("the plan or graph has no prompt", 'add --prompt "The capital of Texas is"')
    if not plan.edits:
        raise UnsuitableIntervention("nothing to change: the plan has no edits", "add --edit 3/120@-1=off")
    return replace(plan, transcoder_set=scan) if plan.transcoder_set is None and scan in EMBEDDED else plan


def _sampling(n_tokens: int, temperature: float, seed: int) -> Sampling | None:
    """Return how continuations are sampled, or None if none are wanted."""
    from circuit_tracer_cli.interventions.generate import Sampling

    return Sampling(max_new_tokens=n_tokens, temperature=temperature, seed=seed) if n_tokens else None


def _check_combination(
    prompt: str | None,
    edit: Sequence[str] | None,
    plan: str | None,
    graph: str | None,
    supernode: Sequence[str] | None,
) -> None:
    """Raise UsageError if there is nothing to change, or a graph is named without a supernode or the other way round."""
    if supernode and graph is None:
        raise UsageError("--supernode needs the graph file that names it", "add --graph FILE")
    if graph is not None and not supernode:
        raise UsageError("--graph needs a supernode to edit", "add --supernode NAME")
    if [prompt, plan, graph].count(STREAM) > 1:
        raise UsageError(
            "only one of prompt, plan and graph can come from stdin", "name files for the others"
        )
    if not (edit or plan or supernode):
        raise UsageError("nothing to change: no edits are given", "for example --edit 3/120@-1=off")
    if plan is None and graph is None and not (prompt or "").strip():
        raise _no_prompt()


def _no_prompt() -> UsageError:
    return UsageError("there is no prompt", 'add --prompt "The capital of Texas is"')


def _layer_ends(text: str) -> tuple[int, int | None]:
    """Return the first layer and the one after the last. Raises BadIntervention."""
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
    typed: Sequence[AnyEdit],
    plan: str | None,
    graph: str | None,
    supernode: Sequence[str] | None,
    factor: str,
    output: Output,
) -> tuple[Plan, str | None]:
    """Return all edits of the plan, the command line and the supernodes, and the `scan` of the graph that they come from.

    The graph's prompt is used if there is no other.
    """
    from circuit_tracer_cli.interventions.plan import Plan, plan_from_json

    gathered = Plan() if plan is None else plan_from_json(_content(plan, "plan"))
    edits = [*gathered.edits, *typed]
    prompt, scan = gathered.prompt, None
    if graph is not None:
        from circuit_tracer_cli.export.graph_json import read_graph_json
        from circuit_tracer_cli.interventions.spec import supernode_edits

        file = read_graph_json(_content(graph, "graph file"), graph)
        for name in supernode or ():
            found, others = supernode_edits(file.qParams.supernodes, name, factor)
            edits += found
            if others:
                output.note(
                    f"{len(others)} nodes of supernode {name!r} aren't features and stay unchanged: {', '.join(others)}"
                )
        prompt, scan = prompt or file.metadata.prompt, file.metadata.scan
    return replace(gathered, edits=tuple(edits), prompt=prompt), scan


def _content(path: str, what: str) -> bytes:
    limit = {"plan": LARGEST_TEXT, "graph file": LARGEST_GRAPH_FILE}[what]
    if path == STREAM:
        return read_limited(sys.stdin.buffer, f"the {what} on stdin", limit)
    try:
        if kind_of_file(path) == "pipe":
            stream, first = open_pipe(path)
            with stream:
                return first + read_limited(stream, path, limit)
        return read_file(path, limit)
    except MissingFile as error:
        raise MissingFile(f"{what} {error.message}", error.hint) from None
    except OSError as error:
        made_by = {"plan": "`intervene --save-plan FILE`", "graph file": "`export GRAPH --slug NAME`"}[what]
        raise MissingFile(
            f"{what} {path} can't be read: {(error.strerror or str(error)).lower()}",
            f"check the path; {made_by} makes one",
        ) from None


def _overridden(
    plan: Plan,
    prompt: str | None,
    transcoder_set: str | None,
    model: str | None,
    freeze_attention: bool | None,
    layers: tuple[int, int | None] | None,
) -> Plan:
    """Return the plan, overridden by the command line. Features of another set mean something else, so the sets must agree."""
    if transcoder_set is not None and plan.transcoder_set not in (None, transcoder_set):
        raise UnsuitableIntervention(
            f"the plan edits features of {plan.transcoder_set}, but --transcoder-set says {transcoder_set}",
            hint="omit --transcoder-set",
        )
    ends = plan.constrained_layers
    return replace(
        plan,
        prompt=plan.prompt if prompt is None else prompt,
        transcoder_set=transcoder_set or plan.transcoder_set,
        model=model or plan.model,
        freeze_attention=plan.freeze_attention if freeze_attention is None else freeze_attention,
        constrained_layers=ends if layers is None else layers,
    )


def _check_edits(prepared: Prepared, plan: Plan, scan: str | None, *, generates: bool) -> None:
    """Raise BadIntervention for an edit that doesn't fit the set or the prompt, before weights are read.

    `scan` names the transcoders of the graph that the features come from; in other sets they mean something else.
    """
    from circuit_tracer_cli.interventions.cells import resolve
    from circuit_tracer_cli.interventions.heads import resolve_heads

    described, tokens = prepared.setup.described, prepared.tokens
    assert described is not None
    assert tokens is not None
    known = described.config.scan
    if scan is not None and isinstance(known, str) and known != scan:
        raise UnsuitableIntervention(
            f"the graph's features are of {scan}, but {prepared.request.transcoder_set} is {known}",
            "name the graph's own with --transcoder-set",
        )
    shape = prepared.setup.shape
    rows = resolve_heads(plan.edits, len(tokens), shape.n_layers, shape.n_heads)
    if not resolve(plan.edits, len(tokens), described.shape) and not rows and not generates:
        raise UnsuitableIntervention(
            f"every edit begins after the prompt's {len(tokens)} tokens, and nothing is generated",
            "add --generate 10",
        )


def _run(
    prepared: Prepared, plan: Plan, progress: Progress, top_k: int, sampling: Sampling | None
) -> Experiment:
    """Load the model and run it with and without the edits."""
    from circuit_tracer_cli.interventions.experiment import run_experiment
    from circuit_tracer_cli.interventions.generate import stop_tokens
    from circuit_tracer_cli.pipeline import load_model

    assert prepared.tokens is not None
    model = load_model(prepared, progress)
    tokens = model.tokenize(prepared.tokens)
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
    """Print the edited features, the next token before and after, and both continuations."""
    if experiment.features:
        _print_features(experiment, output)
    if experiment.heads:
        _print_heads(experiment, output)
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


def _print_features(experiment: Experiment, output: Output) -> None:
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
            f"{len(idle)} of {len(experiment.features)} edited features already have the value that they are set to"
            + (
                ": they are inactive here, so a factor leaves them at 0"
                if not any(f.after for f in idle)
                else ""
            )
        )
    if len(shown) < len(experiment.features):
        output.result(f"… and {len(experiment.features) - len(shown)} more")


def _print_heads(experiment: Experiment, output: Output) -> None:
    """Print where each changed head looked, and how that was changed."""
    shown = experiment.heads[:MOST_FEATURES]
    output.table(
        "Edited heads",
        ("head", "token", "looked at", "attention#", "edit"),
        [
            (
                f"L{one.layer}H{one.head}@{one.position}",
                quoted(experiment.tokens[one.position], 20),
                f"{one.key} {quoted(experiment.tokens[one.key], 20)}",
                f"{one.attention:.0%}",
                one.edit,
            )
            for one in shown
        ],
    )
    if len(shown) < len(experiment.heads):
        output.result(f"… and {len(experiment.heads) - len(shown)} more")


def _arrow(change: float) -> str:
    return "↑" if change > 0.0005 else "↓" if change < -0.0005 else ""
