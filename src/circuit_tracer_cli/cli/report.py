"""`report`: what a graph says, as a page or a text to hand to somebody."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.destinations import STREAM, check_directory, read_rooted
from circuit_tracer_cli.cli.examples import labels_of
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output, number, quoted, visible
from circuit_tracer_cli.cli.show import FeaturesDirOpt
from circuit_tracer_cli.cli.summary import VERDICTS, GraphSummary, headline
from circuit_tracer_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from circuit_tracer_cli.export.document import Document, Figure, Section

ReportOutputOpt = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        show_default="Markdown on stdout",
        help="Write the report: .html (one page, no scripts) or .md.",
        rich_help_panel=opt.OUTPUT,
    ),
]
CountOpt = Annotated[
    int, typer.Option("--top", min=1, metavar="N", help="List so many nodes, edges and paths.")
]
_SUFFIXES = (".html", ".md")
_IN_FIGURE = 8
_MOST_RANKED = 5000


def report(
    graph: opt.GraphArg = STREAM,
    root: opt.RootOpt = None,
    top: CountOpt = 15,
    features_dir: FeaturesDirOpt = None,
    output_path: ReportOutputOpt = None,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Write what a graph says as a document to hand on: targets, scores, paths, nodes, edges, groups, heads, checks, settings.

    Groups, heads and checks are those that `group`, `heads --all` and `validate` have left in the graph.
    """
    if json_ and output_path is not None:
        raise UsageError("--json prints, and -o writes a document", "omit one of them")
    path = None if output_path in (None, STREAM) else _checked(str(output_path))
    output = Output(quiet=quiet)
    silence_libraries(output)
    loaded = read_rooted(graph, root, output)
    summary = GraphSummary(loaded, top, top, labels_of(loaded.scan, features_dir), top)
    if json_:
        output.data(report_record(summary))
        return
    document = document_of(summary, report_record(summary))
    if path is None:
        output.result(document.to_markdown().rstrip("\n"))
        return
    from circuit_tracer_cli.files.atomic import write_bytes

    content = document.to_html() if path.suffix.lower() == ".html" else document.to_markdown()
    write_bytes(path, content.encode())
    output.note(f"written      {shlex.quote(str(path))}")


def _checked(destination: str) -> Path:
    """The file to write. Raises UsageError for another suffix, OutputError where it can't be written."""
    path = Path(destination)
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            f"can't tell the format of {destination}: its suffix is neither .html nor .md",
            f"-o {path.with_suffix('.html')}",
        )
    if path.is_dir():
        raise OutputError(f"{destination} is a folder", f"-o {path / 'report.html'}")
    if not path.parent.is_dir():
        raise OutputError(f"folder {path.parent} doesn't exist", f"mkdir -p {path.parent}")
    check_directory(str(path.parent))
    return path


def report_record(summary: GraphSummary) -> dict[str, Any]:
    """Everything that a report says, for programs: what `show --json` has, then groups, heads, checks and settings.

    What the graph doesn't hold is None.
    """
    from circuit_tracer_cli.demo import model_label
    from circuit_tracer_cli.export.report import report_of

    metadata = summary.graph.metadata
    created, command = metadata.get("create_time_ms"), metadata.get("command")
    return {
        **summary.to_dict(),
        "model": model_label(str(metadata.get("model") or summary.graph.cfg.model_name)),
        "groups": _groups(metadata),
        "heads": _heads(summary),
        "validation": report_of(metadata),
        "made": {
            "command": _command(command),
            "created": _date(created) if isinstance(created, int) else None,
            "settings": _mapping(metadata.get("settings")),
            "versions": _mapping(metadata.get("versions")),
            **{
                name: metadata.get(name) if isinstance(metadata.get(name), str) else None
                for name in ("backend", "dtype", "device", "engine")
            },
        },
    }


def _command(command: object) -> str | None:
    from circuit_tracer_cli.export.viewer import shareable

    try:
        return shareable(command) if isinstance(command, str) else None
    except ValueError:  # quotes that don't close
        return None


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _date(milliseconds: int) -> str | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return None


def _groups(metadata: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The groups that `group` left in the graph; None where there are none, or where they aren't what they should be."""
    from circuit_tracer_cli.export.groups import GROUPING

    found = _mapping(metadata.get(GROUPING)).get("groups")
    if not isinstance(found, list):
        return None
    whole = all(
        isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("nodes"), list)
        for one in found
    )
    return found if whole else None


def _heads(summary: GraphSummary) -> list[dict[str, Any]] | None:
    """The heads of the strongest edges that have some in the graph; None where no edge has."""
    from circuit_tracer_cli.graph.heads import link_extras
    from circuit_tracer_cli.graph.paths import strongest_edges

    stored = link_extras(summary.graph.metadata)
    if not stored:
        return None
    ranked = strongest_edges(summary.graph, _MOST_RANKED)
    with_heads = [edge for edge in ranked if (edge.source, edge.target) in stored][: summary.n_edges]
    return [
        {
            "source": summary.nodes[edge.source].node_id,
            "target": summary.nodes[edge.target].node_id,
            "names": [summary.name(edge.source), summary.name(edge.target)],
            "weight": edge.weight,
            "heads": [
                {"layer": int(layer), "head": int(head), "position": int(position), "value": value}
                for layer, head, position, value in stored[edge.source, edge.target]["heads"]
            ],
            "rest": stored[edge.source, edge.target]["heads_rest"],
        }
        for edge in with_heads
    ]


def document_of(summary: GraphSummary, record: Mapping[str, Any]) -> Document:
    """The report of a graph, from its summary and its record."""
    from circuit_tracer_cli.export.document import Document

    root = summary.graph.root
    subject = _targets(record) if root is None else summary.named(root)
    return Document(
        f"What is behind {subject}",
        list(_sections(summary, record)),
        "Made with circuit-tracer. Method: Ameisen et al. 2025, Circuit Tracing.",
    )


def _targets(record: Mapping[str, Any]) -> str:
    names = [quoted(target["token"] or f"id:{target['id']}", 24) for target in record["targets"]]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more targets" if len(names) > 3 else "")


def _sections(summary: GraphSummary, record: Mapping[str, Any]) -> Iterator[Section]:
    from circuit_tracer_cli.export.document import Facts, Note, Section, Table

    facts = [(line[:13].strip().capitalize(), line[13:]) for line in headline(summary)]
    yield Section("Summary", [Facts(facts), Note(_MEANING)])
    if record["root"] is None:
        rows = [
            (quoted(one["token"], 40), str(one["position"]), str(one["id"]), number(one["probability"]))
            for one in record["targets"]
        ]
        yield Section("Targets", [Table(("token", "position#", "id#", "probability or weight#"), rows)])
    if summary.strongest_paths:
        paths = [
            (f"{summary.share(path):.2%}", summary.path_in_words(path)) for path in summary.strongest_paths
        ]
        yield Section("Strongest paths", [_figure(summary), Table(("share#", "path"), paths)])
    if summary.strongest_nodes:
        yield Section(
            "Strongest nodes",
            [Table(("node", "at", "influence#", "activation#", "label"), list(_nodes(summary)))],
        )
    if summary.strongest_edges:
        edges = [
            (
                summary.edge_in_words(edge),
                number(edge.weight),
                f"{edge.share:.2%}",
                "–" if edge.stability is None else f"{edge.stability:.0%}",
            )
            for edge in summary.strongest_edges
        ]
        columns = ("edge", "direct effect#", "influence#", "kept by prunings#")
        yield Section("Strongest edges", [Table(columns, edges)])
    yield from _optional(summary, record)
    yield Section("How it was made", [Facts(list(_made(summary, record)))])


_MEANING = (
    "An arrow → raises what it points at, ⊣ lowers it. Influence is a share of the total effect on the targets over all paths. "
    "Error nodes are what the transcoders miss. Replacement score: share of the influence that starts at tokens rather than at "
    "errors. Completeness score: share of the input to nodes, weighted by influence, that doesn't come from errors. Kept by "
    "prunings: share of twelve prunings that keep an edge."
)


def _nodes(summary: GraphSummary) -> Iterator[tuple[str, ...]]:
    for index, share in summary.strongest_nodes:
        node = summary.nodes[index]
        activation = "" if node.activation is None else number(node.activation)
        place = summary.place(node.position)
        yield summary.name(index), place, f"{share:.1%}", activation, summary.label(index)


def _optional(summary: GraphSummary, record: Mapping[str, Any]) -> Iterator[Section]:
    """Groups, heads and checks, as far as the graph has them."""
    from circuit_tracer_cli.export.document import Note, Section, Table

    if record["groups"] is not None:
        names = {node.node_id: summary.name(node.index) for node in summary.nodes.values()}
        groups = [
            (
                visible(one["name"], 60),
                ", ".join(visible(names.get(node, str(node)), 40) for node in one["nodes"]),
                *(_number(_mapping(one.get("numbers")).get(key)) for key in ("influence", "stability")),
            )
            for one in record["groups"]
        ]
        yield Section("Groups", [Table(("group", "nodes", "influence#", "stability#"), groups)])
    if record["heads"] is not None:
        heads = [
            (
                f"{one['names'][0]} → {one['names'][1]}",
                number(one["weight"]),
                ", ".join(
                    f"L{head['layer']}H{head['head']}@{head['position']} {number(head['value'])}"
                    for head in one["heads"]
                ),
                number(one["rest"]),
            )
            for one in record["heads"]
        ]
        yield Section("Attention heads", [Table(("edge", "direct effect#", "heads", "others#"), heads)])
    checks = (record["validation"] or {}).get("checks", [])
    if record["validation"] is not None:
        found = [
            (
                visible(str(VERDICTS.get(str(check.get("verdict")), "")), 10),
                visible(str(check.get("label") or check.get("name") or ""), 80),
                _number(check.get("value")),
                visible(str(check.get("detail") or ""), 300),
            )
            for check in checks
            if isinstance(check, dict)
        ]
        date = visible(str(record["validation"].get("date", ""))[:10], 10)
        yield Section(
            "Validation",
            [
                Note(f"Measured by interventions on the model, {date}."),
                Table(("", "check", "value#", "detail"), found),
            ],
        )


def _number(value: object) -> str:
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else "–"


def _made(summary: GraphSummary, record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    made, pruning = record["made"], record["pruning"]
    scan = record["transcoders"]
    values = {
        "Model": record["model"],
        "Transcoders": ", ".join(scan[:4]) + (" …" if len(scan) > 4 else "")
        if isinstance(scan, list)
        else scan,
        "Command": made["command"],
        "Created": made["created"],
        "Pruning": pruning and f"nodes {pruning['node_threshold']:g}, edges {pruning['edge_threshold']:g}",
        "Number type": made["dtype"],
        "Backend": made["backend"],
        "Settings": ", ".join(f"{key} {value}" for key, value in made["settings"].items()),
        "Versions": ", ".join(f"{key} {value}" for key, value in made["versions"].items()),
        "Tokens": " ".join(quoted(token, 16) for token in summary.graph.prompt_tokens or ()),
    }
    return ((name, visible(str(value), 2000)) for name, value in values.items() if value)


def _figure(summary: GraphSummary) -> Figure:
    """The strongest paths as boxes and arrows: the first few, for more can't be read."""
    from circuit_tracer_cli.export.document import Arrow, Box, Figure

    paths = summary.strongest_paths[:_IN_FIGURE]
    shown = list(dict.fromkeys(node for path in paths for node in path.nodes))
    rows = {"token": 0, "logit": 1 + summary.graph.cfg.n_layers}
    boxes = []
    for index in shown:
        node = summary.nodes[index]
        row = rows.get(node.kind, 1 + (node.layer or 0))
        label = visible(summary.label(index), 24)
        boxes.append(Box(node.position, row, (summary.name(index), *([label] if label else []))))
    carried: dict[tuple[int, int], tuple[float, float]] = {}
    for path in paths:
        for source, target, weight in zip(path.nodes, path.nodes[1:], path.weights, strict=False):
            before = carried.get((source, target), (0.0, 0.0))[0]
            carried[source, target] = (before + summary.share(path), weight)
    most = max(share for share, _ in carried.values())
    arrows = [
        Arrow(shown.index(source), shown.index(target), share / most, weight >= 0)
        for (source, target), (share, weight) in carried.items()
    ]
    caption = f"The {len(paths)} strongest paths. Columns are positions, rows layers; a dashed line lowers its target."
    return Figure(boxes, arrows, caption)
