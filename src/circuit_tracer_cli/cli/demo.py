"""`demo`: the embedded example, from prompt to viewer, without network or GPU."""

from __future__ import annotations

import difflib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.demo_check import check_story
from circuit_tracer_cli.cli.demo_next import Following, print_next
from circuit_tracer_cli.cli.examples import labels_of
from circuit_tracer_cli.cli.graph_files import GraphFiles
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output, quoted
from circuit_tracer_cli.cli.progress import progress_on
from circuit_tracer_cli.cli.request_options import request_from
from circuit_tracer_cli.cli.summary import GraphSummary, print_summary
from circuit_tracer_cli.cli.viewing import Viewer
from circuit_tracer_cli.errors import InvalidValue, ServerError

if TYPE_CHECKING:
    from circuit_tracer_cli.demo import DemoPrompt
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.server.model import ModelRunner
    from circuit_tracer_cli.server.serve import Server

_ANSWER_SECONDS = 10

ListOpt = Annotated[bool, typer.Option("--list", help="List the example prompts and exit.")]
PromptIdOpt = Annotated[str, typer.Option(metavar="ID", help="Which prompt: an id or number from the list.")]
CheckOpt = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Ask about every state and country with the place's features off, then swapped for another's, and count.",
    ),
]
KindOpt = Annotated[
    Literal["clt", "plt"],
    typer.Option("--transcoders", help="Cross-layer (clt) or per-layer (plt) transcoders."),
]
DemoPortOpt = Annotated[
    int,
    typer.Option(
        min=0, max=65535, metavar="PORT", show_default="8041 or the next free one", help="The viewer's port."
    ),
]
DemoTokenOpt = Annotated[
    bool,
    typer.Option(
        "--token/--no-token",
        help="Answer only requests with the token from the link that the viewer prints.",
        show_default="no token",
        rich_help_panel=opt.VIEWER,
    ),
]


def demo(
    prompt_id: PromptIdOpt = "1",
    list_: ListOpt = False,
    check: CheckOpt = False,
    transcoders: KindOpt = "clt",
    graph_file_dir: opt.GraphFileDirOpt = opt.DEFAULT_DIRECTORY,
    port: DemoPortOpt = 0,
    token: DemoTokenOpt = False,
    json_: opt.JsonOpt = False,
    no_progress: opt.NoProgressOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Trace an example with the small model that ships with the program, and open the viewer on it.

    Needs no network and no GPU. On a terminal the viewer runs until Ctrl-C; elsewhere it is checked once and closed.
    """
    output = Output(quiet=quiet)
    if list_:
        _list(output, as_json=json_)
        return
    if check:
        silence_libraries(output)
        check_story(transcoders, output, bars=not no_progress, as_json=json_)
        return
    chosen = _chosen(prompt_id)
    slug = f"demo-{chosen['id']}" + ("-plt" if transcoders == "plt" else "")
    directory = graph_file_dir or opt.DEFAULT_DIRECTORY
    GraphFiles(slug=slug, directory=directory).check()
    _check_port(port)
    silence_libraries(output)
    model, graph, runner = _trace(chosen, transcoders, output, bars=not no_progress)
    files = GraphFiles(
        graph_path=str(Path(directory) / f"{slug}.safetensors"), slug=slug, directory=directory
    )
    summary = GraphSummary(graph, labels=labels_of(graph.scan, None))
    following = Following(chosen, transcoders, summary)
    files.write(graph, following.annotations())
    if json_:
        output.data(summary.to_dict())
    else:
        print_summary(summary, output)
    print_next(following, following.experiments(model, files), files, output)
    viewer = Viewer(Path(directory), port=port, runner=runner, token=token)
    with viewer.start() as server:
        _view(viewer, server, Output(quiet=quiet, stdout_taken=json_))


def _check_port(port: int) -> None:
    """Raise ServerError for a port in use, before the trace rather than after it."""
    from circuit_tracer_cli.server.serve import check_port

    check_port(opt.DEFAULT_HOST, port)


def _list(output: Output, *, as_json: bool) -> None:
    from circuit_tracer_cli.demo import prompts

    if as_json:
        output.data(prompts())
        return
    rows = [
        (str(number), entry["id"], entry["prompt"], quoted(entry["answer"]))
        for number, entry in enumerate(prompts(), 1)
    ]
    output.table("Example prompts", ("#", "id", "prompt", "answer"), rows)
    output.note("trace one: circuit-tracer demo --prompt-id ID")


def _chosen(prompt_id: str) -> DemoPrompt:
    """Return the prompt with this id or number. Raises InvalidValue."""
    from circuit_tracer_cli.demo import prompts

    for number, entry in enumerate(prompts(), 1):
        if prompt_id in {entry["id"], str(number)}:
            return entry
    near = difflib.get_close_matches(prompt_id, [entry["id"] for entry in prompts()], n=1)
    hint = (
        f"did you mean {near[0]}? circuit-tracer demo --list shows all"
        if near
        else "circuit-tracer demo --list"
    )
    raise InvalidValue(f"there is no example prompt {prompt_id!r}", hint)


def _trace(
    chosen: DemoPrompt, transcoders: str, output: Output, *, bars: bool
) -> tuple[ReplacementModel, Graph, ModelRunner]:
    """Return the model, the graph, and a runner for edits from the viewer."""
    from circuit_tracer_cli.pipeline import trace
    from circuit_tracer_cli.prepare import prepare
    from circuit_tracer_cli.server.model import ModelRunner

    request = request_from({}, prompt=chosen["prompt"], transcoder_set=f"demo-{transcoders}", offline=True)
    with progress_on(output, bars=bars) as progress:
        loaded: list[ReplacementModel] = []
        graph = trace(prepare(request, progress=progress), progress, on_model=loaded.append)
    return loaded[0], graph, ModelRunner(request, loaded[0])


def _view(viewer: Viewer, server: Server, output: Output) -> None:
    """On a terminal, keep the viewer up. Elsewhere check that it answers and return. Raises ServerError if it doesn't."""
    if sys.stdout.isatty() and not os.environ.get("CI"):
        viewer.announce(server, output)
        server.wait()
        return
    import urllib.request

    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{server.url}healthz", timeout=_ANSWER_SECONDS) as answer:
            status = answer.status
    except OSError as error:
        message = f"the viewer doesn't answer at {server.url}: {error}"
        raise ServerError(message, "circuit-tracer doctor") from error
    output.result(server.url)
    output.note(
        f"the viewer answered ({status}) and was closed again, since this is not a terminal; to open it:"
    )
    output.note(f"             circuit-tracer serve {shlex.quote(str(viewer.directory))}")
