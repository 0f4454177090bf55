"""`serve`: the viewer on a folder of graph files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli import request_options as ask
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.cli.request_options import request_from
from circuit_tracer_cli.cli.viewing import Viewer
from circuit_tracer_cli.errors import UsageError

if TYPE_CHECKING:
    from circuit_tracer_cli.request import TraceRequest
    from circuit_tracer_cli.server.model import ModelRunner

DirectoryArg = Annotated[
    str | None,
    typer.Argument(metavar="DIR", help="Folder with graph files.", show_default=opt.DEFAULT_DIRECTORY),
]
TESTS = "Testing graphs"
ServedSetOpt = Annotated[
    str | None,
    typer.Option(
        "--transcoder-set",
        "-t",
        metavar="SET",
        help="Load these transcoders and their model, to trace new prompts and run edits from the page.",
        rich_help_panel=TESTS,
    ),
]
ServedModelOpt = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        show_default="the set's",
        help="The model, by folder or hub name.",
        rich_help_panel=TESTS,
    ),
]
SameDirectoryOpt = Annotated[
    str | None,
    typer.Option(
        "--graph-file-dir", metavar="DIR", help="The same, as an option.", rich_help_panel=opt.VIEWER
    ),
]


def serve(
    ctx: typer.Context,
    directory: DirectoryArg = None,
    graph_file_dir: SameDirectoryOpt = None,
    features_dir: opt.FeaturesDirOpt = None,
    host: opt.HostOpt = opt.DEFAULT_HOST,
    port: opt.PortOpt = opt.DEFAULT_PORT,
    allow_origin: opt.AllowOriginOpt = None,
    root_path: opt.RootPathOpt = "",
    token: opt.TokenOpt = None,
    transcoder_set: ServedSetOpt = None,
    model: ServedModelOpt = None,
    dtype: ask.DTypeOpt = "float32",
    device: ask.DeviceOpt = "auto",
    device_map: ask.DeviceMapOpt = None,
    backend: ask.BackendOpt = "auto",
    offline: ask.OfflineOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Open the viewer on a folder of graph files, until Ctrl-C. Graphs added later appear by themselves.

    With -t the page can also trace new prompts and run edits. Also called start-server.
    """
    if directory is not None and graph_file_dir is not None:
        raise UsageError("the folder is named twice", "name it once: circuit-tracer serve DIR")
    folder = Path(directory or graph_file_dir or opt.DEFAULT_DIRECTORY)
    output = Output(quiet=quiet)
    runner = None
    if transcoder_set is not None:
        silence_libraries(output, offline=offline)
        runner = _runner(request_from(ctx.params))
    elif model is not None:
        raise UsageError("--model alone can't be tested: edits are made to a set's features", "add -t SET")
    viewer = Viewer(folder, features_dir, host, port, tuple(allow_origin or ()), runner, root_path, token)
    with viewer.start() as server:
        viewer.announce(server, output)
        server.wait()


def _runner(request: TraceRequest) -> ModelRunner:
    """What loads the model in the background. Raises for a set or a model that isn't there, before the page is up."""
    from circuit_tracer_cli.prepare import prepare
    from circuit_tracer_cli.server.model import ModelRunner

    return ModelRunner(request, prepared=prepare(request))
