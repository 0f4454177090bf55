"""`diff`: compare two graphs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.destinations import destination_for_viewer
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output, number, quoted
from circuit_tracer_cli.errors import CircuitTracerError, MissingFile, UnsuitableValue

if TYPE_CHECKING:
    from circuit_tracer_cli.many.diff import GraphDiff
    from circuit_tracer_cli.many.facts import Facts

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
        help="Id of the node in A or B whose change is explained.",
    ),
]
NoiseOpt = Annotated[
    bool,
    typer.Option(
        "--noise",
        help="Measure how much values change when only A's pruning or dtype changes, and gray out smaller differences.",
    ),
]
OutOpt = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE.json",
        show_default=False,
        help="Write both graphs as one for the viewer, which colours what one alone has.",
    ),
]
CountOpt = Annotated[int, typer.Option("-n", min=0, metavar="N", help="Rows of each table; 0 for all.")]


def diff(
    a: GraphAArg,
    b: GraphBArg,
    align: AlignOpt = None,
    target: TargetOpt = None,
    noise: NoiseOpt = False,
    output_path: OutOpt = None,
    n: CountOpt = 10,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Compare two graphs: shared nodes, nodes in only one, nodes that only pruning cut, and why the target's value differs.

    Each change is split exactly into activation (the feature is more or less active) and path (its effect on the target differs).
    Graphs of different transcoder sets are compared by layer and position.
    """
    output = Output(quiet=quiet)
    out = None if output_path is None else destination_for_viewer(output_path)
    silence_libraries(output)
    from circuit_tracer_cli.many.diff import changes_noise, diff_facts, share_noise, threshold_noise
    from circuit_tracer_cli.many.facts import read_facts

    first, second = read_facts(Path(a)), read_facts(Path(b))
    line = change_line = None
    if noise:
        line, again = threshold_noise(first), _in_another_dtype(first, output)
        if again is not None:
            line, change_line = max(line, share_noise(first, again)), changes_noise(first, again, target)
    found = diff_facts(first, second, align, target, line, change_line)
    if json_:
        output.data(found.to_dict())
    else:
        _print(found, output, n)
    if out is not None:
        from circuit_tracer_cli.many.diff_file import write_diff

        write_diff(found, out)
        output.note(f"written      {out}")
        output.note(f"next: circuit-tracer serve {out.parent} --graph {out.stem}")


def _in_another_dtype(first: Facts, output: Output) -> Facts | None:
    """Trace A's prompt and targets again in 16 bits (in 32 if A was in 16), if its model and set are on this machine."""
    from dataclasses import replace

    from circuit_tracer_cli.cli.graph_model import origin
    from circuit_tracer_cli.cli.progress import progress_on
    from circuit_tracer_cli.many.facts import facts_of_graph
    from circuit_tracer_cli.pipeline import load_model, trace_with
    from circuit_tracer_cli.prepare import prepare, setup_of
    from circuit_tracer_cli.request import TraceRequest

    graph = first.graph
    assert graph is not None
    named_set, named_model = origin(graph)
    ids = [index for _, index in graph.logit_targets]
    try:
        if named_set is None:
            raise MissingFile("A doesn't record which transcoders it was made with")
        if any(index >= graph.vocab_size for index in ids):
            raise UnsuitableValue("A's target isn't a token")
        settings = graph.metadata.get("settings")
        wanted = TraceRequest(
            transcoder_set=named_set,
            model=named_model,
            dtype="float32" if graph.cfg.dtype in ("bfloat16", "float16") else "bfloat16",
            targets=tuple(f"id:{index}" for index in ids),
            offline=True,
            **{name: value for name, value in dict(settings or {}).items() if name in _CHOICES},
        )
        with progress_on(output, bars=True) as progress:
            model = load_model(prepare(wanted, progress=progress, n_tokens=first.n_pos), progress)
            prepared = prepare(wanted, setup_of(model), n_tokens=first.n_pos)
            prepared = replace(prepared, tokens=model.tokenize(graph.input_tokens))
            return facts_of_graph(trace_with(model, prepared, progress), first.name)
    except CircuitTracerError as error:
        output.note(f"noise        from pruning alone, since A can't be traced again: {error.message}")
        return None


_CHOICES = ("max_n_logits", "desired_logit_prob", "batch_size", "max_feature_nodes", "update_interval")


def _print(found: GraphDiff, output: Output, n: int) -> None:
    _print_alignment(found, output)
    scores = found.scores
    output.result(
        f"nodes        {len(found.of_class('shared'))} shared, {len(found.of_class('only_a'))} only in A, "
        f"{len(found.of_class('only_b'))} only in B, {len(found.of_class('pruned_only'))} cut by pruning in one"
    )
    if unknown := len(found.of_class("unknown")):
        output.result(
            f"             {unknown} in only one file; a viewer file doesn't show whether the other graph has them"
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
            dim=[row for row, i in enumerate(rows.tolist()) if found.within_noise(i)],
        )
    _print_changes(found, output, n)


def _mark(found: GraphDiff, i: int) -> str:
    from circuit_tracer_cli.many.diff import CLASSES

    noise = "≈ " if found.within_noise(i) else ""
    name = CLASSES[int(found.node_class[i])]
    words = {"only_a": "only A", "only_b": "only B", "pruned_only": "cut in one", "unknown": "one file"}
    return noise + words.get(name, "")


def _print_alignment(found: GraphDiff, output: Output) -> None:
    alignment = found.alignment
    if alignment.match == "place":
        output.result("sets         differ, so features are compared by layer and position, not individually")
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
        f"Why {found.target[0]} differs: contributions of its sources, B - A = {number(total)}",
        ["source", "A#", "B#", "by activation#", "by path#"],
        [
            *((c.node, number(c.a), number(c.b), number(c.by_activation), number(c.by_path)) for c in rows),
            *(
                [(f"{len(found.changes) - len(rows)} more", "", "", "", number(rest))]
                if len(rows) < len(found.changes)
                else []
            ),
        ],
        dim=[
            row
            for row, change in enumerate(rows)
            if found.change_noise is not None and abs(change.b - change.a) <= found.change_noise
        ],
    )
