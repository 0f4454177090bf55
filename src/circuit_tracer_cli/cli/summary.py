"""Summary of a graph: what `show` prints, and the last lines of `attribute`, `prune` and `demo`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from circuit_tracer_cli.cli.output import Output, number, quoted, visible
from circuit_tracer_cli.graph.layout import LEFT_OUT

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.graph.nodes import NodeView
    from circuit_tracer_cli.graph.paths import Path as GraphPath
    from circuit_tracer_cli.graph.paths import RankedEdge
    from circuit_tracer_cli.types import LogitTarget, TargetPlace

VERDICTS = {"pass": "ok", "warn": "weak", "fail": "FAILED", "info": ""}
"""How a check's verdict is printed."""


@dataclass(frozen=True)
class GraphSummary:
    """What is printed about a graph, computed once.

    Args:
        graph: Raw or pruned.
        n_nodes, n_paths, n_edges: How many of the strongest to list.
        labels: Labels of features, by (layer, feature).
    """

    graph: Graph
    n_nodes: int = 10
    n_paths: int = 5
    labels: Mapping[tuple[int, int], str] = field(default_factory=dict)
    n_edges: int = 0

    @cached_property
    def nodes(self) -> dict[int, NodeView]:
        """Return the kept nodes by number."""
        from circuit_tracer_cli.graph.nodes import iter_nodes

        return {node.index: node for node in iter_nodes(self.graph)}

    @cached_property
    def scores(self) -> tuple[float, float]:
        """Return replacement and completeness score of the unpruned graph."""
        from circuit_tracer_cli.graph.influence import compute_graph_scores

        return compute_graph_scores(self.graph)

    @cached_property
    def strongest_nodes(self) -> list[tuple[int, float]]:
        """Return the strongest features and errors, by share of the influence."""
        from circuit_tracer_cli.graph.paths import strongest_nodes

        return strongest_nodes(self.graph, self.n_nodes) if self.n_nodes else []

    @cached_property
    def strongest_paths(self) -> list[GraphPath]:
        """Return the strongest paths from a token to a target."""
        from circuit_tracer_cli.graph.paths import strongest_paths

        return strongest_paths(self.graph, self.n_paths) if self.n_paths else []

    @cached_property
    def strongest_edges(self) -> list[RankedEdge]:
        """By the share of the influence that they carry."""
        from circuit_tracer_cli.graph.paths import strongest_edges

        return strongest_edges(self.graph, self.n_edges) if self.n_edges else []

    @cached_property
    def proposals(self) -> dict[str, dict[str, Any]]:
        """Return the labels that the trace proposes, by node id."""
        from circuit_tracer_cli.graph.proposals import proposals_of

        return proposals_of(self.graph.metadata, self.graph.prompt_tokens)

    @property
    def predictions(self) -> list[dict[str, Any]]:
        """Return the most likely next tokens; empty for a graph that doesn't record them."""
        from circuit_tracer_cli.graph.predictions import predictions_of

        return predictions_of(self.graph.metadata)

    def counts(self) -> dict[str, int]:
        """Return the number of kept nodes of each kind, and of kept edges."""
        kinds = [node.kind for node in self.nodes.values()]
        counted = {f"{kind}s": kinds.count(kind) for kind in ("feature", "error", "token", "logit")}
        return {**counted, "edges": self.graph.edges.nnz}

    def place(self, position: int) -> str:
        """Return a position's token, or its number if the tokens aren't known."""
        tokens = self.graph.prompt_tokens
        return quoted(tokens[position], 16) if tokens else str(position)

    def share(self, path: GraphPath) -> float:
        """Return a path's share of the total: its strength times its target's probability."""
        return path.strength * float(self.graph.logit_weights[path.nodes[-1]])

    def name(self, index: int) -> str:
        """Return a node's short name: a token in quotes, a feature as `layer/feature@position`, which `intervene` accepts."""
        node = self.nodes[index]
        if node.kind == "feature":
            return f"{node.layer}/{node.feature}@{node.position}"
        if node.kind == "error":
            return f"error {node.layer}@{node.position}"
        return quoted(node.token, 24) if node.token is not None else f"id:{node.vocab_idx}"

    def label(self, index: int) -> str:
        """Return a feature's label, else the one that the trace proposes, or an empty string."""
        node = self.nodes[index]
        if node.layer is None or node.feature is None:
            return ""
        proposed = self.proposals.get(node.node_id, {}).get("text", "")
        return visible(self.labels.get((node.layer, node.feature)) or proposed, 40)

    def path_in_words(self, path: GraphPath) -> str:
        """Return a path with an arrow for each step, `⊣` if the step lowers its target."""
        words = self.named(path.nodes[0])
        for node, weight in zip(path.nodes[1:], path.weights, strict=True):
            words += f" {'→' if weight >= 0 else '⊣'} {self.named(node)}"
        return words

    def edge_in_words(self, edge: RankedEdge) -> str:
        """An edge with its arrow: `→` raises its target, `⊣` lowers it."""
        return f"{self.named(edge.source)} {'→' if edge.weight >= 0 else '⊣'} {self.named(edge.target)}"

    def named(self, index: int) -> str:
        """A node in one word, with its label where it has one."""
        label = self.label(index)
        return f"{self.name(index)} [{label}]" if label else self.name(index)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary for JSON; node ids are those of the JSON graph file."""
        graph, (replacement, completeness) = self.graph, self.scores
        names = graph.node_ids()[graph.layout.logit_offset :]
        targets = zip(
            names, graph.logit_targets, graph.logit_probabilities.tolist(), graph.places, strict=True
        )
        pruning = graph.pruning
        return {
            "prompt": graph.input_string,
            "prompt_tokens": graph.prompt_tokens,
            "model": graph.cfg.model_name,
            "transcoders": graph.scan,
            "predictions": self.predictions,
            "targets": [
                {
                    "node": node,
                    "token": t.token_str,
                    "id": t.vocab_idx,
                    "probability": p,
                    **place._asdict(),
                }
                for node, t, p, place in targets
            ],
            "root": None if graph.root is None else graph.node_id(graph.root),
            "active_features": len(graph.active_features),
            "counts": self.counts(),
            "replacement_score": replacement,
            "completeness_score": completeness,
            "edges_left_out": graph.metadata.get(LEFT_OUT, 0),
            "pruning": pruning
            and {"node_threshold": pruning.node_threshold, "edge_threshold": pruning.edge_threshold},
            "strongest_nodes": [
                {**_node_record(self.nodes[index]), "label": self.label(index) or None, "influence": share}
                for index, share in self.strongest_nodes
            ],
            "strongest_edges": [
                {
                    "source": self.nodes[edge.source].node_id,
                    "target": self.nodes[edge.target].node_id,
                    "names": [self.name(edge.source), self.name(edge.target)],
                    "weight": edge.weight,
                    "share": edge.share,
                    "stability": edge.stability,
                }
                for edge in self.strongest_edges
            ],
            "strongest_paths": [
                {
                    "nodes": [self.nodes[index].node_id for index in path.nodes],
                    "names": [self.name(index) for index in path.nodes],
                    "labels": [self.label(index) or None for index in path.nodes],
                    "weights": list(path.weights),
                    "strength": path.strength,
                    "share": self.share(path),
                    "sign": path.sign,
                }
                for path in self.strongest_paths
            ],
        }


def _node_record(node: NodeView) -> dict[str, Any]:
    names = ("node_id", "kind", "layer", "position", "feature", "activation")
    return {name: getattr(node, name) for name in names if getattr(node, name) is not None}


def headline(summary: GraphSummary) -> list[str]:
    """Return a few lines with the prompt, the graph's size, its targets and its scores."""
    graph, counts = summary.graph, summary.counts()
    pruning = graph.pruning
    state = f"pruned at {pruning.node_threshold:g} / {pruning.edge_threshold:g}" if pruning else "not pruned"
    replacement, completeness = summary.scores
    root = graph.root
    targets = [
        _target(target, p, graph.vocab_size, place.kind) + _where(graph, place)
        for target, p, place in zip(
            graph.logit_targets, graph.logit_probabilities.tolist(), graph.places, strict=True
        )
    ]
    return [
        f"prompt       {visible(graph.input_string, 200)}",
        f"targets      {_first(targets, 5)}" if root is None else f"explains     {summary.name(root)}",
        *_predictions_line(summary.predictions),
        f"graph        {counts['features']:,} of {len(graph.active_features):,} active features, "
        f"{counts['errors']:,} errors, {counts['edges']:,} edges; {state}",
        f"scores       replacement {replacement:.3f}, completeness {completeness:.3f}",
        *_left_out_line(graph.metadata),
        *_precision_line(graph),
        *_validation_line(graph.metadata),
    ]


def _target(target: LogitTarget, weight: float, d_vocab: int, kind: str) -> str:
    """Return a token with its probability, a direction with its weight, or a feature."""
    if kind == "feature":
        return f"feature {target.token_str}"
    name = quoted(target.token_str, 24) if target.token_str else f"id:{target.vocab_idx}"
    is_token = kind == "token" and target.vocab_idx < d_vocab
    return f"{name} {number(weight)}" if is_token else f"{name}, of weight {number(weight)}"


def _where(graph: Graph, place: TargetPlace) -> str:
    """Where a token stands that isn't the next; the names of other targets tell it."""
    elsewhere = place.kind == "token" and place.position != graph.n_pos - 1
    return f" @{place.position}" if elsewhere else ""


def _first(texts: list[str], count: int) -> str:
    more = f" and {len(texts) - count} more" if len(texts) > count else ""
    return f"{', '.join(texts[:count])}{more}"


def _predictions_line(predictions: list[dict[str, Any]]) -> list[str]:
    """Return the model's most likely next tokens, if the graph records them."""
    said = [f"{quoted(entry['token'], 24)} {number(entry['probability'])}" for entry in predictions]
    return [f"predictions  {_first(said, 4)}"] if said else []


def _left_out_line(metadata: Mapping[str, Any]) -> list[str]:
    """Return how many edges were left out because their weight in the file isn't finite."""
    count = metadata.get(LEFT_OUT)
    return [f"left out     {count:,} edges whose weight is NaN or infinite"] if isinstance(count, int) else []


def _precision_line(graph: Graph) -> list[str]:
    """What to expect of the edges of a graph computed in less than float32: what was measured of it, else where to measure it."""
    from circuit_tracer_cli.export.report import report_of

    dtype, precision = graph.cfg.dtype, graph.metadata.get("precision")
    rounded = [str(dtype)] if dtype in ("bfloat16", "float16") else []
    rounded += [f"{precision} products"] if precision in ("tf32", "bf16") else []
    if not rounded:
        return []
    report = report_of(graph.metadata)
    found = [check["detail"] for check in report["checks"] if check["name"] == "precision"] if report else []
    said = found[0] if found else "edges are approximate; circuit-tracer validate measures by how much"
    return [f"precision    {', '.join(rounded)}: {said}"]


def _validation_line(metadata: Mapping[str, Any]) -> list[str]:
    """Return what `validate` found, if the graph contains its report."""
    from circuit_tracer_cli.export.report import report_of

    report = report_of(metadata)
    if report is None:
        return []
    verdicts = [check.get("verdict") for check in report["checks"] if isinstance(check, dict)]
    counts = ((verdicts.count(verdict), word) for verdict, word in VERDICTS.items() if word)
    found = ", ".join(f"{count} {word}" for count, word in counts if count)
    return [f"validation   {visible(str(report.get('date', ''))[:10], 10)}: {found or 'no verdict'}"]


def print_summary(summary: GraphSummary, output: Output) -> None:
    """Print the whole summary as text."""
    for line in headline(summary):
        output.result(line)
    print_strongest(summary, output)


def print_strongest(summary: GraphSummary, output: Output) -> None:
    """Print the strongest nodes as a table, and the strongest paths."""
    if summary.strongest_nodes:
        output.result()
        rows = []
        for index, share in summary.strongest_nodes:
            node = summary.nodes[index]
            activation = "" if node.activation is None else number(node.activation)
            rows.append(
                (
                    summary.name(index),
                    summary.place(node.position),
                    f"{share:.1%}",
                    activation,
                    summary.label(index),
                )
            )
        columns = ("node", "at", "influence#", "activation#", "label")
        width = 5 if any(row[-1] for row in rows) else 4
        output.table("Strongest nodes", columns[:width], [row[:width] for row in rows])
    if summary.strongest_edges:
        output.result()
        edges = [
            (
                summary.edge_in_words(edge),
                number(edge.weight),
                f"{edge.share:.2%}",
                "–" if edge.stability is None else f"{edge.stability:.0%}",
            )
            for edge in summary.strongest_edges
        ]
        output.table("Strongest edges", ("edge", "direct effect#", "influence#", "kept by prunings#"), edges)
    if summary.strongest_paths:
        output.result()
        lines = [
            (f"{summary.share(path):.2%}", summary.path_in_words(path)) for path in summary.strongest_paths
        ]
        whole = "whole" if summary.graph.pruning is None else "pruned"
        output.table("Strongest paths", ("share#", f"path (share of the {whole} graph)"), lines)
