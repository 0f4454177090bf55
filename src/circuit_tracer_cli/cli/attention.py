"""`heads` and `attend`: which attention heads carry an edge, and why a head looks where it looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.destinations import STREAM, check_graph_destination, read_graph, write_graph
from circuit_tracer_cli.cli.graph_model import load_model_of, request_of_graph, takes_graph_model
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output, number, quoted
from circuit_tracer_cli.cli.progress import progress_on
from circuit_tracer_cli.cli.request_options import request_from
from circuit_tracer_cli.errors import UsageError

if TYPE_CHECKING:
    from circuit_tracer_cli.attention.loadings import EdgeHeads, HeadLoadings, HeadShare
    from circuit_tracer_cli.attention.prompt import FrozenPrompt
    from circuit_tracer_cli.attention.qk import QKAttribution
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.request import TraceRequest

EdgeOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--edge", metavar="SOURCE:TARGET",
        help="An edge; write its nodes as in the graph file or as layer/feature@position. Repeatable.",
    ),
]  # fmt: skip
AllOpt = Annotated[
    bool,
    typer.Option(
        "--all", help="Use all edges of the graph: -o writes their heads into it, --json prints them."
    ),
]
ByOpt = Annotated[
    Literal["arrive", "leave", "through", "hops", "chains"],
    typer.Option(
        help="Group paths by the head that brings them to the target's position, the head that takes them from the source's, any "
        "head along the way, the number of heads, or the chain of heads."
    ),
]
WhyOpt = Annotated[
    bool,
    typer.Option(
        "--why",
        help="Also explain why the strongest head looks there; -o stores the explanation in the graph.",
    ),
]
_LISTED = 10
CountOpt = Annotated[int, typer.Option("-n", min=0, metavar="N", help="How many to list; 0 for all.")]
HeadOpt = Annotated[str, typer.Option("--head", metavar="L14H3", help="The head.")]
QueryOpt = Annotated[
    int,
    typer.Option("--query", metavar="POSITION", help="Position that it looks from; -1 is the last token."),
]
KeyOpt = Annotated[
    int | None,
    typer.Option("--key", metavar="POSITION", help="Position that it looks at. Default: list all keys."),
]
AgainstOpt = Annotated[
    str | None,
    typer.Option(
        "--against", metavar="POSITION",
        help="Compare with another key, or with rest: all keys, weighted by their attention.",
    ),
]  # fmt: skip
GroupOpt = Annotated[bool, typer.Option("--features", help="Sum each feature over all positions.")]


@takes_graph_model
def heads(
    ctx: typer.Context,
    graph: opt.GraphArg = STREAM,
    edge: EdgeOpt = None,
    all_: AllOpt = False,
    by: ByOpt = "arrive",
    why: WhyOpt = False,
    n: CountOpt = _LISTED,
    output_path: opt.GraphOutputOpt = None,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Split edges by the attention heads that carry them, exactly.

    Shares are relative to the edge's weight. They are signed, and heads may cancel each other. --all writes the four
    strongest heads of every edge into the graph.
    """
    output = Output(quiet=quiet, stdout_taken=output_path == STREAM)
    listed = n if n != _LISTED else None
    _check_heads(edge, output_path, by, all_=all_, why=why, prints=json_, listed=listed)
    check_graph_destination(output_path)
    silence_libraries(output, offline=ctx.params["offline"])
    typed = request_from(ctx.params, max_n_logits=1)
    loaded = read_graph(graph)
    pairs = [_edge(loaded, text) for text in edge or ()]
    request = request_of_graph(typed, loaded, ctx.params)
    prompt = _frozen(loaded, request, output)
    from circuit_tracer_cli.attention.loadings import loadings

    if all_:
        every = _every(prompt, output_path, output)
        if json_:
            output.data(every.to_dict())
        return
    found = loadings(prompt, pairs, by, n)
    reasons = [_why(prompt, one) for one in found] if why else []
    if output_path is not None:
        _keep_reasons(prompt.graph, found.edges, reasons, output_path, output)
        if output_path == STREAM:
            return
    if json_:
        record = found.to_dict()
        for one, reason in zip(record["edges"], reasons, strict=False):
            one["why"] = None if reason is None else reason.to_dict()
        output.data(record)
        return
    for number_, one in enumerate(found):
        _print_edge(one, loaded, output)
        if why and (reason := reasons[number_]) is not None:
            output.result()
            _print_score(reason, loaded, output)


@takes_graph_model
def attend(
    ctx: typer.Context,
    graph: opt.GraphArg = STREAM,
    head: HeadOpt = ...,  # type: ignore[assignment]
    query: QueryOpt = ...,  # type: ignore[assignment]
    key: KeyOpt = None,
    against: AgainstOpt = None,
    n: CountOpt = 10,
    features: GroupOpt = False,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Explain why a head looks where it looks: split its score over pairs of the nodes that wrote query and key.

    Scores are before soft cap, mask and softmax.
    """
    output = Output(quiet=quiet)
    layer, number_ = parse_head(head)
    other = _against(against, key)
    silence_libraries(output, offline=ctx.params["offline"])
    typed = request_from(ctx.params, max_n_logits=1)
    loaded = read_graph(graph)
    request = request_of_graph(typed, loaded, ctx.params)
    prompt = _frozen(loaded, request, output)
    from circuit_tracer_cli.attention import qk

    found = qk.attend(prompt, layer, number_, query, key, other, n, "feature" if features else None)
    if json_:
        output.data(found.to_dict())
    else:
        _print_score(found, loaded, output)


def parse_head(text: str) -> tuple[int, int]:
    """Return layer and head of `L14H3`. Raises UsageError."""
    from circuit_tracer_cli.attention.names import parse_head as parse

    return parse(text)


def _check_heads(
    edge: Sequence[str] | None,
    destination: str | None,
    by: str,
    *,
    all_: bool,
    why: bool,
    prints: bool,
    listed: int | None,
) -> None:
    """Raise UsageError for options that are missing or contradict each other."""
    if all_ == bool(edge):
        raise UsageError(
            "either --edge or --all is needed", "name edges with --edge SOURCE:TARGET, or use --all with -o"
        )
    if all_ and destination is None and not prints:
        raise UsageError(
            "--all needs a file to write the graph to",
            "add -o graph.safetensors (it may be the input), or --json",
        )
    if destination == STREAM and prints:
        raise UsageError("--json and -o - both write to stdout", "name a file with -o")
    if all_ and (by != "arrive" or why):
        raise UsageError("--all stores only the heads by which each edge arrives", "omit --by and --why")
    if all_ and listed is not None:
        raise UsageError(f"--all stores the four strongest heads of each edge, not {listed}", "omit -n")
    if not all_ and not why and destination is not None:
        raise UsageError("-o needs --all or --why", "to save the printed heads, use --json")
    if why and by in ("hops", "chains"):
        raise UsageError(f"--why explains a single head, which --by {by} doesn't give", "use --by arrive")
    for text in edge or ():
        if text.count(":") != 1 or not all(part.strip() for part in text.split(":")):
            raise UsageError(f"the edge {text!r} is not SOURCE:TARGET", "for example --edge 3/120@4:7/88@9")


def _against(text: str | None, key: int | None) -> int | Literal["rest"] | None:
    """Return the other key. Raises UsageError."""
    if text is None:
        return None
    if key is None:
        raise UsageError("--against needs a first key to compare with", "add --key 4")
    if text == "rest":
        return "rest"
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f"--against {text!r} is neither a position nor rest", "give another key's position, or rest"
        ) from None


def _edge(graph: Graph, text: str) -> tuple[int, int]:
    """Return the edge as node numbers. Raises UnsuitableValue if the graph doesn't have it."""
    from circuit_tracer_cli.attention.prompt import edge_of

    source, target = text.split(":")
    return edge_of(graph, source, target)


def _frozen(graph: Graph, request: TraceRequest, output: Output) -> FrozenPrompt:
    """Load the graph's model and run its prompt."""
    from circuit_tracer_cli.attention.prompt import freeze

    return freeze(graph, load_model_of(graph, request, output))


def _every(prompt: FrozenPrompt, destination: str | None, output: Output) -> HeadLoadings:
    """Compute the heads of all edges, and write them into the graph if a file is named."""
    from circuit_tracer_cli.attention.stored import add_heads

    with progress_on(output, bars=True) as progress:
        progress.phase("head loadings")
        found = add_heads(prompt)
    if destination is not None:
        write_graph(prompt.graph, destination)
        if destination != STREAM:
            count = sum(bool(edge.heads) for edge in found)
            output.note(f"written      {destination}: heads of {count} edges")
    return found


def _keep_reasons(
    graph: Graph,
    edges: Sequence[EdgeHeads],
    reasons: Sequence[QKAttribution | None],
    destination: str,
    output: Output,
) -> None:
    from circuit_tracer_cli.attention.stored import keep_reasons

    count = keep_reasons(graph, edges, reasons)
    write_graph(graph, destination)
    if destination != STREAM:
        output.note(f"written      {destination}: reasons of {count} {'node' if count == 1 else 'nodes'}")


def _why(prompt: FrozenPrompt, edge: EdgeHeads) -> QKAttribution | None:
    """Return why the edge's strongest head looks where it looks, or None if no head carries the edge."""
    from circuit_tracer_cli.attention.stored import why

    return why(prompt, edge)


def _print_edge(edge: EdgeHeads, graph: Graph, output: Output) -> None:
    """Print one edge: its heads (hops, chains) with values and shares, and how to read them."""
    output.result(f"{edge.source} → {edge.target}")
    output.result(f"weight {number(edge.weight)}, by {edge.by}")
    if edge.same_position and edge.by in ("arrive", "leave"):
        output.result(
            "Source and target are at the same position, so no head has to move anything. See --by through."
        )
        return
    output.table("", *_table(edge, graph))
    if edge.by == "through":
        output.note("a path counts once for every head on it, so the values don't add up to the weight")
    if edge.cancellation is not None and edge.cancellation > 2:
        output.note(
            f"heads cancel each other: their absolute values add up to {edge.cancellation:.1f} times the weight"
        )


def _table(edge: EdgeHeads, graph: Graph) -> tuple[tuple[str, ...], Sequence[tuple[str, ...]]]:
    def share(value: float) -> str:
        return f"{100 * value / edge.weight:.1f} %" if abs(edge.weight) > 1e-12 else "–"

    if edge.by == "hops":
        hops = [(str(n), number(value), share(value)) for n, value in enumerate(edge.hops)]
        return ("heads#", "value#", "share#"), hops
    if edge.by == "chains":
        chains = [
            (" → ".join(chain.names) or "no head", number(chain.value), share(chain.value))
            for chain in edge.chains
        ]
        return ("chain", "value#", "share#"), [*chains, ("others", number(edge.rest), share(edge.rest))]
    rest = ("others", *([] if edge.by == "through" else [""]), number(edge.rest), share(edge.rest))
    where = {"arrive": ("from",), "leave": ("to",), "through": ()}[edge.by]
    rows = [(one.name, *_place(one, graph), number(one.value), share(one.value)) for one in edge.heads]
    return ("head", *where, "value#", "share#"), [*rows, rest]


def _place(one: HeadShare, graph: Graph) -> tuple[str, ...]:
    return () if one.position is None else (token_at(graph, one.position),)


def token_at(graph: Graph, position: int) -> str:
    """Return a position with its token."""
    tokens = graph.prompt_tokens
    return f"{position} {quoted(tokens[position], 12)}" if tokens else str(position)


def _print_score(found: QKAttribution, graph: Graph, output: Output) -> None:
    """Print a score with its pairs, both marginals and constants; or the pattern."""
    name = f"L{found.layer}H{found.head}"
    if found.key is None:
        assert isinstance(found.pattern, tuple)
        rows = [
            (token_at(graph, at), "–" if score is None else number(score), number(value))
            for at, (value, score) in enumerate(zip(found.pattern, found.scores, strict=True))
            if at <= found.query
        ]
        output.table(f"{name} from {token_at(graph, found.query)}", ("key", "score#", "attention#"), rows)
        return
    against = "" if found.against is None else f", against {_other(found.against, graph)}"
    output.result(f"{name} from {token_at(graph, found.query)} to {token_at(graph, found.key)}{against}")
    assert found.score is not None
    assert isinstance(found.pattern, float)
    cap = "" if found.softcap_factor == 1 else f", cap ×{found.softcap_factor:.3f}"
    output.result(f"score {number(found.score)}, attention {number(found.pattern)}{cap}")
    pairs = [(q, k, number(value)) for q, k, value in found.pairs]
    output.table("Pairs", ("query's", "key's", "value#"), [*pairs, ("other pairs", "", number(found.rest))])
    for title, listed, rest, constants in (
        ("Query side, with the whole key", found.q, found.q_rest, found.q_constants),
        ("Key side, with the whole query", found.k, found.k_rest, found.k_constants),
    ):
        tail = [("others", number(rest)), ("constants", number(constants))]
        output.table(title, ("node", "value#"), [*((node, number(value)) for node, value in listed), *tail])
    output.table("Constants", ("name", "value#"), [(name, number(value)) for name, value in found.constants])


def _other(against: Any, graph: Graph) -> str:
    return "the rest" if against == "rest" else token_at(graph, against)
