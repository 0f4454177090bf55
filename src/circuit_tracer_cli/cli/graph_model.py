"""The model that a graph was made with: the options shared by commands, and the request made from them."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from circuit_tracer_cli.cli import request_options as ask
from circuit_tracer_cli.errors import UnsuitableValue

if TYPE_CHECKING:
    from circuit_tracer_cli.cli.output import Output
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.request import TraceRequest

SetOpt = Annotated[
    str | None,
    typer.Option(
        "--transcoder-set",
        "-t",
        metavar="SET",
        show_default="the graph's",
        help="Transcoders: a folder, a hub repository (user/repo@revision), gemma, llama, demo, demo-plt or neurons.",
        rich_help_panel=ask.PROMPT,
    ),
]
ModelOpt = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        show_default="the graph's",
        help="A model's folder, its name on the hub, or a GGUF file.",
        rich_help_panel=ask.PROMPT,
    ),
]
DTypeOpt = Annotated[
    Literal["float32", "bfloat16", "float16", "fp32", "bf16", "fp16"] | None,
    typer.Option(
        show_default="the graph's",
        help="Number type of model and transcoders.",
        rich_help_panel=ask.MACHINE,
    ),
]


def _options(
    transcoder_set: SetOpt = None,
    model: ModelOpt = None,
    dtype: DTypeOpt = None,
    device: ask.DeviceOpt = "auto",
    device_map: ask.DeviceMapOpt = None,
    backend: ask.BackendOpt = "auto",
    offline: ask.OfflineOpt = False,
) -> None:
    """The options that `takes_graph_model` adds, in the order in which help shows them."""


def takes_graph_model(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the options that name a graph's model; it finds their values in `ctx.params`.

    They are listed before the command's own options on output.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    added = list(inspect.signature(_options, eval_str=True).parameters.values())
    at = next(n for n, one in enumerate(own) if one.name in ("output_path", "json_"))
    names = {one.name for one in own}

    @functools.wraps(command)
    def with_model(**parsed: Any) -> None:
        command(**{name: value for name, value in parsed.items() if name in names})

    signature = inspect.Signature([*own[:at], *added, *own[at:]], return_annotation=None)
    vars(with_model)["__signature__"] = signature
    return with_model


def load_model_of(graph: Graph, request: TraceRequest, output: Output) -> ReplacementModel:
    """Load the model that the request names and check that it suits the graph's prompt, with a progress bar."""
    from circuit_tracer_cli.cli.progress import progress_on
    from circuit_tracer_cli.pipeline import load_model
    from circuit_tracer_cli.prepare import prepare

    with progress_on(output, bars=True) as progress:
        prepared = prepare(request, progress=progress, n_tokens=len(graph.input_tokens))
        return load_model(prepared, progress)


def request_of_graph(typed: TraceRequest, graph: Graph, parsed: Mapping[str, Any]) -> TraceRequest:
    """Return the request for the graph's model: as named on the command line, else as recorded in the graph.

    Args:
        typed: The request made from the options alone.
        graph: The graph.
        parsed: The options by name, those of `takes_graph_model` among them.

    Raises:
        UnsuitableValue: Neither the graph nor the command line names the transcoders.
    """
    from circuit_tracer_cli.request import DTYPES

    transcoder_set, model, dtype = (parsed[name] for name in ("transcoder_set", "model", "dtype"))
    named_set, named_model = origin(graph)
    chosen = transcoder_set or named_set
    if chosen is None:
        raise UnsuitableValue(
            "the graph doesn't record which transcoders it was made with", "name them with --transcoder-set"
        )
    known = graph.cfg.dtype if graph.cfg.dtype in DTYPES else "float32"
    return replace(
        typed,
        transcoder_set=chosen,
        model=model or (None if transcoder_set else named_model) or _model_of(graph, chosen),
        dtype=dtype or str(known),
    )


def _model_of(graph: Graph, transcoder_set: str) -> str | None:
    """Return the model that a graph names, for use with another set; None if it is embedded in the graph's own set, or gone."""
    from circuit_tracer_cli.transcoders.references import EMBEDDED

    name = graph.metadata.get("model")
    revision = graph.metadata.get("model_commit") or graph.metadata.get("model_revision")
    if not isinstance(name, str) or transcoder_set in EMBEDDED:
        return None
    if Path(name).is_absolute() and not Path(name).is_dir():
        return None
    return f"{name}@{revision}" if isinstance(revision, str) else name


def origin(graph: Graph) -> tuple[str | None, str | None]:
    """Return the references of transcoders and model that a graph was made with, as far as the graph records them."""
    transcoders = graph.metadata.get("transcoders")
    reference = transcoders.get("reference") if isinstance(transcoders, dict) else None
    words = _words(graph.metadata.get("command"))
    typed_set = _option(words, "-t", "--transcoder-set")
    if reference is None and words[:2] == ["circuit-tracer", "attribute"]:
        reference = typed_set or "demo"
    return (reference if isinstance(reference, str) else typed_set), _option(words, "-m", "--model")


def _words(command: object) -> list[str]:
    try:
        return shlex.split(command) if isinstance(command, str) else []
    except ValueError:
        return []


def _option(words: list[str], short: str, long: str) -> str | None:
    """Return the value of an option on a command line."""
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if word == short or name.replace("_", "-") == long:
            return value if equals else following
        if word.startswith(short) and not word.startswith("--"):
            return word.removeprefix(short)
    return None
