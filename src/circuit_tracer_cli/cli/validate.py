"""`validate`: a graph measured on the model that it was made from."""

from __future__ import annotations

import shlex
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli import request_options as ask
from circuit_tracer_cli.cli.destinations import STREAM, check_graph_destination, read_graph, write_graph
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output, number
from circuit_tracer_cli.cli.progress import progress_on
from circuit_tracer_cli.cli.request_options import request_from
from circuit_tracer_cli.cli.summary import VERDICTS
from circuit_tracer_cli.errors import UnsuitableValue, UsageError

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.request import TraceRequest
    from circuit_tracer_cli.validation.checks import Check
    from circuit_tracer_cli.validation.report import Effort, Validation

SamplesOpt = Annotated[
    int, typer.Option(min=1, metavar="N", help="Features to measure, and errors and tokens as many.")
]
PerturbationsOpt = Annotated[int, typer.Option(min=1, metavar="N", help="Random perturbations per layer.")]
BudgetOpt = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Time for all measurements together; each phase gets an equal share of what is left. 0 for no limit.",
    ),
]
SeedOpt = Annotated[int, typer.Option(metavar="N", help="Seed of every draw.")]
SaveOpt = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Put the report into this graph file of the viewer (.json), where an open page finds it.",
        rich_help_panel=opt.OUTPUT,
    ),
]
DTypeOpt = Annotated[
    Literal["float32", "bfloat16", "float16", "fp32", "bf16", "fp16"] | None,
    typer.Option(
        show_default="the graph's",
        help="Number type of model and transcoders.",
        rich_help_panel=ask.MACHINE,
    ),
]


def validate(
    ctx: typer.Context,
    graph: opt.GraphArg = STREAM,
    transcoder_set: ask.OptionalSetOpt = None,
    model: ask.ModelOpt = None,
    samples: SamplesOpt = 24,
    perturbations: PerturbationsOpt = 4,
    budget: BudgetOpt = 300,
    seed: SeedOpt = 0,
    dtype: DTypeOpt = None,
    device: ask.DeviceOpt = "auto",
    device_map: ask.DeviceMapOpt = None,
    backend: ask.BackendOpt = "auto",
    offline: ask.OfflineOpt = False,
    output_path: opt.GraphOutputOpt = None,
    save: SaveOpt = None,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Measure how far a graph's predictions hold: on its model, by interventions.

    A phase that uses up its share of --budget stops with what it has measured, and says so. Ctrl-C prints what is finished.

    Model and transcoders are those that the graph names, unless -t and -m say otherwise. With -o the graph is written with its
    report, which `prune` and `export` carry along to the viewer; --save puts it into a file that the viewer shows already.
    """
    output = Output(quiet=quiet, stdout_taken=output_path == STREAM)
    check_graph_destination(output_path)
    _check_suffix(save)
    silence_libraries(output, offline=offline)
    typed = request_from(ctx.params, max_n_logits=1)
    loaded = read_graph(graph)
    from circuit_tracer_cli.export.report import check_report_file

    if save is not None:
        check_report_file(Path(save), loaded)
    from circuit_tracer_cli.validation.report import Effort, ValidationInterrupted

    effort = Effort(samples=samples, perturbations=perturbations, seed=seed, budget=budget or None)
    request = request_of_graph(typed, loaded, transcoder_set, model, dtype)
    try:
        report, interrupted = _measure(loaded, request, effort, output), None
    except ValidationInterrupted as error:
        report, interrupted = error.report, error
    if interrupted is None:
        _write(loaded, report, output_path, save, output)
    if json_:
        from circuit_tracer_cli.validation.checks import checks

        output.data({"checks": [asdict(check) for check in checks(report)], **report.to_dict()})
    elif not (quiet and output.stdout_taken):
        print_validation(report, output)
    if interrupted is not None:
        if output_path is not None or save is not None:
            output.note("nothing was written: the report is incomplete")
        raise interrupted


def _check_suffix(save: str | None) -> None:
    """Raise UsageError for --save with anything but a file of the viewer."""
    if save is not None and not save.endswith(".json"):
        raise UsageError(
            f"--save puts the report into a graph file of the viewer, and {save} is no .json",
            "-o FILE writes the graph itself with its report",
        )


def _write(
    graph: Graph, report: Validation, destination: str | None, save: str | None, output: Output
) -> None:
    """Leave the report in the graph's files."""
    from circuit_tracer_cli.export.report import REPORT, save_report
    from circuit_tracer_cli.validation.checks import stored_report

    stored = stored_report(report)
    if destination is not None:
        graph.metadata[REPORT] = stored
        write_graph(graph, destination)
        if destination != STREAM:
            output.note(f"written      {destination}")
    if save is not None:
        save_report(Path(save), stored)
        output.note(f"written      {save}")


def request_of_graph(
    typed: TraceRequest, graph: Graph, transcoder_set: str | None, model: str | None, dtype: str | None
) -> TraceRequest:
    """What to load. Raises UnsuitableValue if neither the graph nor the command line says it."""
    from circuit_tracer_cli.request import DTYPES

    named_set, named_model = origin(graph)
    chosen = transcoder_set or named_set
    if chosen is None:
        raise UnsuitableValue(
            "the graph doesn't say which transcoders it was made with", "name them with --transcoder-set"
        )
    known = graph.cfg.dtype if graph.cfg.dtype in DTYPES else "float32"
    return replace(
        typed,
        transcoder_set=chosen,
        model=model or (None if transcoder_set else named_model) or _model_of(graph, chosen),
        dtype=dtype or str(known),
    )


def _model_of(graph: Graph, transcoder_set: str) -> str | None:
    """The model that a graph names, for another set than the graph's; None for the set's own, where it is embedded or gone."""
    from circuit_tracer_cli.transcoders.references import EMBEDDED

    name = graph.metadata.get("model")
    revision = graph.metadata.get("model_commit") or graph.metadata.get("model_revision")
    if not isinstance(name, str) or transcoder_set in EMBEDDED:
        return None
    if Path(name).is_absolute() and not Path(name).is_dir():
        return None
    return f"{name}@{revision}" if isinstance(revision, str) else name


def origin(graph: Graph) -> tuple[str | None, str | None]:
    """The references of transcoders and model that a graph was made with, as far as it says so itself."""
    transcoders = graph.metadata.get("transcoders")
    reference = transcoders.get("reference") if isinstance(transcoders, dict) else None
    words = _words(graph.metadata.get("command"))
    typed_set = _option(words, "-t", "--transcoder-set")
    if reference is None and words[:2] == ["circuit-tracer", "attribute"]:
        reference = typed_set or "demo"
    return (reference if isinstance(reference, str) else typed_set), _option(words, "-m", "--model")


def _words(command: object) -> list[str]:
    try:
        return shlex.split(command) if isinstance(command, str) else []
    except ValueError:
        return []


def _option(words: list[str], short: str, long: str) -> str | None:
    """The value that an option has on a command line."""
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if word == short or name.replace("_", "-") == long:
            return value if equals else following
        if word.startswith(short) and not word.startswith("--"):
            return word.removeprefix(short)
    return None


def _measure(graph: Graph, request: TraceRequest, effort: Effort, output: Output) -> Validation:
    from circuit_tracer_cli.pipeline import load_model
    from circuit_tracer_cli.prepare import prepare
    from circuit_tracer_cli.validation.report import validate_graph

    with progress_on(output, bars=True) as progress:
        if effort.budget is not None:
            progress.note(
                f"measuring for at most {effort.budget:g} s (--budget), in equal shares for each phase"
            )
        n_tokens = len(graph.input_tokens)
        prepared = prepare(request, progress=progress, n_tokens=n_tokens)
        model = load_model(prepared, progress)

        def exact() -> ReplacementModel:
            in_float32 = replace(request, dtype="float32")
            return load_model(prepare(in_float32, prepared.setup, n_tokens=n_tokens), progress)

        return validate_graph(graph, model, effort, float32_model=exact, progress=progress)


def print_validation(report: Validation, output: Output) -> None:
    """Every check with its number and its verdict, then the layers."""
    from circuit_tracer_cli.validation.checks import checks

    found = checks(report)
    rows = [(VERDICTS[check.verdict], check.label, _value(check), check.detail) for check in found]
    output.table("Validation", ("", "check", "value", "what was measured"), rows)
    for phase in report.phases:
        if phase.done < phase.planned:
            output.result(f"{phase.phase}: {phase.done:,} of {phase.planned:,} measured")
    if not report.faithfulness:
        return
    output.result()
    output.result("How the replacement model follows the model when a layer is perturbed:")
    output.table(
        "",
        ("layer#", "cosine#", "NMSE#"),
        [(str(layer.layer), number(layer.cosine), number(layer.nmse)) for layer in report.faithfulness],
    )


def _value(check: Check) -> str:
    if check.value is None:
        return "–"
    value = f"{check.value:.2g}" if check.unit == "%" else number(check.value)
    return value + {None: "", "%": "%"}.get(check.unit, f" {check.unit}")
