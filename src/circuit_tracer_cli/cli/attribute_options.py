"""The options of `attribute` alone, in the groups that its help shows."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from circuit_tracer_cli.errors import UsageError

PROMPT, TRACE, MACHINE = "Prompt and model", "What to trace", "Machine"

_LONG_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_DEVICES = r"auto|cpu|mps|cuda(:\d+)?"


def long_dtype(name: str) -> str:
    """The dtype's full name."""
    return _LONG_DTYPES.get(name, name)


def _above_zero(value: float) -> float:
    if not 0 < value <= 1:
        raise typer.BadParameter("it must be above 0 and at most 1")
    return value


def _known_device(value: str) -> str:
    import re

    if not re.fullmatch(_DEVICES, value):
        raise typer.BadParameter(f"{value!r} is none of auto, cpu, cuda, cuda:1, mps")
    return value


def check_places(device: str, device_map: str | None) -> None:
    """Raise for a device that isn't here, a device map that no model could follow, and where the two exclude each other."""
    if device_map is None:
        if device not in ("auto", "cpu"):
            from circuit_tracer_cli.backends.devices import pick_device

            pick_device(device)
        return
    if device != "auto":
        raise UsageError("--device and --device-map both say where layers lie", "leave one of them out")
    from circuit_tracer_cli.backends.devices import check_device_map

    check_device_map(device_map)


PromptOpt = Annotated[
    str,
    typer.Option("--prompt", "-p", metavar="TEXT", help="The prompt; - reads stdin.", rich_help_panel=PROMPT),
]
TranscoderSetOpt = Annotated[
    str,
    typer.Option(
        "--transcoder-set",
        "-t",
        metavar="SET",
        help="Transcoders: a folder, a hub repository (user/repo@revision), gemma, llama, demo or demo-plt.",
        rich_help_panel=PROMPT,
    ),
]
ModelOpt = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        show_default="as the transcoders say",
        help="A model's folder or its name on the hub.",
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
    typer.Option(metavar="TEXT", help="With --chat: how the answer begins.", rich_help_panel=PROMPT),
]

TargetOpt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TARGET",
        help='Explain this, not the likeliest tokens: a token, id:123, or "A - B". Repeatable.',
        rich_help_panel=TRACE,
    ),
]
MaxNLogitsOpt = Annotated[
    int, typer.Option(min=1, metavar="N", help="At most this many logits.", rich_help_panel=TRACE)
]
DesiredLogitProbOpt = Annotated[
    float,
    typer.Option(
        callback=_above_zero,
        metavar="SHARE",
        help="Enough logits to reach this probability.",
        rich_help_panel=TRACE,
    ),
]
MaxFeatureNodesOpt = Annotated[
    int,
    typer.Option(
        min=0, metavar="N", help="Only the most influential features; 0 for all.", rich_help_panel=TRACE
    ),
]
BatchSizeOpt = Annotated[
    int,
    typer.Option(
        min=1, metavar="N", help="Features chosen at a time, within that limit.", rich_help_panel=TRACE
    ),
]
UpdateIntervalOpt = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Batches between two rankings of features.", rich_help_panel=TRACE),
]

ServerOpt = Annotated[
    bool, typer.Option("--server", help="Open the viewer on the result.", rich_help_panel="Viewer")
]

DTypeOpt = Annotated[
    Literal["float32", "bfloat16", "float16", "fp32", "bf16", "fp16"],
    typer.Option(help="Number type of model and transcoders.", rich_help_panel=MACHINE),
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
        help="Layers on several devices: balanced, or 0-11:cuda:0,12-25:cuda:1.",
        rich_help_panel=MACHINE,
    ),
]
OffloadOpt = Annotated[
    Literal["auto", "cpu", "disk", "none"],
    typer.Option(
        case_sensitive=False, help="Where weights wait that aren't in use.", rich_help_panel=MACHINE
    ),
]
LazyEncoderOpt = Annotated[
    bool | None,
    typer.Option(
        "--lazy-encoder/--no-lazy-encoder",
        show_default="auto",
        help="Read encoder rows from disk as they are needed.",
        rich_help_panel=MACHINE,
    ),
]
LazyDecoderOpt = Annotated[
    bool | None,
    typer.Option(
        "--lazy-decoder/--no-lazy-decoder",
        show_default="auto",
        help="Read decoder rows from disk as they are needed.",
        rich_help_panel=MACHINE,
    ),
]
BackendOpt = Annotated[
    Literal["auto", "transformers", "transformerlens", "nnsight"],
    typer.Option(
        help="Library that runs the model. All give the same graphs; auto is transformers, which starts fastest.",
        rich_help_panel=MACHINE,
    ),
]
OfflineOpt = Annotated[bool, typer.Option("--offline", help="Download nothing.", rich_help_panel=MACHINE)]

VerboseOpt = Annotated[bool, typer.Option("--verbose", help="Also the messages of the libraries underneath.")]
NoProgressOpt = Annotated[bool, typer.Option("--no-progress", help="Notes, but no progress.")]
