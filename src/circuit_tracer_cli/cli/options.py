"""Options that several commands share, each written once. Defaults are the reference's."""

from __future__ import annotations

from typing import Annotated

import typer

from circuit_tracer_cli.graph.defaults import EDGE_THRESHOLD, NODE_THRESHOLD

OUTPUT, VIEWER = "Output", "Viewer"

DEFAULT_PORT = 8041
DEFAULT_HOST = "127.0.0.1"
DEFAULT_DIRECTORY = "graph_files"

GraphArg = Annotated[
    str, typer.Argument(metavar="GRAPH", help="A raw graph; stdin if omitted or -.", show_default=False)
]
GraphOutputOpt = Annotated[
    str | None,
    typer.Option(
        "--graph-output-path",
        "--output",
        "-o",
        metavar="PATH",
        help="Write the graph: .safetensors or .pt; - writes to stdout.",
        rich_help_panel=OUTPUT,
    ),
]
RootOpt = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="NODE",
        show_default="its targets",
        help="Explain this node of the graph instead of its targets: layer/feature@position, or a node's id.",
    ),
]
SlugOpt = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name of the graph and of its viewer file.", rich_help_panel=OUTPUT),
]
GraphFileDirOpt = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        show_default=DEFAULT_DIRECTORY,
        help="Folder for the viewer's graph files.",
        rich_help_panel=OUTPUT,
    ),
]
NodeThresholdOpt = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        show_default=str(NODE_THRESHOLD),
        help="Keep the fewest nodes that account for this share of the influence.",
        rich_help_panel=OUTPUT,
    ),
]
EdgeThresholdOpt = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        show_default=str(EDGE_THRESHOLD),
        help="Of their edges, keep the fewest that account for this share.",
        rich_help_panel=OUTPUT,
    ),
]
PortOpt = Annotated[
    int,
    typer.Option(
        min=0,
        max=65535,
        metavar="PORT",
        help="The viewer's port; 0 picks a free one.",
        rich_help_panel=VIEWER,
    ),
]
HostOpt = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Address the viewer listens on.", rich_help_panel=VIEWER)
]
TokenOpt = Annotated[
    bool | None,
    typer.Option(
        "--token/--no-token",
        help="Answer only requests with the token from the link that the viewer prints.",
        show_default="only with a --host that other machines can reach",
        rich_help_panel=VIEWER,
    ),
]
FeaturesDirOpt = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Folder with feature examples for the viewer.", rich_help_panel=VIEWER),
]
AllowOriginOpt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ORIGIN",
        help="Also answer requests from this origin, such as a notebook proxy. Repeatable.",
        rich_help_panel=VIEWER,
    ),
]
RootPathOpt = Annotated[
    str,
    typer.Option(
        metavar="PATH",
        help="Path prefix under which a proxy serves the page without stripping it, such as /user/me/proxy/8041.",
        show_default="none",
        rich_help_panel=VIEWER,
    ),
]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="Hide notes and progress bars.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
VerboseOpt = Annotated[bool, typer.Option("--verbose", help="Also show log messages of the libraries.")]
NoProgressOpt = Annotated[bool, typer.Option("--no-progress", help="Hide progress bars but keep notes.")]
