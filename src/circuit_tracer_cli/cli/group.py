"""`group`: group the features of a graph into supernodes automatically."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.destinations import STREAM, check_graph_destination, read_graph, write_graph
from circuit_tracer_cli.cli.examples import labels_of
from circuit_tracer_cli.cli.graph_model import request_of_graph, takes_graph_model
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output, number, visible
from circuit_tracer_cli.cli.progress import progress_on
from circuit_tracer_cli.cli.request_options import request_from
from circuit_tracer_cli.errors import MissingFile, UsageError
from circuit_tracer_cli.graph.layout import warn_of_edges_left_out

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.graph.groups import Grouping
    from circuit_tracer_cli.request import TraceRequest

GraphOrFileArg = Annotated[
    str,
    typer.Argument(
        metavar="GRAPH",
        show_default="stdin",
        help="A raw or pruned graph, or a graph file of the viewer (.json).",
    ),
]
OutputOpt = Annotated[
    str | None,
    typer.Option(
        "--graph-output-path",
        "--output",
        "-o",
        metavar="PATH",
        help="Write the grouped graph: .json for the viewer, .safetensors or .pt; it may be GRAPH itself.",
        rich_help_panel=opt.OUTPUT,
    ),
]
LevelOpt = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        metavar="LEVEL",
        help="Minimum similarity within a group; lower values give fewer, larger groups.",
    ),
]
AcrossOpt = Annotated[
    bool,
    typer.Option("--across-positions", help="Also join groups at different positions that share a feature."),
]
KeepOpt = Annotated[
    bool,
    typer.Option("--keep/--no-keep", help="Keep groups made by hand in the graph file; they can only grow."),
]
MeasureOpt = Annotated[
    bool,
    typer.Option(
        "--measure", help="Load the model, turn each group off, and compare the effect with the prediction."
    ),
]
FeaturesDirOpt = Annotated[
    str | None, typer.Option(metavar="DIR", help="Folder with feature examples, used to name groups.")
]


@takes_graph_model
def group(
    ctx: typer.Context,
    graph: GraphOrFileArg = STREAM,
    level: LevelOpt = 0.35,
    across_positions: AcrossOpt = False,
    keep: KeepOpt = True,
    measure: MeasureOpt = False,
    features_dir: FeaturesDirOpt = None,
    output_path: OutputOpt = None,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Group features with similar inputs and outputs into supernodes, without making a cycle.

    The same graph always gives the same groups. Prints each group with its numbers. A raw graph is pruned first with the default
    thresholds; in the viewer the groups are those of the exported graph.
    """
    output = Output(quiet=quiet, stdout_taken=output_path == STREAM)
    _check(graph, output_path, measure=measure, json_=json_)
    silence_libraries(output, offline=ctx.params["offline"])
    if graph.endswith(".json"):
        grouping = _group_file(graph, str(output_path), level, across_positions, keep, features_dir)
    else:
        typed = request_from(ctx.params, max_n_logits=1)
        loaded = read_graph(graph)
        from circuit_tracer_cli.graph.groups import group_nodes

        labels = labels_of(loaded.scan, features_dir)
        made = _made_at(loaded, str(output_path)) if keep else []
        grouping = group_nodes(loaded, level, across_positions=across_positions, keep=made, labels=labels)
        if measure:
            request = request_of_graph(typed, loaded, ctx.params)
            grouping = _measured(loaded, request, grouping, output)
        _write(loaded, grouping, str(output_path))
    if json_:
        output.data(grouping.to_dict())
    elif not (quiet and output.stdout_taken):
        print_groups(grouping, output)
    if output_path != STREAM:
        output.note(f"written      {output_path}")
        follow = "serve" if str(output_path).endswith(".json") else "export"
        where = str(Path(str(output_path)).parent) if follow == "serve" else str(output_path)
        output.note(f"next: circuit-tracer {follow} {shlex.quote(where)}")


def _check(graph: str, output_path: str | None, *, measure: bool, json_: bool) -> None:
    """Refuse a command line that can't work, before anything is read. Raises UsageError, OutputError, MissingFile."""
    if output_path is None:
        raise UsageError("no output is named for the grouped graph", "add -o FILE; it may be GRAPH itself")
    if json_ and output_path == STREAM:
        raise UsageError("--json and -o - both write to stdout", "write the graph to a file with -o")
    is_file, into_file = graph.endswith(".json"), output_path.endswith(".json")
    if is_file and not into_file:
        raise UsageError(f"{graph} is a viewer file (JSON), but {output_path} isn't", "use -o FILE.json")
    if is_file and measure:
        raise UsageError("--measure needs the raw graph", "name the .safetensors or .pt file")
    if is_file and not Path(graph).is_file():
        raise MissingFile(f"graph file {graph} doesn't exist", "write it with circuit-tracer export")
    if into_file:
        from circuit_tracer_cli.cli.destinations import check_directory
        from circuit_tracer_cli.export.slugs import check_slug

        check_slug(Path(output_path).stem)
        check_directory(str(Path(output_path).parent))
    else:
        check_graph_destination(output_path)


def _group_file(
    path: str, destination: str, level: float, across: bool, keep: bool, features_dir: str | None
) -> Grouping:
    """Group a viewer file. Raises BadGraphFile, OutputError."""
    import dataclasses

    from circuit_tracer_cli.export.graph_json import read_graph_json
    from circuit_tracer_cli.export.groups import group_file
    from circuit_tracer_cli.export.viewer import write_graph_file

    file = read_graph_json(Path(path).read_bytes(), path)
    warn_of_edges_left_out(file.metadata.extra, path)
    labels = labels_of(file.metadata.scan, features_dir)
    grouped, grouping = group_file(file, level, across_positions=across, keep=keep, labels=labels)
    metadata = dataclasses.replace(grouped.metadata, slug=Path(destination).stem)
    write_graph_file(Path(destination), dataclasses.replace(grouped, metadata=metadata))
    return grouping


def _made_at(graph: Graph, destination: str) -> list[list[str]]:
    """Return the groups that people made in the graph file that is about to be written."""
    if not destination.endswith(".json"):
        return []
    from circuit_tracer_cli.export.groups import hand_made_at
    from circuit_tracer_cli.export.viewer import graph_parts

    parts = graph_parts(graph.prune(), Path(destination).stem)
    return hand_made_at(Path(destination), parts.metadata.prompt, parts.metadata.scan, parts.node_ids)


def _measured(graph: Graph, request: TraceRequest, grouping: Grouping, output: Output) -> Grouping:
    """Return the groups with the effect of turning each one off."""
    from circuit_tracer_cli.pipeline import load_model
    from circuit_tracer_cli.prepare import prepare
    from circuit_tracer_cli.validation.groups import measure_groups

    with progress_on(output, bars=True) as progress:
        prepared = prepare(request, progress=progress, n_tokens=len(graph.input_tokens))
        model = load_model(prepared, progress)
        progress.phase("groups")
        return measure_groups(graph, model, grouping)


def _write(graph: Graph, grouping: Grouping, destination: str) -> None:
    """Keep the groups in the graph's metadata; for `.json` export it with them. Raises OutputError."""
    from circuit_tracer_cli.export.groups import GROUPING

    graph.metadata[GROUPING] = grouping.to_dict()
    if not destination.endswith(".json"):
        write_graph(graph, destination)
        return
    from circuit_tracer_cli.export import Destination
    from circuit_tracer_cli.export.viewer import export

    path = Path(destination)
    export(graph.prune(), Destination(path.stem, path.parent), regroup=True)


def print_groups(grouping: Grouping, output: Output) -> None:
    """Print one line per group, then what the groups cover."""
    found, numbers = grouping.groups, grouping.numbers
    measured = any("measured" in one.numbers for one in found)
    shown = ("predicted", "measured", "measured_open") if measured else ("coherence", "stability")
    titles = ("predicted#", "measured#", "attention free#") if measured else ("coherence#", "stability#")
    rows = []
    for one in found:
        influence = f"{one.numbers['influence'] or 0:.1%}"
        values = (_shown(one.numbers.get(name)) for name in shown)
        rows.append([visible(one.name, 40), str(len(one.nodes)), influence, *values])
    if rows:
        output.table("Groups", ("group", "nodes#", "influence#", *titles), rows)
    else:
        output.result("no two features are similar enough to group; lower --level to group more")
    output.result(
        f"{numbers['coverage'] or 0:.1%} of the features' influence is in groups; {numbers['edges']:,} edges become "
        f"{numbers['quotient_edges']:,}; stability {_shown(numbers['stability'])}"
    )
    if measured:
        output.result(
            "predicted and measured: change of the first target's logit when the whole group is turned off"
        )
    if not grouping.acyclic:
        output.warn("a group made by hand is part of a cycle: a path leaves it and comes back")


def _shown(value: float | int | None) -> str:
    return "–" if value is None else number(value)
