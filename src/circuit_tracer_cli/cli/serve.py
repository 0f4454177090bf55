"""`serve`: open the viewer on a folder of graph files."""

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
from circuit_tracer_cli.errors import MissingFile, UsageError

if TYPE_CHECKING:
    from circuit_tracer_cli.request import TraceRequest
    from circuit_tracer_cli.server.model import ModelRunner

DirectoryArg = Annotated[
    str | None,
    typer.Argument(
        metavar="DIR",
        help="Folder with graph files, or a batch's folder.",
        show_default=opt.DEFAULT_DIRECTORY,
    ),
]
GraphOpt = Annotated[
    str | None,
    typer.Option(
        "--graph",
        metavar="NAME",
        show_default="the newest",
        help="Open this graph: its slug, or what a batch's tables call it.",
        rich_help_panel=opt.VIEWER,
    ),
]
TESTS = "Testing graphs"
ServedSetOpt = Annotated[
    str | None,
    typer.Option(
        "--transcoder-set",
        "-t",
        metavar="SET",
        help="Load these transcoders and their model, to trace new prompts and run interventions from the page.",
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
        help="A model's folder, its name on the hub, or a GGUF file.",
        rich_help_panel=TESTS,
    ),
]
SameDirectoryOpt = Annotated[
    str | None,
    typer.Option("--graph-file-dir", metavar="DIR", help="Same as DIR.", rich_help_panel=opt.VIEWER),
]


def serve(
    ctx: typer.Context,
    directory: DirectoryArg = None,
    graph_file_dir: SameDirectoryOpt = None,
    graph: GraphOpt = None,
    features_dir: opt.FeaturesDirOpt = None,
    host: opt.HostOpt = opt.DEFAULT_HOST,
    port: opt.PortOpt = opt.DEFAULT_PORT,
    allow_origin: opt.AllowOriginOpt = None,
    root_path: opt.RootPathOpt = "",
    token: opt.TokenOpt = None,
    transcoder_set: ServedSetOpt = None,
    model: ServedModelOpt = None,
    dtype: ask.DTypeOpt = "float32",
    precision: ask.PrecisionOpt = "float32",
    device: ask.DeviceOpt = "auto",
    device_map: ask.DeviceMapOpt = None,
    backend: ask.BackendOpt = "auto",
    offline: ask.OfflineOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Open the viewer on a folder of graph files, until Ctrl-C. Graphs added later appear automatically.

    With -t, the page can also trace new prompts and run interventions. Also called start-server.
    """
    if directory is not None and graph_file_dir is not None:
        raise UsageError("the folder is named twice", "name it once: circuit-tracer serve DIR")
    named = Path(directory or graph_file_dir or opt.DEFAULT_DIRECTORY)
    folder = folder_of_graphs(named)
    slug = None if graph is None else slug_in(named, folder, graph)
    output = Output(quiet=quiet)
    runner = None
    if transcoder_set is not None:
        silence_libraries(output, offline=offline)
        runner = _runner(request_from(ctx.params))
    elif model is not None:
        raise UsageError("--model needs a transcoder set, whose features can be edited", "add -t SET")
    viewer = Viewer(folder, features_dir, host, port, tuple(allow_origin or ()), runner, root_path, token)
    with viewer.start() as server:
        viewer.announce(server, output, slug)
        server.wait()


def folder_of_graphs(folder: Path) -> Path:
    """Return where the viewer's files are: in a batch's folder `graphs`, which is made if there is none yet."""
    from circuit_tracer_cli.many.prompts import SETTINGS_NAME

    if not (folder / SETTINGS_NAME).is_file():
        return folder
    from circuit_tracer_cli.export.viewer import make_folder

    graphs = folder / "graphs"
    return graphs if graphs.is_dir() else make_folder(graphs)


def slug_in(named: Path, folder: Path, name: str) -> str:
    """Return the slug of a graph that is named by it, or as the tables of a batch name it. Raises MissingFile."""
    from circuit_tracer_cli.many.prompts import slug_of

    slug = slug_of(named if named != folder else folder.parent, name) or name
    if "/" in slug or not (folder / f"{slug}.json").is_file():
        raise MissingFile(f"{folder} has no graph {name}", "the page lists the graphs that are there")
    return slug


def _runner(request: TraceRequest) -> ModelRunner:
    """Return the runner that loads the model in the background. Raises for a missing set or model before the page is up."""
    from circuit_tracer_cli.prepare import prepare
    from circuit_tracer_cli.server.model import ModelRunner

    return ModelRunner(request, prepared=prepare(request))
