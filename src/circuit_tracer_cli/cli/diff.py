"""`diff`: two graphs compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output, number, quoted

if TYPE_CHECKING:
    from circuit_tracer_cli.many.diff import GraphDiff

GraphAArg = Annotated[
    str, typer.Argument(metavar="A", help="A graph: .safetensors, .pt or a viewer's .json.")
]
GraphBArg = Annotated[str, typer.Argument(metavar="B", help="The graph to compare it with.")]
AlignOpt = Annotated[
    Literal["exact", "slots", "end", "bag"] | None,
    typer.Option(
        "--align",
        show_default="exact for equal prompts, else slots",
        help="How positions are matched: exact, slots (token by token), end (distance from the last token) or bag (not at all).",
    ),
]
TargetOpt = Annotated[
    str | None,
    typer.Option(
        metavar="NODE",
        show_default="the most likely token",
        help="Node id of A or B whose change is explained.",
    ),
]
NoiseOpt = Annotated[
    bool,
    typer.Option(
        "--noise",
        help="Also measure how far shares move when only A's pruning changes, and mark what is less.",
    ),
]
CountOpt = Annotated[int, typer.Option("-n", min=0, metavar="N", help="Rows of each table; 0 for all.")]


def diff(
    a: GraphAArg,
    b: GraphBArg,
    align: AlignOpt = None,
    target: TargetOpt = None,
    noise: NoiseOpt = False,
    n: CountOpt = 10,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Compare two graphs: what both have, what one alone has, what only pruning cut, and why the target's value differs.

    A change is split exactly: by activation (the feature is more or less active) and by path (it reaches the target differently).
    Graphs of different transcoder sets are compared by layer and position.
    """
    output = Output(quiet=quiet)
    silence_libraries(output)
    from circuit_tracer_cli.many.diff import diff_facts, threshold_noise
    from circuit_tracer_cli.many.facts import read_facts

    first, second = read_facts(Path(a)), read_facts(Path(b))
    line = threshold_noise(first) if noise else None
    found = diff_facts(first, second, align, target, line)
    if json_:
        output.data(found.to_dict())
    else:
        _print(found, output, n)


def _print(found: GraphDiff, output: Output, n: int) -> None:
    _print_alignment(found, output)
    scores = found.scores
    output.result(
        f"nodes        {len(found.of_class('shared'))} shared, {len(found.of_class('only_a'))} only in A, "
        f"{len(found.of_class('only_b'))} only in B, {len(found.of_class('pruned_only'))} cut by pruning in one"
    )
    if unknown := len(found.of_class("unknown")):
        output.result(
            f"             {unknown} in one file alone; a viewer file can't tell if the other has them"
        )
    output.result(
        f"similarity   {number(scores['shared_influence'])} of the influence shared, "
        f"weighted Jaccard {number(scores['weighted_jaccard'])}, cosine {number(scores['cosine'])}"
    )
    for name in ("a", "b"):
        output.result(
            f"{name.upper()}            replacement {number(scores[f'replacement_{name}'])}, "
            f"completeness {number(scores[f'completeness_{name}'])}"
        )
    moved = found.largest_share_changes()
    if found.noise is not None:
        output.result(f"noise        shares within {number(found.noise)} of each other count as equal (≈)")
    rows = moved if n == 0 else moved[:n]
    if len(rows):
        output.result()
        output.table(
            "Features whose share of the influence differs most",
            ["node", "A#", "B#", "B - A#", ""],
            [
                (
                    found.ids[i],
                    number(float(found.nodes[0].share[i])),
                    number(float(found.nodes[1].share[i])),
                    number(float(found.nodes[1].share[i] - found.nodes[0].share[i])),
                    _mark(found, i),
                )
                for i in rows.tolist()
            ],
        )
    _print_changes(found, output, n)


def _mark(found: GraphDiff, i: int) -> str:
    from circuit_tracer_cli.many.diff import CLASSES

    difference = abs(float(found.nodes[0].share[i] - found.nodes[1].share[i]))
    noise = "≈ " if found.noise is not None and difference <= found.noise else ""
    name = CLASSES[int(found.node_class[i])]
    words = {"only_a": "only A", "only_b": "only B", "pruned_only": "cut in one", "unknown": "one file"}
    return noise + words.get(name, "")


def _print_alignment(found: GraphDiff, output: Output) -> None:
    alignment = found.alignment
    if alignment.match == "place":
        output.result("sets         differ, so features are compared by layer and position, not one by one")
    if alignment.level == "exact":
        output.result(f"alignment    exact: both prompts are {quoted(''.join(found.a.tokens))}")
        return
    output.result(f"alignment    {alignment.level}")
    if alignment.level == "bag":
        return
    output.table(
        "",
        ["slot#", "A", "B"],
        [
            (
                str(slot),
                "-" if a is None else quoted(found.a.tokens[a]),
                "-" if b is None else quoted(found.b.tokens[b]),
            )
            for slot, (a, b) in enumerate(alignment.pairs())
        ],
    )


def _print_changes(found: GraphDiff, output: Output, n: int) -> None:
    if not found.changes:
        return
    total = sum(change.b - change.a for change in found.changes)
    rows = found.changes if n == 0 else found.changes[:n]
    rest = total - sum(change.b - change.a for change in rows)
    output.result()
    output.table(
        f"Why {found.target[0]} differs: what its sources add, B - A = {number(total)}",
        ["source", "A#", "B#", "by activation#", "by path#"],
        [
            *((c.node, number(c.a), number(c.b), number(c.by_activation), number(c.by_path)) for c in rows),
            *(
                [(f"{len(found.changes) - len(rows)} more", "", "", "", number(rest))]
                if len(rows) < len(found.changes)
                else []
            ),
        ],
    )
