"""The options of a trace, in the groups that help shows, and the request made from them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from circuit_tracer_cli.cli.destinations import STREAM
from circuit_tracer_cli.errors import BadPrompt
from circuit_tracer_cli.files.inputs import plain_text, read_limited

if TYPE_CHECKING:
    from circuit_tracer_cli.request import TraceRequest

PROMPT, TRACE, MACHINE = "Prompt and model", "What to trace", "Machine"

_DEVICES = r"auto|cpu|mps|cuda(:\d+)?"


def _above_zero(value: float) -> float:
    if not 0 < value <= 1:
        raise typer.BadParameter("must be greater than 0 and at most 1")
    return value


def _known_device(value: str) -> str:
    import re

    if not re.fullmatch(_DEVICES, value):
        raise typer.BadParameter(f"unknown device {value!r}; use auto, cpu, cuda, cuda:1 or mps")
    return value


LARGEST_PROMPT = 16 << 20
"""Largest prompt in bytes; a million tokens take about 4 MiB."""


def request_from(parsed: Mapping[str, Any], **instead: Any) -> TraceRequest:
    """Return the request made from a command's parsed options: those named like its fields, and `target` for `targets`.

    Args:
        parsed: The options by name, as in `typer.Context.params`; options that don't belong to a request are ignored.
        instead: Fields that the command sets itself.

    Raises:
        UsageError: What `TraceRequest` raises.
    """
    from circuit_tracer_cli.request import TraceRequest

    names = {field.name for field in fields(TraceRequest)}
    values = {name: value for name, value in parsed.items() if name in names and value is not None}
    values |= {"targets": tuple(parsed.get("target") or ()), "command": typed_command(), **instead}
    if "prompt" not in instead and parsed.get("prompt") is not None:
        values["prompt"] = given_prompt(parsed["prompt"])
    return TraceRequest(**values)


def given_prompt(prompt: str) -> str:
    """Return the prompt, read from stdin for `-`, without a byte order mark or the line end that `echo` adds.

    Raises:
        BadPrompt: The prompt isn't UTF-8.
        MissingFile: stdin is longer than any prompt can be.
    """
    text = prompt
    if prompt == STREAM:
        text = plain_text(read_limited(sys.stdin.buffer, "the prompt on stdin", LARGEST_PROMPT))
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadPrompt("the prompt isn't UTF-8 text", "convert it, for example with iconv -t utf-8")
    return text


def typed_command() -> str:
    """Return the command line, to be recorded in the graph and run again."""
    return shlex.join(["circuit-tracer", *sys.argv[1:]])


PromptOpt = Annotated[
    str,
    typer.Option("--prompt", "-p", metavar="TEXT", help="The prompt; - reads stdin.", rich_help_panel=PROMPT),
]
OptionalPromptOpt = Annotated[
    str | None,
    typer.Option("--prompt", "-p", metavar="TEXT", help="The prompt; - reads stdin.", rich_help_panel=PROMPT),
]
TranscoderSetOpt = Annotated[
    str,
    typer.Option(
        "--transcoder-set",
        "-t",
        metavar="SET",
        help="Transcoders: a folder, a hub repository (user/repo@revision), gemma, llama, demo, demo-plt or neurons.",
        rich_help_panel=PROMPT,
    ),
]
OptionalSetOpt = Annotated[
    str | None,
    typer.Option(
        "--transcoder-set",
        "-t",
        metavar="SET",
        show_default="the plan's or graph's, else demo",
        help="Transcoders: a folder, a hub repository, demo, demo-plt, or neurons (the model's own).",
        rich_help_panel=PROMPT,
    ),
]
ModelOpt = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        show_default="the transcoders' model",
        help="A model's folder, its name on the hub, or a GGUF file.",
        rich_help_panel=PROMPT,
    ),
]
ChatOpt = Annotated[
    bool,
    typer.Option("--chat", help="Put the prompt into the model's chat template.", rich_help_panel=PROMPT),
]
SystemOpt = Annotated[
    str | None, typer.Option(metavar="TEXT", help="With --chat: the system turn.", rich_help_panel=PROMPT)
]
PrefillOpt = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="With --chat: the beginning of the answer.", rich_help_panel=PROMPT),
]

TargetOpt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TARGET",
        help='Explain this instead of the most likely tokens: a token, id:123, "A - B", "token: Texas@9", '
        "feature:12/3456@9, or direction:FILE@LAYER/POSITION. Repeatable.",
        rich_help_panel=TRACE,
    ),
]
CompletionOpt = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="Explain each token of this text, which follows the prompt, given those before it.",
        rich_help_panel=TRACE,
    ),
]
MaxNLogitsOpt = Annotated[
    int, typer.Option(min=1, metavar="N", help="Explain at most this many tokens.", rich_help_panel=TRACE)
]
DesiredLogitProbOpt = Annotated[
    float,
    typer.Option(
        callback=_above_zero,
        metavar="SHARE",
        help="Explain the top tokens until their probabilities sum to this.",
        rich_help_panel=TRACE,
    ),
]
MaxFeatureNodesOpt = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="Keep at most this many feature nodes, the most influential; 0 keeps all.",
        rich_help_panel=TRACE,
    ),
]
BatchSizeOpt = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Number of features to select per batch.", rich_help_panel=TRACE),
]
UpdateIntervalOpt = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Re-rank features every N batches.", rich_help_panel=TRACE),
]
LabelsOpt = Annotated[
    bool,
    typer.Option(
        "--labels/--no-labels",
        help="Propose labels for the most influential features, from tokens that drive them and tokens that they promote.",
        rich_help_panel=TRACE,
    ),
]

DTypeOpt = Annotated[
    Literal["float32", "bfloat16", "float16", "fp32", "bf16", "fp16"],
    typer.Option(help="Number type of model and transcoders.", rich_help_panel=MACHINE),
]
PrecisionOpt = Annotated[
    Literal["float32", "tf32", "bf16"],
    typer.Option(
        help="Precision of the products that edges are computed with; sums stay float32.",
        rich_help_panel=MACHINE,
    ),
]
DeviceOpt = Annotated[
    str,
    typer.Option(
        callback=_known_device,
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:1 or mps.",
        rich_help_panel=MACHINE,
    ),
]
DeviceMapOpt = Annotated[
    str | None,
    typer.Option(
        metavar="MAP",
        help="Spread layers over devices: balanced, or 0-11:cuda:0,12-25:cuda:1.",
        rich_help_panel=MACHINE,
    ),
]
OffloadOpt = Annotated[
    Literal["auto", "cpu", "disk", "none"],
    typer.Option(
        case_sensitive=False, help="Where to move weights that aren't in use.", rich_help_panel=MACHINE
    ),
]
LazyEncoderOpt = Annotated[
    bool | None,
    typer.Option(
        "--lazy-encoder/--no-lazy-encoder",
        show_default="auto",
        help="Read encoder rows from disk as needed.",
        rich_help_panel=MACHINE,
    ),
]
LazyDecoderOpt = Annotated[
    bool | None,
    typer.Option(
        "--lazy-decoder/--no-lazy-decoder",
        show_default="auto",
        help="Read decoder rows from disk as needed.",
        rich_help_panel=MACHINE,
    ),
]
BackendOpt = Annotated[
    Literal["auto", "transformers", "transformerlens", "nnsight"],
    typer.Option(
        help="Library that runs the model. All give the same graph; auto picks transformers, which starts fastest.",
        rich_help_panel=MACHINE,
    ),
]
OfflineOpt = Annotated[bool, typer.Option("--offline", help="Download nothing.", rich_help_panel=MACHINE)]
