"""`serve`: the viewer on a folder of graph files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.cli.viewing import Viewer
from circuit_tracer_cli.errors import UsageError

DirectoryArg = Annotated[
    str | None,
    typer.Argument(metavar="DIR", help="Folder with graph files.", show_default=opt.DEFAULT_DIRECTORY),
]
SameDirectoryOpt = Annotated[
    str | None,
    typer.Option(
        "--graph-file-dir", metavar="DIR", help="The same, as an option.", rich_help_panel=opt.VIEWER
    ),
]


def serve(
    directory: DirectoryArg = None,
    graph_file_dir: SameDirectoryOpt = None,
    features_dir: opt.FeaturesDirOpt = None,
    host: opt.HostOpt = opt.DEFAULT_HOST,
    port: opt.PortOpt = opt.DEFAULT_PORT,
    allow_origin: opt.AllowOriginOpt = None,
    quiet: opt.QuietOpt = False,
) -> None:
    """Open the viewer on a folder of graph files, until Ctrl-C. Graphs added later appear by themselves.

    Also called start-server.
    """
    if directory is not None and graph_file_dir is not None:
        raise UsageError("the folder is named twice", "name it once: circuit-tracer serve DIR")
    folder = Path(directory or graph_file_dir or opt.DEFAULT_DIRECTORY)
    viewer = Viewer(folder, features_dir, host, port, tuple(allow_origin or ()))
    with viewer.start() as server:
        viewer.announce(server, Output(quiet=quiet))
        server.wait()
