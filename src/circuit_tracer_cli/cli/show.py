"""`show`: a graph in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.destinations import STREAM, read_graph
from circuit_tracer_cli.cli.libraries import set_manners
from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.cli.summary import GraphSummary, print_summary

NodesOpt = Annotated[int, typer.Option(min=0, metavar="N", help="List so many of the strongest nodes.")]
PathsOpt = Annotated[int, typer.Option(min=0, metavar="N", help="List so many of the strongest paths.")]


def show(
    graph: opt.GraphArg = STREAM,
    nodes: NodesOpt = 10,
    paths: PathsOpt = 5,
    json_: opt.JsonOpt = False,
) -> None:
    """Show a graph's prompt, targets, scores, strongest nodes and strongest paths.

    Features are written layer/feature@position; an arrow → raises what it points at, ⊣ lowers it.
    """
    output = Output()
    set_manners(output)
    summary = GraphSummary(read_graph(graph), n_nodes=nodes, n_paths=paths)
    if json_:
        output.data(summary.to_dict())
    else:
        print_summary(summary, output)
