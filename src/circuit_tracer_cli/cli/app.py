"""The program itself: its list of commands, its own options, and how a command line is run."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from circuit_tracer_cli import __version__
from circuit_tracer_cli.cli import (
    attention,
    attribute,
    batch,
    cache,
    demo,
    diff,
    doctor,
    estimate,
    expand,
    export,
    features,
    group,
    intervene,
    merge,
    prune,
    report,
    schema,
    serve,
    show,
    tables,
    validate,
    why_not,
)
from circuit_tracer_cli.cli.errors import install_signal_handlers, report_usage
from circuit_tracer_cli.cli.errors import report as report_error
from circuit_tracer_cli.cli.help import GroupedCommand
from circuit_tracer_cli.cli.streams import prepare_streams

PROGRAM = "circuit-tracer"


def _hyphens(name: str) -> str:
    """Accept underscores in every long option; help shows hyphens."""
    return name.replace("_", "-")


app = typer.Typer(
    name=PROGRAM,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"token_normalize_func": _hyphens, "help_option_names": ["-h", "--help"]},
    epilog="Start with `circuit-tracer demo`. Help on one command: `circuit-tracer COMMAND --help`. "
    "Terms such as feature, influence and supernode: docs/glossary.md, or Help in the viewer.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Find, read and test circuits inside language models with transcoders.

    Results go to stdout and everything else to stderr, so you can pipe commands together.
    """


def _guarded(function: Callable[..., None]) -> Callable[..., None]:
    """Return the command with every exception turned into a printed line and an exit code."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except (typer.Exit, TyperException):
            raise
        except BaseException as error:
            raise typer.Exit(report_error(error)) from error

    return guarded


def _register(
    name: str, function: Callable[..., None], summary: str, *, hidden: bool = False, group: typer.Typer = app
) -> None:
    group.command(name, cls=GroupedCommand, short_help=summary, hidden=hidden)(_guarded(function))


_register("attribute", attribute.attribute, "Trace one prompt into a graph.")
_register("batch", batch.batch, "Trace many prompts, here or on a cluster.")
_register("prune", prune.prune, "Keep the part of a graph that matters.")
_register("export", export.export, "Write a graph for the viewer or other programs.")
_register("show", show.show, "Print a graph's strongest nodes and paths.")
_register("report", report.report, "Write a report on a graph to hand on.")
_register("serve", serve.serve, "Open the viewer on a folder of graphs.")
_register("start-server", serve.serve, "The same as serve.", hidden=True)
_register("intervene", intervene.intervene, "Change features and see how the output changes.")
_register("validate", validate.validate, "Measure how well a graph's predictions hold up.")
_register("why-not", why_not.why_not, "Say why the model says one token and not another.")
_register("expand", expand.expand, "Add nodes to a graph.")
_register("group", group.group, "Group features into supernodes.")
_register("heads", attention.heads, "Show which attention heads carry an edge.")
_register("attend", attention.attend, "Explain why a head looks where it looks.")
_register("diff", diff.diff, "Compare two graphs.")
_register("merge", merge.merge, "Merge the graphs of many prompts into one.")
_register("table", tables.table, "Write graphs as Parquet tables.")
_register("query", tables.query, "Query graphs with SQL.")
_register("estimate", estimate.estimate, "Estimate the memory and time of a trace without loading the model.")
_register("demo", demo.demo, "Trace an example that ships with the program.")
_register("schema", schema.schema, "Describe what a command prints with --json.")
_register("doctor", doctor.doctor, "Print versions and devices, and check what is missing.")

app.add_typer(features.group, name="features", short_help="Make feature examples or inspect them.")
_register("build", features.build, "Make feature examples from text.", group=features.group)
_register("import", features.import_, "Import labels and examples from other tools.", group=features.group)
_register("info", features.info, "Summarize a folder of feature examples.", group=features.group)

app.add_typer(cache.group, name="cache", short_help="Manage converted transcoder sets.")
_register("add", cache.add, "Download a set and convert it.", group=cache.group)
_register("list", cache.list_sets, "List the sets in the cache, or published ones.", group=cache.group)
_register("info", cache.info, "Show what a set was made from.", group=cache.group)
_register("remove", cache.remove, "Remove sets.", group=cache.group)
_register("clear", cache.clear, "Remove all converted sets.", group=cache.group)
_register("dir", cache.show_dir, "Print the cache folder.", group=cache.group)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    install_signal_handlers()
    prepare_streams()
    try:
        code = app(args=list(arguments), prog_name=PROGRAM, standalone_mode=False)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        return report_usage(error.format_message(), context.command_path if context else PROGRAM)
    except BaseException as error:
        return report_error(error)
    return code if isinstance(code, int) else 0
