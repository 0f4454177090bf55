"""`attribute`: a prompt in, a graph out, and what to type next."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from itertools import filterfalse
from pathlib import Path
from typing import TYPE_CHECKING

from circuit_tracer_cli.cli import attribute_options as own
from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.destinations import STREAM
from circuit_tracer_cli.cli.errors import judged_by_files
from circuit_tracer_cli.cli.graph_files import GraphFiles
from circuit_tracer_cli.cli.libraries import set_manners
from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.cli.progress import progress_on
from circuit_tracer_cli.cli.summary import GraphSummary, headline
from circuit_tracer_cli.cli.viewing import Viewer
from circuit_tracer_cli.errors import BadPrompt, UsageError
from circuit_tracer_cli.features.folders import examples_folder

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.pipeline import TraceRequest
    from circuit_tracer_cli.replacement import ReplacementModel


def attribute(
    prompt: own.PromptOpt,
    transcoder_set: own.TranscoderSetOpt = "demo",
    model: own.ModelOpt = None,
    chat: own.ChatOpt = False,
    system: own.SystemOpt = None,
    prefill: own.PrefillOpt = None,
    target: own.TargetOpt = None,
    max_n_logits: own.MaxNLogitsOpt = 10,
    desired_logit_prob: own.DesiredLogitProbOpt = 0.95,
    max_feature_nodes: own.MaxFeatureNodesOpt = 7500,
    batch_size: own.BatchSizeOpt = 256,
    update_interval: own.UpdateIntervalOpt = 4,
    graph_output_path: opt.GraphOutputOpt = None,
    slug: opt.SlugOpt = None,
    graph_file_dir: opt.GraphFileDirOpt = None,
    node_threshold: opt.NodeThresholdOpt = None,
    edge_threshold: opt.EdgeThresholdOpt = None,
    server: own.ServerOpt = False,
    port: opt.PortOpt = opt.DEFAULT_PORT,
    host: opt.HostOpt = opt.DEFAULT_HOST,
    allow_origin: opt.AllowOriginOpt = None,
    root_path: opt.RootPathOpt = "",
    features_dir: opt.FeaturesDirOpt = None,
    dtype: own.DTypeOpt = "float32",
    device: own.DeviceOpt = "auto",
    device_map: own.DeviceMapOpt = None,
    offload: own.OffloadOpt = "auto",
    lazy_encoder: own.LazyEncoderOpt = None,
    lazy_decoder: own.LazyDecoderOpt = None,
    backend: own.BackendOpt = "auto",
    offline: own.OfflineOpt = False,
    verbose: own.VerboseOpt = False,
    no_progress: own.NoProgressOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Trace one prompt: the features, tokens and errors behind what the model says next.

    Writes the raw graph (-o), pruned graph files for the viewer (--slug, --graph-file-dir), or both.
    """
    output = Output(quiet=quiet, stdout_taken=True)
    given = _prompt_text(prompt, chat=chat, system=system, prefill=prefill)
    files = GraphFiles(
        graph_path=graph_output_path,
        slug=slug,
        directory=graph_file_dir,
        node_threshold=node_threshold,
        edge_threshold=edge_threshold,
    ).completed(given, server=server)
    files.check()
    own.check_places(device, device_map)
    set_manners(output, verbose=verbose, offline=offline)
    from circuit_tracer_cli.pipeline import TraceRequest, check_values

    request = TraceRequest(
        prompt=given, transcoder_set=transcoder_set, model=model, chat=chat, system=system, prefill=prefill,
        targets=tuple(target or ()), max_n_logits=max_n_logits, desired_logit_prob=desired_logit_prob,
        max_feature_nodes=max_feature_nodes, batch_size=batch_size, update_interval=update_interval,
        dtype=own.long_dtype(dtype), device=device, device_map=device_map, offload=offload,
        lazy_encoder=lazy_encoder, lazy_decoder=lazy_decoder, backend=backend, offline=offline, command=typed_command(),
    )  # fmt: skip
    check_values(request)
    examples = features_dir or examples_folder(transcoder_set)
    viewer = None
    if server:
        viewer = Viewer(
            Path(files.directory or ""), examples, host, port, tuple(allow_origin or ()), None, root_path
        )
        viewer = _checked(viewer, request)
    with judged_by_files():
        _run(request, files, viewer, output, bars=not no_progress)


def _checked(viewer: Viewer, request: TraceRequest) -> Viewer:
    """The viewer with the model behind it, what was typed about it checked. Raises InvalidValue."""
    from circuit_tracer_cli.server.model import ModelRunner
    from circuit_tracer_cli.server.prefix import check_root_path
    from circuit_tracer_cli.server.security import check_origins

    check_root_path(viewer.root_path)
    check_origins(viewer.allow_origin)
    return replace(viewer, runner=ModelRunner(request, is_busy=True))


def _prompt_text(prompt: str, *, chat: bool, system: str | None, prefill: str | None) -> str:
    """The prompt itself, read from stdin for `-` (without the line end that `echo` adds). Raises BadPrompt, UsageError."""
    if not chat and (system is not None or prefill is not None):
        raise UsageError("--system and --prefill are parts of a conversation", "add --chat")
    text = _piped_text() if prompt == STREAM else prompt
    if not text:
        raise BadPrompt("the prompt is empty", 'for example --prompt "The capital of Texas is"')
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadPrompt("the prompt isn't text in UTF-8", "convert it, for example with iconv -t utf-8")
    return text


def _piped_text() -> str:
    """All of stdin without the line end that `echo` adds; what isn't UTF-8 becomes surrogates, to be refused."""
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape").removesuffix("\n")


def typed_command() -> str:
    """The command line, to be kept with the graph and typed again."""
    return shlex.join(["circuit-tracer", *sys.argv[1:]])


def _run(
    request: TraceRequest, files: GraphFiles, viewer: Viewer | None, output: Output, *, bars: bool
) -> None:
    """Trace, write, say what came out."""
    from circuit_tracer_cli.pipeline import check, trace

    if viewer:
        check(request)
        files.make_directory()
        _run_in_view(request, files, viewer, output, bars=bars)
        return
    with progress_on(output, bars=bars) as progress:
        graph = trace(request, progress)
    _say_what_came_out(graph, files, files.write(graph), output, served=False)


def _run_in_view(
    request: TraceRequest, files: GraphFiles, viewer: Viewer, output: Output, *, bars: bool
) -> None:
    """The same with the page open from the start, which shows the graph as it grows; stays up until Ctrl-C."""
    from circuit_tracer_cli.cli.live import told
    from circuit_tracer_cli.pipeline import trace
    from circuit_tracer_cli.server.live import LiveTrace
    from circuit_tracer_cli.server.partial import Both, PartialGraphs

    live, loaded = LiveTrace(files.slug or "", request.prompt), list["ReplacementModel"]()
    partial = PartialGraphs(live, viewer.directory, files.node_threshold, files.edge_threshold)
    with viewer.start(live) as server:
        viewer.announce(server, output)
        with told(live):
            with progress_on(output, bars=bars) as progress:
                graph = trace(request, Both(progress, live), partial, on_model=loaded.append)
            if viewer.runner is not None:
                viewer.runner.adopt(loaded[0])
            written = files.write(graph)
        _say_what_came_out(graph, files, written, output, served=True)
        server.wait()


def _say_what_came_out(
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
