"""`merge`: merge many graphs into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.destinations import destination_for_viewer
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output, number

if TYPE_CHECKING:
    from circuit_tracer_cli.many.merged_file import Union

FolderArg = Annotated[str, typer.Argument(metavar="DIR", help="A batch's folder, or any folder with graphs.")]
OutOpt = Annotated[
    str, typer.Option("--output", "-o", metavar="FILE.json", help="Write the merged graph for the viewer.")
]
FrequencyOpt = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        help="Keep nodes and edges found in at least this share of the graphs; 1 keeps those found in all.",
    ),
]
AlignOpt = Annotated[
    Literal["exact", "slots", "end", "bag"] | None,
    typer.Option(
        "--align",
        show_default="by the template, exact for equal prompts, else bag",
        help="How positions are matched.",
    ),
]
ByOpt = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Compare the two groups given by this column of the prompt file."),
]
SeedOpt = Annotated[int, typer.Option(metavar="N", help="Seed of the resampling.")]


def merge(
    folder: FolderArg,
    output_path: OutOpt,
    min_frequency: FrequencyOpt = 0.0,
    align: AlignOpt = None,
    by: ByOpt = None,
    seed: SeedOpt = 0,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Merge the graphs of many prompts: how often each node and edge occurs, how strong it is, and how stable.

    The result opens in the viewer like any graph. An edge's weight is its mean over all graphs, shown with its frequency, its
    95 % interval over prompts, and its stability.
    """
    output = Output(quiet=quiet)
    target = destination_for_viewer(output_path)
    silence_libraries(output)
    from circuit_tracer_cli.many.merged_file import merge_graphs

    union = merge_graphs(folder, target, align=align, min_frequency=min_frequency, by=by, seed=seed)
    if json_:
        output.data(_summary(union))
    else:
        _print(union, output)
    output.note(f"written      {target}")
    output.note(f"next: circuit-tracer serve {target.parent} --graph {target.stem}")


def _summary(union: Union) -> dict[str, Any]:
    merged = union.merged
    summary: dict[str, Any] = {
        "n": len(merged.members),
        "level": merged.level,
        "slots": list(merged.names),
        "nodes": len(merged.nodes.keys),
        "edges": len(merged.edges.keys),
        "in_all": int((merged.nodes.frequency == 1).sum()),
        "groups": merged.groups,
    }
    if merged.tests:
        summary["tests"] = {
            name: {"n": test.n_tests, "below_0.05": int((test.q < 0.05).sum())}
            for name, test in merged.tests.items()
        }
    return summary


def _print(union: Union, output: Output) -> None:
    merged = union.merged
    output.result(f"graphs       {len(merged.members)}, positions matched by {merged.level}")
    for what, statistics in (("nodes", merged.nodes), ("edges", merged.edges)):
        frequency = statistics.frequency
        output.result(
            f"{what:<12} {len(frequency)}: {int((frequency == 1).sum())} in all graphs, "
            f"{int((frequency >= 0.5).sum())} in half, {int((frequency < 0.2).sum())} in fewer than a fifth"
        )
    if merged.groups:
        output.result(
            "groups       " + ", ".join(f"{name}: {count}" for name, count in merged.groups.items())
        )
    for what, test in (merged.tests or {}).items():
        if test.q.size and test.q.min() == test.q.min():
            output.result(
                f"differences  {int((test.q < 0.05).sum())} of {test.n_tests} {what} at q < 0.05 "
                f"(lowest q {number(float(test.q.min()))})"
            )
        else:
            output.result(f"differences  no p-values for {what}: they need five prompts in each group")
