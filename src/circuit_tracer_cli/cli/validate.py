"""`validate`: test a graph on the model that it was made from."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.destinations import STREAM, check_graph_destination, read_graph, write_graph
from circuit_tracer_cli.cli.graph_model import request_of_graph, takes_graph_model
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output, number
from circuit_tracer_cli.cli.progress import progress_on
from circuit_tracer_cli.cli.request_options import request_from
from circuit_tracer_cli.cli.summary import VERDICTS
from circuit_tracer_cli.errors import UsageError

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.request import TraceRequest
    from circuit_tracer_cli.validation.checks import Check
    from circuit_tracer_cli.validation.report import Effort, Validation

SamplesOpt = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Number of features to measure, and of errors and tokens."),
]
PerturbationsOpt = Annotated[int, typer.Option(min=1, metavar="N", help="Random perturbations per layer.")]
BudgetOpt = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Time limit for all measurements; each phase gets an equal share of what is left. 0 for no limit.",
    ),
]
SeedOpt = Annotated[int, typer.Option(metavar="N", help="Seed of the random draws.")]
SaveOpt = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Write the report into this viewer file (.json); an open page picks it up.",
        rich_help_panel=opt.OUTPUT,
    ),
]


@takes_graph_model
def validate(
    ctx: typer.Context,
    graph: opt.GraphArg = STREAM,
    samples: SamplesOpt = 24,
    perturbations: PerturbationsOpt = 4,
    budget: BudgetOpt = 300,
    seed: SeedOpt = 0,
    output_path: opt.GraphOutputOpt = None,
    save: SaveOpt = None,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Measure how well a graph's predictions hold up, by interventions on its model.

    A phase that uses up its share of --budget stops and reports how much it measured. Ctrl-C prints what is finished.

    With -o the graph is written with its
    report, which `prune` and `export` carry along to the viewer; --save puts it into an existing graph file of the viewer.
    """
    output = Output(quiet=quiet, stdout_taken=output_path == STREAM)
    check_graph_destination(output_path)
    _check_suffix(save)
    silence_libraries(output, offline=ctx.params["offline"])
    typed = request_from(ctx.params, max_n_logits=1)
    loaded = read_graph(graph)
    from circuit_tracer_cli.export.report import check_report_file

    if save is not None:
        check_report_file(Path(save), loaded)
    from circuit_tracer_cli.validation.report import Effort, ValidationInterrupted

    effort = Effort(samples=samples, perturbations=perturbations, seed=seed, budget=budget or None)
    request = request_of_graph(typed, loaded, ctx.params)
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
    """Raise UsageError for --save with anything but a viewer file."""
    if save is not None and not save.endswith(".json"):
        raise UsageError(
            f"--save needs a viewer file (.json), not {save}",
            "to write the raw graph with its report, use -o FILE",
        )


def _write(
    graph: Graph, report: Validation, destination: str | None, save: str | None, output: Output
) -> None:
    """Write the report into the graph's files."""
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


def _measure(graph: Graph, request: TraceRequest, effort: Effort, output: Output) -> Validation:
    from circuit_tracer_cli.pipeline import load_model
    from circuit_tracer_cli.prepare import prepare
    from circuit_tracer_cli.validation.report import validate_graph

    with progress_on(output, bars=True) as progress:
        if effort.budget is not None:
            progress.note(f"measuring for at most {effort.budget:g} s (--budget), in equal shares per phase")
        n_tokens = len(graph.input_tokens)
        prepared = prepare(request, progress=progress, n_tokens=n_tokens)
        model = load_model(prepared, progress)

        def exact() -> ReplacementModel:
            in_float32 = replace(request, dtype="float32", precision="float32")
            return load_model(prepare(in_float32, prepared.setup, n_tokens=n_tokens), progress)

        return validate_graph(graph, model, effort, float32_model=exact, progress=progress)


def print_validation(report: Validation, output: Output) -> None:
    """Print each check with its value and verdict, then the layers."""
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
    output.result("How closely the replacement model follows the model when a layer is perturbed:")
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
