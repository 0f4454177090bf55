"""`serve`: the viewer on a folder of graph files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuit_tracer_cli.cli import attribute_options as shared
from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.errors import judged_by_files
from circuit_tracer_cli.cli.libraries import set_manners
from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.cli.viewing import Viewer
from circuit_tracer_cli.errors import UsageError

if TYPE_CHECKING:
    from circuit_tracer_cli.pipeline import TraceRequest
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
    directory: DirectoryArg = None,
    graph_file_dir: SameDirectoryOpt = None,
    features_dir: opt.FeaturesDirOpt = None,
    host: opt.HostOpt = opt.DEFAULT_HOST,
    port: opt.PortOpt = opt.DEFAULT_PORT,
    allow_origin: opt.AllowOriginOpt = None,
    root_path: opt.RootPathOpt = "",
    transcoder_set: ServedSetOpt = None,
    model: ServedModelOpt = None,
    dtype: shared.DTypeOpt = "float32",
    device: shared.DeviceOpt = "auto",
    device_map: shared.DeviceMapOpt = None,
    backend: shared.BackendOpt = "auto",
    offline: shared.OfflineOpt = False,
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
        from circuit_tracer_cli.pipeline import TraceRequest

        set_manners(output, offline=offline)
        shared.check_places(device, device_map)
        runner = _runner(
            TraceRequest(
                prompt="", transcoder_set=transcoder_set, model=model, dtype=shared.long_dtype(dtype), device=device,
                device_map=device_map, backend=backend, offline=offline,
            )
        )  # fmt: skip
    elif model is not None:
        raise UsageError("--model alone can't be tested: edits are made to a set's features", "add -t SET")
    viewer = Viewer(folder, features_dir, host, port, tuple(allow_origin or ()), runner, root_path)
    with viewer.start() as server:
        viewer.announce(server, output)
        server.wait()


def _runner(request: TraceRequest) -> ModelRunner:
    """What loads the model in the background. Raises for a set or a model that isn't there, before the page is up."""
    from circuit_tracer_cli.backends import backend_class
    from circuit_tracer_cli.backends.devices import pick_device
    from circuit_tracer_cli.pipeline import layer_devices, model_folder, offline_mode
    from circuit_tracer_cli.server.model import ModelRunner
    from circuit_tracer_cli.transcoders.loading import inspect_transcoders

    pick_device(request.device)
    backend_class(request.backend).require()
    with judged_by_files(), offline_mode(request.offline):
        model_folder(request.model or inspect_transcoders(request.transcoder_set).config.model_name)
        layer_devices(request)
    return ModelRunner(request)
