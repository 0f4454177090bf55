"""The files that the viewer and Neuronpedia read: one JSON file per graph and the list of graphs in the folder."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import shlex
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

import circuit_tracer_cli
from circuit_tracer_cli.demo import model_label
from circuit_tracer_cli.errors import OutputError, UnsuitableValue
from circuit_tracer_cli.export import Destination
from circuit_tracer_cli.export.annotations import fitting, keep_aside, older_view
from circuit_tracer_cli.export.compact import write_form
from circuit_tracer_cli.export.graph_json import write_graph_json
from circuit_tracer_cli.export.graph_list import add_to_graph_list, locked_folder, read_graph_list
from circuit_tracer_cli.export.groups import GROUPING, annotations_of, grouping_extra, regrouped
from circuit_tracer_cli.export.records import (
    GENERATOR,
    STABILITY,
    GraphFile,
    Link,
    Metadata,
    Node,
    QParams,
    to_values,
)
from circuit_tracer_cli.export.report import REPORT, report_of
from circuit_tracer_cli.export.slugs import check_slug
from circuit_tracer_cli.files.atomic import atomic_writer, output_error
from circuit_tracer_cli.graph.defaults import EDGE_THRESHOLD, NODE_THRESHOLD, STABILITY_GRID
from circuit_tracer_cli.graph.graph import ROOT, Graph, Pruning
from circuit_tracer_cli.graph.heads import link_extras, node_extras, sources_of_reasons
from circuit_tracer_cli.graph.layout import LEFT_OUT
from circuit_tracer_cli.graph.nodes import NodeView, iter_nodes
from circuit_tracer_cli.graph.predictions import TOP_PREDICTIONS, predictions_of
from circuit_tracer_cli.graph.proposals import proposals_of
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.graph.store import load_graph

_UNAVAILABLE = (ImportError, OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError)
_SHARES = [round(count / len(STABILITY_GRID), 3) for count in range(len(STABILITY_GRID) + 1)]
_GENERATION_SETTINGS = ("max_n_logits", "desired_logit_prob", "batch_size", "max_feature_nodes")


def create_graph_files(
    graph_or_path: Graph | str | os.PathLike[str],
    slug: str,
    output_path: str | os.PathLike[str],
    scan: str | list[str] | None = None,
    node_threshold: float = NODE_THRESHOLD,
    edge_threshold: float = EDGE_THRESHOLD,
    *,
    stability: bool = False,
) -> list[Path]:
    """Prune a graph and write `{slug}.json` and the folder's `graph-metadata.json`.

    Args:
        graph_or_path: A graph or the path of its file; the graph isn't changed.
        slug: Name of the file: letters, digits, dots, hyphens, underscores.
        output_path: The folder; made if missing.
        scan: Identifier of the transcoders; the graph's own by default.
        node_threshold: By default, a pruned graph keeps its own threshold.
        edge_threshold: The same.
        stability: Also say in each link how steadily other thresholds keep it, as `circuit-tracer export` does.

    Returns:
        The two files.

    Raises:
        UsageError: Bad slug or threshold, no scan, or other thresholds than the graph was pruned with.
        OutputError: The folder can't be written to.
        BadGraphFile: The graph, or the folder's list, is damaged.
    """
    check_slug(slug)
    graph = graph_or_path if isinstance(graph_or_path, Graph) else load_graph(graph_or_path)
    pruned = pruned_graph(
        graph,
        None if graph.pruning and node_threshold == NODE_THRESHOLD else node_threshold,
        None if graph.pruning and edge_threshold == EDGE_THRESHOLD else edge_threshold,
        stability=stability,
    )
    if not stability and pruned.pruning is not None and pruned.pruning.stability is not None:
        pruned = pruned.replace(pruning=replace(pruned.pruning, stability=None))
    return export(with_scan(pruned, scan), Destination(slug, Path(output_path)))[:2]


def with_scan(graph: Graph, scan: str | list[str] | None) -> Graph:
    """Return the graph with another name for its transcoders; the graph itself if `scan` is None."""
    if scan is None:
        return graph
    renamed = copy.copy(graph)
    renamed.scan = scan
    return renamed


def export(
    pruned: Graph,
    to: Destination,
    *,
    annotations: QParams | None = None,
    command: str | None = None,
    regroup: bool = False,
    listed: bool = True,
) -> list[Path]:
    """Write `{slug}.json`, its compact form if it's large, and the folder's list.

    A file of the same slug, prompt and scan keeps its annotations as far as their nodes remain. If some can't be kept, the old
    file is kept under another name, which is returned too (`keep_aside`). Automatic groups of the graph replace those of an
    earlier grouping, but are left out with a warning if they would break up groups made by hand.

    Args:
        pruned: The graph.
        to: Where to write it.
        annotations: Initial annotations of a file without any.
        command: A command line that would write the same, stored without this machine's folders.
        regroup: True if the graph's automatic groups also replace those made by hand.
        listed: Write the folder's list too. Whoever writes many graphs calls `refresh_graph_list` now and then instead.
    """
    parts = graph_parts(pruned, to.slug)
    if command:
        extra = {**parts.metadata.extra, "command": shareable(command)}
        parts = replace(parts, metadata=replace(parts.metadata, extra=extra))
    target = make_folder(to.directory) / f"{to.slug}.json"
    with locked_folder(to.directory):
        if listed:
            read_graph_list(to.directory)  # a damaged list is found before anything is written
        kept = parts.kept_annotations(target)
        parts, q_params = parts.annotated(target, annotations, regroup=regroup)
        aside = keep_aside(target, q_params if kept == QParams() else kept)
        with atomic_writer(target) as stream:
            write_graph_json(stream, parts.metadata, q_params, parts.nodes, parts.links(), parts.beside)
        write_form(target, parts.metadata, q_params, parts.nodes, pruned)
        written = [target]
        if listed:
            written.append(add_to_graph_list(to.directory, parts.metadata))
    return written if aside is None else [*written, aside]


def write_graph_file(target: Path, file: GraphFile) -> None:
    """Write a graph file that isn't made from a single graph, and list it in its folder. Raises OutputError, BadGraphFile."""
    make_folder(target.parent)
    with locked_folder(target.parent):
        read_graph_list(target.parent)
        with atomic_writer(target) as stream:
            write_graph_json(stream, file.metadata, file.qParams, file.nodes, file.links, file.beside)
        add_to_graph_list(target.parent, file.metadata)


def shareable(command: str) -> str:
    """Return a command line with only the last parts of whole paths, which say nothing to others."""
    words = (Path(word).name if Path(word).is_absolute() else word for word in shlex.split(command))
    return shlex.join(words)


@dataclass(frozen=True, slots=True)
class GraphParts:
    """The content of a graph file, except links, which are read from the pruned graph."""

    metadata: Metadata
    nodes: list[Node]
    pruned: Graph

    @property
    def node_ids(self) -> set[str]:
        """Ids of the nodes that are shown."""
        return {node.node_id for node in self.nodes}

    @property
    def beside(self) -> dict[str, Any]:
        """Optional keys of the file: nodes named only in reasons, where Neuronpedia's viewer looks for them."""
        shown = self.node_ids
        missing = [name for name in sources_of_reasons(self.pruned.metadata) if name not in shown]
        return {"qk_only_nodes": {name: to_values(_source_node(name)) for name in missing}} if missing else {}

    def kept_annotations(self, path: Path) -> QParams:
        """The annotations of an older file of this graph, as far as their nodes remain."""
        older = older_view(path, self.metadata.prompt, self.metadata.scan)
        return QParams() if older is None else fitting(older[1], self.node_ids)

    def annotated(
        self, path: Path, start: QParams | None = None, *, regroup: bool = False
    ) -> tuple[GraphParts, QParams]:
        """The parts and annotations for replacing the file at `path`, if there is one.

        Args:
            path: The file.
            start: Initial annotations of a file without any; by default the graph's automatic groups.
            regroup: As for `export`.
        """
        older = older_view(path, self.metadata.prompt, self.metadata.scan)
        if older is None or start is not None:
            kept, first = self.kept_annotations(path), start or annotations_of(self.pruned.metadata)
            return self, fitting(first, self.node_ids) if first is not None and kept == QParams() else kept
        found = regrouped(self.pruned.metadata, older, self.node_ids, insist=regroup)
        if found.refused:
            warnings.warn(
                f"{path} keeps its groups that were made by hand, so the graph's automatic groups are left out;"
                f" group the file itself: circuit-tracer group {path} -o {path}",
                stacklevel=3,
            )
        extra = {key: value for key, value in self.metadata.extra.items() if key != GROUPING}
        extra |= {GROUPING: found.grouping} if isinstance(found.grouping, dict) else {}
        return replace(self, metadata=replace(self.metadata, extra=extra)), found.annotations

    def links(self) -> Iterator[Link]:
        """Every kept edge."""
        return links_of(self.pruned)


def graph_parts(pruned: Graph, slug: str) -> GraphParts:
    """Return the parts of a pruned graph's file. Raises UsageError for a bad slug, or a graph without a scan."""
    check_slug(slug)
    scan_name, transcoder_list = scan_names(pruned.scan)
    assert pruned.pruning is not None
    metadata = _metadata(pruned, pruned.pruning, slug, scan_name, transcoder_list)
    return GraphParts(metadata, _nodes(pruned), pruned)


def make_folder(directory: Path) -> Path:
    """Return the folder, made if missing. Raises OutputError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"{directory} is a file, not a folder", "name another folder") from error
    except OSError as error:
        raise output_error(directory, error) from error
    return directory


def scan_names(scan: str | list[str] | None) -> tuple[str, list[str]]:
    """The scan as one string, and the per-layer ids it stands for: a list gets a deterministic name made from its content.

    Raises UnsuitableValue if there is none.
    """
    if isinstance(scan, list) and scan:
        digest = hashlib.sha256(json.dumps(scan).encode("ascii")).hexdigest()
        return f"custom-{digest[:16]}", list(scan)
    if isinstance(scan, str) and scan:
        return scan, []
    raise UnsuitableValue(
        "the graph doesn't record which transcoders it was made with", "name them with --scan"
    )


def _metadata(graph: Graph, pruning: Pruning, slug: str, scan: str, transcoder_list: list[str]) -> Metadata:
    settings = graph.metadata.get("settings")
    chosen = settings if isinstance(settings, dict) else {}
    info: dict[str, Any] = {
        "generator": {"name": GENERATOR, "version": circuit_tracer_cli.__version__},
        "transcoder_set": scan,
    }
    report, predictions = report_of(graph.metadata), predictions_of(graph.metadata)
    if isinstance(graph.metadata.get("model"), str):
        info["model"] = model_label(graph.metadata["model"])
    created = graph.metadata.get("create_time_ms")
    if isinstance(created, int):
        info["create_time_ms"] = created
    return Metadata(
        slug=slug,
        scan=scan,
        prompt_tokens=prompt_tokens_of(graph),
        prompt=graph.input_string,
        transcoder_list=transcoder_list,
        node_threshold=pruning.node_threshold,
        feature_details=_feature_details(graph),
        info=info,
        generation_settings={
            name: chosen[name] for name in _GENERATION_SETTINGS if isinstance(chosen.get(name), (int, float))
        },
        pruning_settings={"node_threshold": pruning.node_threshold, "edge_threshold": pruning.edge_threshold},
        extra={
            "replacement_score": pruning.replacement_score,
            "completeness_score": pruning.completeness_score,
            **({} if graph.root is None else {ROOT: graph.node_id(graph.root)}),
            **({TOP_PREDICTIONS: predictions} if predictions else {}),
            **({} if report is None else {REPORT: report}),
            **grouping_extra(graph.metadata),
            **({LEFT_OUT: graph.metadata[LEFT_OUT]} if graph.metadata.get(LEFT_OUT) else {}),
        },
    )


def _feature_details(graph: Graph) -> dict[str, Any]:
    """URL of the features' pages: as recorded in the graph, else next to the viewer."""
    details = graph.metadata.get("feature_details")
    return details if isinstance(details, dict) else {"feature_json_base_url": "features"}


def _nodes(graph: Graph) -> list[Node]:
    """Kept nodes in node order, without features and errors that have no edges."""
    mask = np.zeros(graph.n_nodes, dtype=np.bool_)
    for block in graph.edges.blocks():
        mask[block.rows] = True
        mask[block.columns] = True
    linked, first_token, root = mask.tolist(), graph.layout.token_offset, graph.root
    proposals = proposals_of(graph.metadata, graph.prompt_tokens)
    nodes = [
        _node(graph, view, proposals.get(view.node_id), is_root=view.index == root)
        for view in iter_nodes(graph)
        if linked[view.index] or view.index >= first_token or view.index == root
    ]
    reasons = node_extras(graph.metadata)
    return [
        replace(node, extra={**node.extra, **reasons[node.node_id]}) if node.node_id in reasons else node
        for node in nodes
    ]


def _node(graph: Graph, view: NodeView, proposed: dict[str, Any] | None, *, is_root: bool) -> Node:
    influence = _finite(view.influence)
    if view.kind == "feature":
        assert view.layer is not None
        assert view.feature is not None
        activation, extra = _finite(view.activation), {} if proposed is None else {"proposed_label": proposed}
        node = Node.feature_node(view.layer, view.position, view.feature, influence, activation, extra)
        is_target = graph.root is None and view.index >= graph.layout.logit_offset
        weight = 1.0 if is_root else view.probability or 0.0
        return replace(node, is_target_logit=True, token_prob=weight) if is_root or is_target else node
    if view.kind == "error":
        assert view.layer is not None
        return Node.error_node(view.layer, view.position, influence)
    assert view.vocab_idx is not None
    if view.kind == "token":
        return Node.token_node(view.position, view.vocab_idx, influence)
    return Node.logit_node(
        view.node_id,
        view.position,
        view.vocab_idx,
        view.token or "",
        view.probability or 0.0,
        is_first=is_root or (graph.root is None and view.index == graph.layout.logit_offset),
        n_layers=graph.cfg.n_layers,
    )


def _source_node(node_id: str) -> Node:
    """A source that isn't in the file, with only its id."""
    layer, number, position = node_id.split("_")
    if layer == "E":
        return Node.token_node(int(position), int(number))
    if number == "-1":
        return Node.error_node(int(layer), int(position))
    return Node.feature_node(int(layer), int(position), int(number))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def links_of(graph: Graph) -> Iterator[Link]:
    """Yield every edge of a graph under the ids of its nodes, with its stability and heads where they are known."""
    names, extras = graph.node_ids(), link_extras(graph.metadata)
    steady = None if graph.pruning is None else graph.pruning.stability
    for block in graph.edges.blocks():
        shares = (
            repeat(None) if steady is None else map(_SHARES.__getitem__, steady.edges[block.place].tolist())
        )
        for (source, target, weight), share in zip(block.triples(), shares, strict=False):
            extra = extras.get((source, target), {})
            stable = {} if share is None else {STABILITY: share}
            yield Link(names[source], names[target], weight, {**stable, **extra})


def prompt_tokens_of(graph: Graph) -> list[str]:
    """Return each prompt token decoded: from the graph, else by the tokenizer that it names, else `⟨id⟩` with a warning."""
    if graph.prompt_tokens is not None:
        return graph.prompt_tokens
    ids = graph.input_tokens.tolist()
    decoded = _decoded(graph.cfg.tokenizer_name, ids)
    if decoded is not None:
        return decoded
    warnings.warn(
        f"the graph doesn't contain its tokens as text, and the tokenizer {graph.cfg.tokenizer_name!r} can't be loaded;"
        " tokens are shown by number",
        stacklevel=2,
    )
    return [f"⟨{token}⟩" for token in ids]


def _decoded(name: str, ids: list[int]) -> list[str] | None:
    if not name:
        return None
    try:
        from transformers import AutoTokenizer

        from circuit_tracer_cli.tokens import TokenTexts

        tokenizer = AutoTokenizer.from_pretrained(name)
        return TokenTexts(tokenizer).of(ids)
    except _UNAVAILABLE:
        return None
