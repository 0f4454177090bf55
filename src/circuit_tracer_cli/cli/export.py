"""`export`: write a graph for the viewer, as a standalone page, or for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.destinations import STREAM, check_directory, read_rooted
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.export.slugs import check_slug, invent_slug
from circuit_tracer_cli.features.packed import examples_folder

FormatOpt = Annotated[
    str,
    typer.Option(
        "--format", "-f", metavar="FORMAT", help="json, html, graphml or csv.", rich_help_panel=opt.OUTPUT
    ),
]
ScanOpt = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        show_default="as in the graph",
        help="Name of the transcoder set.",
        rich_help_panel=opt.OUTPUT,
    ),
]


def export(
    graph: opt.GraphArg = STREAM,
    root: opt.RootOpt = None,
    format_: FormatOpt = "json",
    slug: opt.SlugOpt = None,
    graph_file_dir: opt.GraphFileDirOpt = None,
    scan: ScanOpt = None,
    node_threshold: opt.NodeThresholdOpt = None,
    edge_threshold: opt.EdgeThresholdOpt = None,
    features_dir: opt.FeaturesDirOpt = None,
    quiet: opt.QuietOpt = False,
) -> None:
    """Write a graph for the viewer (json), as a single page to share (html), for graph tools (graphml) or as tables (csv).

    A raw graph is pruned first; a pruned one is used as it is. Prints the paths of the files written.
    """
    from circuit_tracer_cli.export import FORMATS
    from circuit_tracer_cli.export.annotations import aside_note, is_aside

    output = Output(quiet=quiet)
    if format_ not in FORMATS:
        raise InvalidValue(f"unknown format {format_!r}", f"--format {' | '.join(FORMATS)}")
    if slug is not None:
        check_slug(slug)
    directory = check_directory(graph_file_dir or opt.DEFAULT_DIRECTORY)
    silence_libraries(output)
    raw = read_rooted(graph, root, output)
    from circuit_tracer_cli.export import Destination, exporter
    from circuit_tracer_cli.export.viewer import with_scan
    from circuit_tracer_cli.graph.prune import pruned_graph

    pruned = with_scan(pruned_graph(raw, node_threshold, edge_threshold), scan)
    examples = Path(features_dir) if features_dir is not None else examples_folder(pruned.scan)
    written = exporter(format_)(
        pruned, Destination(slug or invent_slug(raw.input_string), directory, examples)
    )
    for path in written:
        if is_aside(path):
            output.warn(aside_note(path))
        else:
            output.result(str(path))
    if format_ == "html":
        output.note("it opens in any browser, without a server or network")
    if format_ == "json":
        output.note(f"next: circuit-tracer serve {directory}")
