"""The options of `intervene` alone, in the groups that its help shows."""

from __future__ import annotations

from typing import Annotated

import typer

from circuit_tracer_cli.cli import attribute_options as shared

EDITS, PINS, SHOWN = "Edits", "What stays as it was", "What is shown"

PromptOpt = Annotated[
    str | None,
    typer.Option(
        "--prompt", "-p", metavar="TEXT", help="The prompt; - reads stdin.", rich_help_panel=shared.PROMPT
    ),
]
TranscoderSetOpt = Annotated[
    str | None,
    typer.Option(
        "--transcoder-set",
        "-t",
        metavar="SET",
        show_default="demo",
        help="Transcoders: a folder, or demo, demo-clt, demo-plt.",
        rich_help_panel=shared.PROMPT,
    ),
]
EditOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--edit",
        "-e",
        metavar="EDIT",
        help="LAYER/FEATURE@POS=VALUE. POS: 3, -1, 2:5 or 6: (goes on). VALUE: 4.5, x2 or off. Repeatable.",
        rich_help_panel=EDITS,
    ),
]
PlanOpt = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Edits and settings saved before; - reads stdin.", rich_help_panel=EDITS
    ),
]
SavePlanOpt = Annotated[
    str | None, typer.Option(metavar="FILE", help="Save edits and settings as JSON.", rich_help_panel=EDITS)
]
GraphOpt = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="A graph file of the viewer, with named supernodes; - reads stdin.",
        rich_help_panel=EDITS,
    ),
]
SupernodeOpt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Edit the features of this supernode. Repeatable.", rich_help_panel=EDITS
    ),
]
FactorOpt = Annotated[
    str,
    typer.Option(metavar="FACTOR", help="What supernodes are multiplied by, or off.", rich_help_panel=EDITS),
]
FreezeOpt = Annotated[
    bool | None,
    typer.Option(
        "--freeze-attention/--no-freeze-attention",
        show_default="freeze-attention",
        help="Keep the attention patterns of the unedited run.",
        rich_help_panel=PINS,
    ),
]
ConstrainedOpt = Annotated[
    str | None,
    typer.Option(
        metavar="FIRST:END",
        help="Keep these layers' outputs but for the edits; : is all layers.",
        rich_help_panel=PINS,
    ),
]
GenerateOpt = Annotated[
    int, typer.Option(min=0, metavar="N", help="Also continue the prompt by N tokens.", rich_help_panel=SHOWN)
]
TemperatureOpt = Annotated[
    float,
    typer.Option(min=0, metavar="T", help="Draw tokens; 0 takes the likeliest.", rich_help_panel=SHOWN),
]
SeedOpt = Annotated[int, typer.Option(metavar="N", help="Seed of the draws.", rich_help_panel=SHOWN)]
TopKOpt = Annotated[
    int, typer.Option(min=1, metavar="N", help="List so many of the likeliest tokens.", rich_help_panel=SHOWN)
]
