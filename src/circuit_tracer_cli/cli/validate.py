"""`validate`: a graph measured on the model that it was made from."""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from circuit_tracer_cli.cli import attribute_options as shared
from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.destinations import STREAM, read_graph
from circuit_tracer_cli.cli.errors import judged_by_files
from circuit_tracer_cli.cli.intervene_options import TranscoderSetOpt
from circuit_tracer_cli.cli.libraries import set_manners
from circuit_tracer_cli.cli.output import Output, number
from circuit_tracer_cli.cli.progress import progress_on
from circuit_tracer_cli.errors import UsageError

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.pipeline import TraceRequest
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.validation.report import Effort, Validation
    from circuit_tracer_cli.validation.scores import Scores

SamplesOpt = Annotated[
    int, typer.Option(min=1, metavar="N", help="Features to measure, and errors and tokens as many.")
]
PerturbationsOpt = Annotated[int, typer.Option(min=1, metavar="N", help="Random perturbations per layer.")]
SeedOpt = Annotated[int, typer.Option(metavar="N", help="Seed of every draw.")]
DTypeOpt = Annotated[
    Literal["float32", "bfloat16", "float16", "fp32", "bf16", "fp16"] | None,
    typer.Option(
        show_default="the graph's",
        help="Number type of model and transcoders.",
        rich_help_panel=shared.MACHINE,
    ),
]


def validate(
    graph: opt.GraphArg = STREAM,
    transcoder_set: TranscoderSetOpt = None,
    model: shared.ModelOpt = None,
    samples: SamplesOpt = 24,
    perturbations: PerturbationsOpt = 4,
    seed: SeedOpt = 0,
    dtype: DTypeOpt = None,
    device: shared.DeviceOpt = "auto",
    offline: shared.OfflineOpt = False,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Measure how far a graph's predictions hold: on its model, by interventions.

    Model and transcoders are those that the graph names, unless -t and -m say otherwise.
    """
    output = Output(quiet=quiet)
    set_manners(output, offline=offline)
    loaded = read_graph(graph)
    from circuit_tracer_cli.pipeline import offline_mode
    from circuit_tracer_cli.validation.report import Effort

    effort = Effort(samples=samples, perturbations=perturbations, seed=seed)
    with judged_by_files(), offline_mode(offline):
        request = _request(loaded, transcoder_set, model, dtype, device, offline=offline)
        report = _measure(loaded, request, effort, output)
    if json_:
        output.data(report.to_dict())
    else:
        print_validation(report, output)


def _request(
    graph: Graph,
    transcoder_set: str | None,
    model: str | None,
    dtype: str | None,
    device: str,
    *,
    offline: bool,
) -> TraceRequest:
    """What to load. Raises UsageError if neither the graph nor the command line says it."""
    from circuit_tracer_cli.pipeline import DTYPES, TraceRequest

    named_set, named_model = origin(graph)
    chosen = transcoder_set or named_set
    if chosen is None:
        raise UsageError(
            "the graph doesn't say which transcoders it was made with", "name them with --transcoder-set"
        )
    known = graph.cfg.dtype if graph.cfg.dtype in DTYPES else "float32"
    return TraceRequest(
        prompt=graph.input_string or " ",
        transcoder_set=chosen,
        model=model or (None if transcoder_set else named_model),
        dtype=shared.long_dtype(dtype or str(known)),
        device=device,
        offline=offline,
    )


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
    from circuit_tracer_cli.validation.report import validate_graph

    with progress_on(output, bars=True) as progress:
        model = load_model(request, progress)

        def exact() -> ReplacementModel:
            return load_model(replace(request, dtype="float32"), progress)

        return validate_graph(graph, model, effort, float32_model=exact, progress=progress)


def print_validation(report: Validation, output: Output) -> None:
    """The report as text, one paragraph per question."""
    direct, ablation, edges = report.direct, report.ablation, report.edges
    verdict = {True: "they agree", False: "they DISAGREE", None: "16 bits round"}[direct.agrees]
    if report.n_unknown:
        output.warn(f"{report.n_unknown} of {report.n_features} features aren't active in this model")
    columns = ", ".join(f"{count} {kind}s" for kind, count in direct.n_columns.items())
    rows = [
        ("direct effects", f"{verdict}: {direct.n_entries} edges from {columns}"),
        (
            "",
            f"largest error {number(direct.max_absolute_error)}, of its column {number(direct.max_relative_error)}",
        ),
        (
            "ablation",
            f"Spearman {_or_dash(ablation.spearman)} of influence and KL, {ablation.n_features} features off",
        ),
        ("", f"KL {number(ablation.mean_kl)} on average, at most {number(ablation.max_kl)} nats"),
        ("edges", f"Spearman {_or_dash(edges.spearman)} with constrained patching, {edges.n_edges} edges"),
        ("", f"{_percent(edges.same_sign)} change in the predicted direction"),
        *_score_rows(report),
        *_precision_rows(report),
    ]
    output.table("Validation", ("", ""), rows)
    output.result()
    output.result("How the local replacement model follows the model when a layer is perturbed:")
    output.table(
        "",
        ("layer#", "cosine#", "NMSE#"),
        [(str(layer.layer), number(layer.cosine), number(layer.nmse)) for layer in report.faithfulness],
    )


def _score_rows(report: Validation) -> list[tuple[str, str]]:
    scores = report.scores
    rows: list[tuple[str, str]] = [("scores", f"{_both(scores.before)} as it is")]
    rows.append(
        (
            "",
            f"{_both(scores.errors_pruned)} after, errors pruned",
        )
    )
    if scores.errors_kept is not None:
        rows.append(("", f"{_both(scores.errors_kept)} after, errors kept"))
    return rows


def _precision_rows(report: Validation) -> list[tuple[str, str]]:
    precision = report.precision
    if precision is None:
        return []
    middle, most = _percent(precision.median_relative_error), _percent(precision.max_relative_error)
    gone = f"; {precision.n_gone} have no such feature" if precision.n_gone else ""
    return [
        (
            "precision",
            f"{precision.dtype} edges are off by {middle} (median), {most} at most, of {precision.n_edges}{gone}",
        )
    ]


def _both(scores: Scores) -> str:
    return f"replacement {scores.replacement:.3f}, completeness {scores.completeness:.3f}"


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
