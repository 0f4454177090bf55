"""`why-not`: why the model says one token and not another."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.destinations import read_graph
from circuit_tracer_cli.cli.examples import labels_of
from circuit_tracer_cli.cli.graph_model import load_model_of, request_of_graph, takes_graph_model
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output, number, quoted
from circuit_tracer_cli.cli.request_options import request_from
from circuit_tracer_cli.cli.show import FeaturesDirOpt
from circuit_tracer_cli.cli.summary import GraphSummary

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.contrast import Push, WhyNot
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.validation.flip import Flip

RawGraphArg = Annotated[str, typer.Argument(metavar="GRAPH", help="A raw graph; - reads stdin.")]
TokenArg = Annotated[
    str,
    typer.Argument(metavar="TOKEN", help="A target of the graph that isn't the answer: its text, or id:N."),
]
AnswerOpt = Annotated[
    str | None,
    typer.Option(
        metavar="TOKEN",
        show_default="the graph's most likely other target",
        help="The target that it is compared with.",
    ),
]
TopOpt = Annotated[int, typer.Option(min=1, metavar="N", help="List so many sources of each kind.")]
FlipOpt = Annotated[
    bool,
    typer.Option(
        "--flip", help="Load the model and turn off the fewest features that make it TOKEN instead."
    ),
]
MostOpt = Annotated[
    int, typer.Option(min=1, metavar="N", help="Turn off at most so many features.", show_default="256")
]


@takes_graph_model
def why_not(
    ctx: typer.Context,
    graph: RawGraphArg,
    token: TokenArg,
    answer: AnswerOpt = None,
    top: TopOpt = 5,
    flip: FlipOpt = False,
    most_features: MostOpt = 256,
    features_dir: FeaturesDirOpt = None,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Say why the model prefers the answer to TOKEN: what pushes both, what pushes one alone, what holds one down.

    The sums of the lists and the rest add up to the difference of the two logits. Both must be targets of the graph; trace them
    with attribute --target ANSWER --target TOKEN. The model is only needed for --flip.
    """
    output = Output(quiet=quiet)
    silence_libraries(output, offline=ctx.params["offline"])
    typed = request_from(ctx.params, max_n_logits=1)
    loaded = read_graph(graph)
    from circuit_tracer_cli.graph.contrast import why_not as compare

    found = compare(loaded, token, answer, top)
    summary = GraphSummary(loaded, labels=labels_of(loaded.scan, features_dir))
    turned, model = None, None
    if flip:
        from circuit_tracer_cli.validation.flip import find_flip

        model = load_model_of(loaded, request_of_graph(typed, loaded, ctx.params), output)
        turned = find_flip(loaded, model, found.answer, found.other, most_features)
    if json_:
        record = why_not_record(found, summary)
        output.data(
            {
                **record,
                "flip": None if turned is None or model is None else _flip_record(turned, summary, model),
            }
        )
        return
    _print(found, summary, output)
    if turned is not None and model is not None:
        _print_flip(found, turned, summary, model, output)
    elif found.difference > 0:
        output.note(f"next: circuit-tracer why-not {shlex.quote(graph)} {shlex.quote(token)} --flip")


def why_not_record(found: WhyNot, summary: GraphSummary) -> dict[str, Any]:
    """The comparison for programs; node ids are those of the JSON graph file."""
    graph = summary.graph
    return {
        "answer": _target(found.answer, summary),
        "other": _target(found.other, summary),
        "difference": found.difference,
        "lists": {
            name: {
                "sum": found.sums[name],
                "count": found.counts[name],
                "strongest": [
                    {
                        "node": graph.node_id(push.node),
                        "name": summary.name(push.node),
                        "label": summary.label(push.node) or None,
                        "value": push.value,
                        "answer": push.answer,
                        "other": push.other,
                        "path": None
                        if push.path is None
                        else [graph.node_id(node) for node in push.path.nodes],
                    }
                    for push in pushes
                ],
            }
            for name, pushes in found.lists.items()
        },
        "rest": found.rest,
        "features_left_out": found.left_out,
    }


def _target(node: int, summary: GraphSummary) -> dict[str, Any]:
    view = summary.nodes[node]
    return {"node": view.node_id, "token": view.token, "id": view.vocab_idx, "probability": view.probability}


def _print(found: WhyNot, summary: GraphSummary, output: Output) -> None:
    answer, other = summary.name(found.answer), summary.name(found.other)
    output.result(f"{answer} and not {other}: its logit is {number(found.difference)} larger")
    titles = {
        "both": "Pushes both",
        "answer_only": f"Pushes {answer} only",
        "other_down": f"Holds {other} down",
        "other_only": f"Pushes {other} only",
        "answer_down": f"Holds {answer} down",
    }
    for name, pushes in found.lists.items():
        if not pushes:
            continue
        output.result()
        title = f"{titles[name]}: {found.counts[name]:,} sources, {found.sums[name]:+.3f}"
        rows = [
            (f"{push.value:+.3f}", number(push.answer), number(push.other), _with_path(push, summary))
            for push in pushes
        ]
        output.table(title, ("adds#", f"on {answer}#", f"on {other}#", "source and its strongest path"), rows)
    output.result()
    parts = " ".join(f"{value:+.3f}" for value in found.sums.values())
    output.result(f"{number(found.difference)} = {parts} {found.rest:+.3f} (rest)")
    left_out = f" and {found.left_out:,} features that aren't nodes" if found.left_out else ""
    output.result(f"The rest is biases{left_out}.")


def _with_path(push: Push, summary: GraphSummary) -> str:
    if push.path is None or len(push.path.nodes) < 2:
        return summary.named(push.node)
    return summary.path_in_words(push.path)


def _flip_record(flip: Flip, summary: GraphSummary, model: ReplacementModel) -> dict[str, Any]:
    graph = summary.graph
    longest = max([flip.predicted or 0, *(one.count for one in flip.measured)])
    return {
        "features": [graph.node_id(node) for node in flip.ranking[:longest]],
        "before": flip.before,
        "predicted_count": flip.predicted,
        "fewest": flip.fewest,
        "runs": [
            {
                "count": one.count,
                "predicted": one.predicted,
                "frozen": one.frozen,
                "open": one.open,
                "top": _decoded(model, one.top),
            }
            for one in flip.measured
        ],
    }


def _decoded(model: ReplacementModel, token: int) -> str:
    from circuit_tracer_cli.tokens import TokenTexts

    return TokenTexts(model.tokenizer)[token]


def _print_flip(
    found: WhyNot, flip: Flip, summary: GraphSummary, model: ReplacementModel, output: Output
) -> None:
    answer, other = summary.name(found.answer), summary.name(found.other)
    output.result()
    if flip.before <= 0:
        output.result(f"the model already prefers {other} to {answer}: nothing to turn off")
        return
    rows = [
        (
            str(one.count),
            f"{one.predicted:+.3f}",
            "" if one.frozen is None else f"{one.frozen:+.3f}",
            f"{one.open:+.3f}",
            quoted(_decoded(model, one.top), 24),
        )
        for one in flip.measured
    ]
    columns = ("features off#", "predicted#", "attention pinned#", "free#", "then most likely")
    output.table(f"Logit of {answer} minus logit of {other} with features off", columns, rows)
    if flip.predicted is None:
        output.result(
            f"by the graph, none of the first 1 to {len(flip.ranking)} features turned off together is enough"
        )
    if flip.fewest is None:
        output.result(f"no set of at most {len(flip.ranking)} features that was tried makes it {other}")
        return
    names = ", ".join(summary.named(node) for node in flip.ranking[: flip.fewest])
    output.result(f"{flip.fewest} features off make {other} beat {answer}: {names}")
