"""`schema`: what a command prints with --json, as a JSON Schema."""

from __future__ import annotations

from typing import Annotated

import typer

from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.errors import InvalidValue

CommandArg = Annotated[
    list[str] | None,
    typer.Argument(metavar="COMMAND", help="Such as show or cache list.", show_default="list the commands"),
]


def schema(command: CommandArg = None) -> None:
    """Print the JSON Schema of what a command prints with --json. Later versions may add keys; none is removed or renamed."""
    from circuit_tracer_cli.cli.schemas import SCHEMAS, schema_of

    output, name = Output(), " ".join(command or ())
    if not name:
        output.result("\n".join(SCHEMAS))
        return
    if name not in SCHEMAS:
        raise InvalidValue(f"{name!r} isn't a command with --json", "circuit-tracer schema lists them")
    output.data(schema_of(name))
