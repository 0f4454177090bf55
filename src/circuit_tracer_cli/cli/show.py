"""`show`: print a graph in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.destinations import STREAM, read_rooted
from circuit_tracer_cli.cli.examples import labels_of
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.cli.summary import GraphSummary, print_summary

NodesOpt = Annotated[int, typer.Option(min=0, metavar="N", help="Number of strongest nodes to list.")]
FeaturesDirOpt = Annotated[
    str | None, typer.Option(metavar="DIR", help="Folder with feature examples, used for labels.")
]
EdgesOpt = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="List so many of the strongest edges, each with the share of twelve prunings that keep it.",
    ),
]
PathsOpt = Annotated[int, typer.Option(min=0, metavar="N", help="Number of strongest paths to list.")]


def show(
    graph: opt.GraphArg = STREAM,
    root: opt.RootOpt = None,
    nodes: NodesOpt = 10,
    edges: EdgesOpt = 0,
    paths: PathsOpt = 5,
    features_dir: FeaturesDirOpt = None,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Show a graph's prompt, targets, scores, strongest nodes and paths, and with --edges its strongest edges.

    Features are written layer/feature@position; → raises the node that it points at, ⊣ lowers it.
    """
    output = Output(quiet=quiet)
    silence_libraries(output)
    loaded = read_rooted(graph, root, output)
    summary = GraphSummary(loaded, nodes, paths, labels_of(loaded.scan, features_dir), edges)
    if json_:
        output.data(summary.to_dict())
    else:
        print_summary(summary, output)
