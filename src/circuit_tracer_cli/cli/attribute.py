"""`attribute`: trace a prompt, write the graph, and suggest the next command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import filterfalse
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli import request_options as ask
from circuit_tracer_cli.cli.destinations import STREAM
from circuit_tracer_cli.cli.graph_files import GraphFiles
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.cli.progress import progress_on
from circuit_tracer_cli.cli.request_options import request_from
from circuit_tracer_cli.cli.summary import GraphSummary, headline
from circuit_tracer_cli.cli.viewing import Viewer
from circuit_tracer_cli.features.packed import examples_folder

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.prepare import Prepared
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.request import TraceRequest
    from circuit_tracer_cli.server.live import LiveTrace


ServerOpt = Annotated[
    bool, typer.Option("--server", help="Open the viewer on the result.", rich_help_panel="Viewer")
]


def attribute(
    ctx: typer.Context,
    prompt: ask.PromptOpt,
    transcoder_set: ask.TranscoderSetOpt = "demo",
    model: ask.ModelOpt = None,
    chat: ask.ChatOpt = False,
    system: ask.SystemOpt = None,
    prefill: ask.PrefillOpt = None,
    target: ask.TargetOpt = None,
    completion: ask.CompletionOpt = None,
    max_n_logits: ask.MaxNLogitsOpt = 10,
    desired_logit_prob: ask.DesiredLogitProbOpt = 0.95,
    max_feature_nodes: ask.MaxFeatureNodesOpt = 7500,
    batch_size: ask.BatchSizeOpt = 256,
    update_interval: ask.UpdateIntervalOpt = 4,
    labels: ask.LabelsOpt = True,
    graph_output_path: opt.GraphOutputOpt = None,
    slug: opt.SlugOpt = None,
    graph_file_dir: opt.GraphFileDirOpt = None,
    node_threshold: opt.NodeThresholdOpt = None,
    edge_threshold: opt.EdgeThresholdOpt = None,
    server: ServerOpt = False,
    port: opt.PortOpt = opt.DEFAULT_PORT,
    host: opt.HostOpt = opt.DEFAULT_HOST,
    allow_origin: opt.AllowOriginOpt = None,
    root_path: opt.RootPathOpt = "",
    token: opt.TokenOpt = None,
    features_dir: opt.FeaturesDirOpt = None,
    dtype: ask.DTypeOpt = "float32",
    precision: ask.PrecisionOpt = "float32",
    device: ask.DeviceOpt = "auto",
    device_map: ask.DeviceMapOpt = None,
    offload: ask.OffloadOpt = "auto",
    lazy_encoder: ask.LazyEncoderOpt = None,
    lazy_decoder: ask.LazyDecoderOpt = None,
    backend: ask.BackendOpt = "auto",
    offline: ask.OfflineOpt = False,
    verbose: opt.VerboseOpt = False,
    no_progress: opt.NoProgressOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Trace one prompt: find the features, tokens and errors behind the model's next token.

    Writes the raw graph (-o), pruned graph files for the viewer (--slug, --graph-file-dir), or both.
    """
    output = Output(quiet=quiet, stdout_taken=True)
    silence_libraries(output, verbose=verbose, offline=offline)
    request = request_from(ctx.params)
    files = GraphFiles(
        graph_path=graph_output_path,
        slug=slug,
        directory=graph_file_dir,
        node_threshold=node_threshold,
        edge_threshold=edge_threshold,
    ).completed(request.prompt or "", server=server)
    files.check()
    examples = features_dir or examples_folder(transcoder_set)
    viewer = None
    if server:
        viewer = Viewer(
            Path(files.directory or ""),
            examples,
            host,
            port,
            tuple(allow_origin or ()),
            None,
            root_path,
            token,
        )
        viewer = _checked(viewer, request)
    _run(request, files, viewer, output, bars=not no_progress)


def _checked(viewer: Viewer, request: TraceRequest) -> Viewer:
    """Return the checked settings of a viewer that has the model behind it. Raises InvalidValue."""
    from circuit_tracer_cli.server.access import check_origins, check_root_path
    from circuit_tracer_cli.server.model import ModelRunner

    check_root_path(viewer.root_path)
    check_origins(viewer.allow_origin)
    return replace(viewer, runner=ModelRunner(request, is_busy=True))


def _run(
    request: TraceRequest, files: GraphFiles, viewer: Viewer | None, output: Output, *, bars: bool
) -> None:
    """Trace, write the files, and print a summary."""
    from circuit_tracer_cli.pipeline import trace
    from circuit_tracer_cli.prepare import prepare

    with progress_on(output, bars=bars) as progress:
        prepared = prepare(request, progress=progress)
        if viewer is None:
            graph = trace(prepared, progress)
    if viewer is None:
        _print_outcome(graph, files, files.write(graph), output, served=False)
    else:
        files.make_directory()
        _run_in_view(prepared, files, viewer, output, bars=bars)


def _run_in_view(
    prepared: Prepared, files: GraphFiles, viewer: Viewer, output: Output, *, bars: bool
) -> None:
    """Trace with the page open from the start, so that it shows the graph as it grows; stay up until Ctrl-C."""
    from circuit_tracer_cli.pipeline import trace
    from circuit_tracer_cli.server.live import Both, LiveTrace, PartialGraphs

    live, loaded = LiveTrace(files.slug or "", prepared.text or ""), list["ReplacementModel"]()
    partial = PartialGraphs(live, viewer.directory, files.node_threshold, files.edge_threshold)
    with viewer.start(live) as server:
        viewer.announce(server, output)
        with _end_shown_on(live):
            with progress_on(output, bars=bars) as progress:
                graph = trace(prepared, Both(progress, live), partial, on_model=loaded.append)
            if viewer.runner is not None:
                viewer.runner.adopt(loaded[0])
            written = files.write(graph)
        _print_outcome(graph, files, written, output, served=True)
        server.wait()


@contextmanager
def _end_shown_on(live: LiveTrace) -> Iterator[None]:
    """Tell the page how the work ended before the server stops. An interruption stops the server at once."""
    from circuit_tracer_cli.server.live import ended

    try:
        with ended(live, "see the terminal that it runs in"):
            yield
    except Exception:
        live.farewell()
        raise


def _print_outcome(
    graph: Graph, files: GraphFiles, written: list[Path], output: Output, *, served: bool
) -> None:
    from circuit_tracer_cli.export.annotations import aside_note, is_aside

    for path in filter(is_aside, written):
        output.warn(aside_note(path))
    if output.quiet:
        for warning in graph.metadata.get("plausibility", {}).get("warnings", ()):
            output.warn(warning)
        return
    for line in headline(GraphSummary(graph, n_nodes=0, n_paths=0)):
        output.note(line)
    for path in filterfalse(is_aside, written):
        output.note(f"written      {path}")
    if served or files.graph_path == STREAM:
        return
    if files.directory is not None:
        output.note(f"next: circuit-tracer serve {shlex.quote(files.directory)}")
    elif files.graph_path is not None:
        output.note(f"next: circuit-tracer show {shlex.quote(files.graph_path)}")
