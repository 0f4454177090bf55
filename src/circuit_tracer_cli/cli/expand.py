"""`expand`: add nodes to an existing graph."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.destinations import STREAM, check_graph_destination, read_graph, write_graph
from circuit_tracer_cli.cli.graph_model import load_model_of, request_of_graph, takes_graph_model
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output, number
from circuit_tracer_cli.cli.request_options import request_from
from circuit_tracer_cli.errors import InvalidValue, UsageError

if TYPE_CHECKING:
    from circuit_tracer_cli.expansion import Expander, Feature, HiddenInputs
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.request import TraceRequest

AddOpt = Annotated[
    list[str] | None,
    typer.Option("--add", metavar="FEATURE", help="A feature, layer/feature@position. Repeatable."),
]
InputsOfOpt = Annotated[
    str | None,
    typer.Option(
        "--inputs-of",
        metavar="NODE",
        help="List this node's strongest inputs that aren't in the graph; with -o, add them.",
    ),
]
TopOpt = Annotated[int, typer.Option(min=1, metavar="N", help="Number of inputs to list.")]


@takes_graph_model
def expand(
    ctx: typer.Context,
    graph: opt.GraphArg = STREAM,
    add: AddOpt = None,
    inputs_of: InputsOfOpt = None,
    top: TopOpt = 10,
    output_path: opt.GraphOutputOpt = None,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Add features to a raw graph, with their inputs and their effects on its nodes.

    The result is what a larger trace would have found. --inputs-of shows which inputs of a node the node limit left out. -o may
    name the graph itself.
    """
    output = Output(quiet=quiet, stdout_taken=output_path == STREAM)
    if not add and inputs_of is None:
        raise UsageError("nothing to add", "name features with --add, or a node with --inputs-of")
    if output_path is None and add:
        raise UsageError("no output is named for the expanded graph", "add -o FILE; it may be GRAPH itself")
    wanted = [parse_feature(text) for text in add or ()]
    check_graph_destination(output_path)
    silence_libraries(output, offline=ctx.params["offline"])
    typed = request_from(ctx.params, max_n_logits=1)
    loaded = read_graph(graph)
    from circuit_tracer_cli.graph.roots import node_of

    node = None if inputs_of is None else node_of(loaded, inputs_of)
    expander = _expander(loaded, request_of_graph(typed, loaded, ctx.params), output)
    hidden = None if node is None else expander.hidden_inputs(node, top)
    if hidden is not None:
        wanted += [(one.layer, one.position, one.feature) for one in hidden.strongest]
    larger = loaded
    if output_path is not None:
        larger = expander.added(expander.find(_within(wanted, loaded)))
        write_graph(larger, output_path)
    _print(loaded, larger, hidden, inputs_of, output, json_=json_)
    if output_path not in (None, STREAM):
        output.note(f"written      {output_path}")
        output.note(f"next: circuit-tracer show {shlex.quote(str(output_path))}")


def parse_feature(text: str) -> Feature:
    """Return layer, position and number of a feature written `layer/feature@position`. Raises InvalidValue."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,18})@(-?\d{1,9})", text.strip())
    if match is None:
        raise InvalidValue(f"{text!r} isn't layer/feature@position", "for example 12/3456@9")
    layer, feature, position = map(int, match.groups())
    return layer, position, feature


def _within(features: list[Feature], graph: Graph) -> list[Feature]:
    """Return positions counted from the end as positions from the beginning."""
    return [(layer, p + graph.n_pos if p < 0 else p, feature) for layer, p, feature in features]


def _expander(graph: Graph, request: TraceRequest, output: Output) -> Expander:
    """Return the graph with its model."""
    from circuit_tracer_cli.expansion import Expander

    return Expander(graph, load_model_of(graph, request, output))


def _print(
    before: Graph, after: Graph, hidden: HiddenInputs | None, node: str | None, output: Output, *, json_: bool
) -> None:
    added = sorted(set(after.node_ids()) - set(before.node_ids()))
    if json_:
        record: dict[str, object] = {"added": added, "nodes": after.n_nodes, "edges": after.edges.nnz}
        if hidden is not None:
            record["inputs_of"] = node
            record["hidden"] = {
                "share": hidden.share,
                "count": hidden.count,
                "total": hidden.total,
                "strongest": [
                    {"node": one.node_id, "weight": one.weight, "activation": one.activation}
                    for one in hidden.strongest
                ],
            }
        output.data(record)
        return
    if hidden is not None:
        output.result(
            f"{hidden.share:.1%} of the input to {node} comes from {hidden.count} features that aren't nodes"
        )
        if hidden.strongest:
            rows = [(one.node_id, number(one.weight), number(one.activation)) for one in hidden.strongest]
            output.table("", ["feature", "direct effect#", "activation#"], rows)
    if after is not before:
        output.result(
            f"added        {len(added)} nodes, now {after.n_nodes} nodes and {after.edges.nnz} edges"
        )
