"""A graph as arrays with one key per node and edge, so that nodes of different graphs can be compared.

Shares are relative to the full graph if the file has it (a raw graph), else to what pruning kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from circuit_tracer_cli.errors import BadGraphFile, MissingFile
from circuit_tracer_cli.export.records import STABILITY, target_weight
from circuit_tracer_cli.graph.defaults import STABILITY_GRID
from circuit_tracer_cli.graph.heads import HEADS
from circuit_tracer_cli.graph.layout import warn_of_edges_left_out

if TYPE_CHECKING:
    import torch

    from circuit_tracer_cli.export.records import GraphFile, Node
    from circuit_tracer_cli.graph.graph import Graph

Array = npt.NDArray[Any]

KINDS = ("feature", "error", "token", "logit")
FEATURE, ERROR, TOKEN, LOGIT = range(4)

RAW_SUFFIXES = (".safetensors", ".pt")
LIST_FILE = "graph-metadata.json"
OBJECTS = "objects"
"""Folder of a batch's graphs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """The subject of a graph.

    Attributes:
        name: Name of the file, without its suffix.
        prompt: The decoded prompt.
        tokens: `P` token texts.
        token_ids: int64 `(P)`; -1 if unknown.
        scan: Identifier of the transcoder set.
        n_layers: Number of the model's layers.
        targets: Text, vocabulary index and weight of each target.
        n_target_positions: Number of positions at which targets stand; 0 if one is inside the model.
        metadata: The file's metadata.
    """

    name: str
    prompt: str
    tokens: tuple[str, ...]
    token_ids: Array
    scan: str
    n_layers: int
    targets: tuple[tuple[str, int, float], ...]
    n_target_positions: int
    metadata: dict[str, Any]

    @property
    def n_pos(self) -> int:
        """`P`, the number of prompt tokens."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts(Outline):
    """One graph's data for comparisons. `T` nodes, `E` edges between kept nodes.

    Attributes:
        ids: `T` node ids as in the JSON graph file.
        kind: int8 `(T)`, an index into `KINDS`.
        layer: int64 `(T)`: layer of a feature or error; -1 for a token, `n_layers` for a target.
        feature: int64 `(T)`: index of a feature; -1 for an error; vocabulary index of a token or target.
        position: int64 `(T)`.
        activation: float64 `(T)`, NaN for anything but a feature.
        influence: float64 `(T)`: influence on the targets.
        share: float64 `(T)`: share of the influence of all features; zero for nodes of another kind.
        kept: bool `(T)`: kept by pruning.
        cumulative: float64 `(T)`: share of all influence at the node's rank, NaN where unknown.
        source, target: int64 `(E)`, node indices of the kept edges.
        weight: float64 `(E)`, direct effects.
        edge_share: float64 `(E)`: absolute weight relative to the target's total input.
        flow: float64 `(E)`: `edge_share` times the target's influence, including its own weight as a target.
        node_stability: float64 `(T)`: share of the prunings of a fixed grid that keep the node; NaN if not measured.
        edge_stability: float64 `(E)`: the same for edges.
        replacement, completeness: The graph's scores, NaN where unknown.
        whole: True if nodes and edges cut by pruning are also known.
        graph: The graph itself, if it wasn't read from a viewer file.
        words: Labels that a viewer file holds, by node id, under their keys in the file.
    """

    ids: list[str]
    kind: Array
    layer: Array
    feature: Array
    position: Array
    activation: Array
    influence: Array
    share: Array
    kept: Array
    cumulative: Array
    source: Array
    target: Array
    weight: Array
    edge_share: Array
    flow: Array
    node_stability: Array
    edge_stability: Array
    replacement: float
    completeness: float
    whole: bool
    graph: Graph | None = None
    words: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def target_nodes(self) -> Array:
        """Indices of the target nodes, in order."""
        return np.flatnonzero(self.kind == LOGIT)


def facts_of_graph(
    graph: Graph, name: str, node_threshold: float | None = None, edge_threshold: float | None = None
) -> Facts:
    """The facts of a raw or pruned graph; a raw one is pruned with the thresholds or the defaults.

    Raises InvalidValue for a threshold outside 0..1, UsageError for one that the graph wasn't pruned with.
    """
    from circuit_tracer_cli.graph.influence import as_array, node_influence, row_scale
    from circuit_tracer_cli.graph.prune import pruned_graph

    pruned = pruned_graph(graph, node_threshold, edge_threshold)
    assert pruned.pruning is not None
    layout, weights, scale = graph.layout, as_array(graph.logit_weights), row_scale(graph.edges)
    influence = node_influence(graph.edges, scale, weights)
    kinds = np.repeat(
        np.arange(4, dtype=np.int8),
        [layout.n_features, layout.n_layers * layout.n_pos, layout.n_pos, layout.n_logits],
    )
    active = graph.active_features[graph.selected_features].cpu().numpy()
    grid = np.indices((layout.n_layers, layout.n_pos)).reshape(2, -1)
    positions = np.arange(layout.n_pos)
    vocabulary = np.array([target.vocab_idx for target in graph.logit_targets], dtype=np.int64)
    top = np.array([place.layer for place in graph.places], dtype=np.int64)
    kinds[layout.logit_offset :][[place.kind == "feature" for place in graph.places]] = FEATURE
    activation = np.full(graph.n_nodes, np.nan)
    activation[: layout.n_features] = graph.activation_values[graph.selected_features].double().cpu().numpy()
    edges = pruned.edges
    source = edges.indices.cpu().numpy().astype(np.int64)
    target = np.repeat(np.arange(graph.n_nodes), np.diff(edges.indptr.cpu().numpy()))
    weight = edges.values.cpu().numpy().astype(np.float64)
    edge_share = np.abs(weight) * scale[target]
    steady = pruned.pruning.stability
    return Facts(
        **_outline_values(graph, name),
        ids=graph.node_ids(),
        kind=kinds,
        layer=np.concatenate([active[:, 0], grid[0], np.full(layout.n_pos, -1), top]),
        feature=np.concatenate(
            [active[:, 2], np.full(grid.shape[1], -1), graph.input_tokens.cpu().numpy(), vocabulary]
        ),
        position=np.concatenate(
            [active[:, 1], grid[1], positions, np.array([p.position for p in graph.places], dtype=np.int64)]
        ),
        activation=activation,
        influence=influence,
        share=feature_shares(influence, kinds),
        kept=pruned.pruning.node_mask.cpu().numpy(),
        cumulative=pruned.pruning.cumulative_scores.double().cpu().numpy(),
        source=source,
        target=target,
        weight=weight,
        edge_share=edge_share,
        flow=edge_share * (influence + weights)[target],
        node_stability=_steadiness(None if steady is None else steady.nodes, graph.n_nodes),
        edge_stability=_steadiness(None if steady is None else steady.edges, len(weight)),
        replacement=pruned.pruning.replacement_score,
        completeness=pruned.pruning.completeness_score,
        whole=graph.pruning is None,
        graph=graph,
    )


def _steadiness(counts: torch.Tensor | None, size: int) -> Array:
    return np.full(size, np.nan) if counts is None else counts.cpu().numpy() / len(STABILITY_GRID)


def _outline_values(graph: Graph, name: str) -> dict[str, Any]:
    from circuit_tracer_cli.export.viewer import scan_names

    weights = graph.logit_probabilities.tolist()
    return {
        "name": name,
        "prompt": graph.input_string,
        "tokens": tuple(graph.prompt_tokens or (f"⟨{token}⟩" for token in graph.input_tokens.tolist())),
        "token_ids": graph.input_tokens.cpu().numpy(),
        "scan": scan_names(graph.scan)[0] if graph.scan else "",
        "n_layers": graph.cfg.n_layers,
        "targets": tuple(
            (*target, weight) for target, weight in zip(graph.logit_targets, weights, strict=True)
        ),
        "n_target_positions": 0
        if any(place.layer < graph.cfg.n_layers for place in graph.places)
        else len({place.position for place in graph.places}),
        "metadata": dict(graph.metadata),
    }


def feature_shares(influence: Array, kinds: Array) -> Array:
    """float64 `(T)`: each feature's part of the influence of all features."""
    of_features = np.where(kinds == FEATURE, influence, 0.0)
    return of_features / max(float(of_features.sum()), 1e-30)


def _links_by_row(
    file: GraphFile, nodes: Sequence[Node]
) -> tuple[Array, Array, Array, Array, list[list[Any]]]:
    """Source, target, weight and stability of the links, by target and then source, and the heads in the file."""
    place = {node.node_id: index for index, node in enumerate(nodes)}
    links = [link for link in file.links if link.source in place and link.target in place and link.weight]
    source = np.array([place[link.source] for link in links], dtype=np.int64)
    target = np.array([place[link.target] for link in links], dtype=np.int64)
    weight = np.array([link.weight for link in links], dtype=np.float64)
    heads = [
        [place[link.source], place[link.target], link.extra["heads"], 0.0]
        for link in links
        if link.extra.get("heads")
    ]
    by_row = np.lexsort((source, target))
    steady = np.array([_number(link.extra.get(STABILITY)) for link in links], dtype=np.float64)
    return source[by_row], target[by_row], weight[by_row], steady[by_row], heads


def facts_of_file(file: GraphFile, name: str) -> Facts:
    """The facts of a JSON graph file: what pruning kept, with shares relative to that."""
    import torch

    from circuit_tracer_cli.graph.edges import Edges
    from circuit_tracer_cli.graph.influence import node_influence, row_scale

    n = len(file.nodes)
    kinds = np.array([_kind_of(node) for node in file.nodes], dtype=np.int8)
    layers = [int(node.layer) for node in file.nodes if node.layer.isdigit()]
    n_layers = max(layers) - 1 if LOGIT in kinds else max(layers, default=0) + 1
    if n_layers < 1:
        raise BadGraphFile(f"{name} doesn't name any layer")
    order = _in_order(file, kinds)
    nodes, kinds = [file.nodes[index] for index in order], kinds[order]
    source, target, weight, steady, heads = _links_by_row(file, nodes)
    built = Edges(
        torch.from_numpy(np.concatenate([[0], np.bincount(target, minlength=n).cumsum()])),
        torch.from_numpy(source.astype(np.int32)),
        torch.from_numpy(weight.astype(np.float32)),
    )
    weights = np.array(
        [target_weight(node.feature_type, node.is_target_logit, node.token_prob) for node in nodes]
    )
    scale = row_scale(built)
    influence = node_influence(built, scale, weights)
    edge_share = np.abs(weight) * scale[target]
    extra = file.metadata.extra
    return Facts(
        name=name,
        prompt=file.metadata.prompt,
        tokens=tuple(file.metadata.prompt_tokens),
        token_ids=_token_ids(nodes, kinds, len(file.metadata.prompt_tokens)),
        scan=file.metadata.scan,
        n_layers=n_layers,
        ids=[node.node_id for node in nodes],
        kind=kinds,
        layer=np.array(
            [_layer_of(node, kind, n_layers) for node, kind in zip(nodes, kinds, strict=True)], dtype=np.int64
        ),
        feature=np.array(
            [_feature_of(node, kind) for node, kind in zip(nodes, kinds, strict=True)], dtype=np.int64
        ),
        position=np.array([node.ctx_idx for node in nodes], dtype=np.int64),
        activation=np.array([np.nan if node.activation is None else node.activation for node in nodes]),
        influence=influence,
        share=feature_shares(influence, kinds),
        kept=np.ones(n, dtype=np.bool_),
        cumulative=np.array([np.nan if node.influence is None else node.influence for node in nodes]),
        source=source,
        target=target,
        weight=weight,
        edge_share=edge_share,
        flow=edge_share * (influence + weights)[target],
        targets=tuple(
            (_target_text(node), _feature_of(node, LOGIT), node.token_prob)
            for node, kind in zip(nodes, kinds, strict=True)
            if kind == LOGIT
        ),
        n_target_positions=len(
            {node.ctx_idx for node, kind in zip(nodes, kinds, strict=True) if kind == LOGIT}
        ),
        node_stability=np.full(n, np.nan),
        edge_stability=steady,
        replacement=_number(extra.get("replacement_score")),
        completeness=_number(extra.get("completeness_score")),
        whole=False,
        metadata={"slug": file.metadata.slug, **file.metadata.info, **extra, HEADS: {"links": heads}},
        words={node.node_id: told for node in file.nodes if (told := _words_of(node))},
    )


def _words_of(node: Node) -> dict[str, Any]:
    """The labels that a file holds of a feature."""
    if _kind_of(node) != FEATURE:
        return {}
    told = {name: node.extra[name] for name in ("proposed_label", "provenance") if node.extra.get(name)}
    return {"clerp": node.clerp, **told} if node.clerp else told


def _in_order(file: GraphFile, kinds: Array) -> Array:
    """Nodes ordered so that no node reads a later one: features by layer, errors, tokens, targets (the order of raw graphs)."""
    layer = np.array([int(node.layer) if node.layer.isdigit() else -1 for node in file.nodes])
    order: Array = np.lexsort((np.arange(len(kinds)), layer, kinds))
    return order


def _kind_of(node: Node) -> int:
    if "error" in node.feature_type:
        return ERROR
    if node.feature_type == "embedding":
        return TOKEN
    return LOGIT if node.feature_type == "logit" else FEATURE


def _layer_of(node: Node, kind: int, n_layers: int) -> int:
    if kind == TOKEN:
        return -1
    return n_layers if kind == LOGIT else int(node.layer)


def _feature_of(node: Node, kind: int) -> int:
    """The index within the node's layer, from the id, since files use `feature` differently."""
    if kind == ERROR:
        return -1
    match = re.match(r"[^_]+_(-?\d+)_", node.node_id)
    return int(match.group(1)) if match else int(node.feature or 0)


def _target_text(node: Node) -> str:
    match = re.match(r'Output "(.*)" \(p=', node.clerp, re.DOTALL)
    return match.group(1) if match else node.clerp


def _token_ids(nodes: list[Node], kinds: Array, n_pos: int) -> Array:
    ids = np.full(n_pos, -1, dtype=np.int64)
    for node, kind in zip(nodes, kinds, strict=True):
        if kind == TOKEN and 0 <= node.ctx_idx < n_pos:
            ids[node.ctx_idx] = _feature_of(node, TOKEN)
    return ids


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")


def read_outline(path: Path) -> Outline:
    """The subject of a graph file, without its edges. Raises MissingFile, BadGraphFile."""
    if path.suffix == ".json":
        facts = read_facts(path)
        names = [one.name for one in fields(Outline)]
        return Outline(**{name: getattr(facts, name) for name in names})
    from circuit_tracer_cli.graph.store import load_graph

    return Outline(**_outline_values(load_graph(path, streaming=True), path.stem))


def read_facts(path: Path, node_threshold: float | None = None, edge_threshold: float | None = None) -> Facts:
    """The facts of a graph file of either kind. Raises MissingFile, BadGraphFile."""
    if path.suffix == ".json":
        from circuit_tracer_cli.export.graph_json import read_graph_json

        try:
            content = path.read_bytes()
        except OSError as error:
            raise MissingFile(f"can't read {path}: {error.strerror}", "check the path") from error
        file = read_graph_json(content, str(path))
        warn_of_edges_left_out(file.metadata.extra, str(path))
        return facts_of_file(file, path.stem)
    from circuit_tracer_cli.graph.store import load_graph

    graph = load_graph(path, streaming=True)
    warn_of_edges_left_out(graph.metadata, str(path))
    return facts_of_graph(graph, path.stem, node_threshold, edge_threshold)


def graph_files(folder: Path) -> Iterator[Path]:
    """The graphs of a folder by name: raw ones if there are any (also in a batch's `objects/`), else JSON.

    Raises MissingFile if the folder doesn't exist or has no graphs.
    """
    if not folder.is_dir():
        raise MissingFile(f"no such folder: {folder}", "use the folder given to batch -o, or one with graphs")
    objects = folder / OBJECTS
    base = objects if objects.is_dir() else folder
    found = sorted(path for path in base.rglob("*") if path.suffix in RAW_SUFFIXES and path.is_file())
    if not found:
        graphs = folder / "graphs"
        base = graphs if graphs.is_dir() else folder
        found = sorted(path for path in base.glob("*.json") if path.name != LIST_FILE)
    if not found:
        raise MissingFile(f"{folder} has no graphs", "write some with circuit-tracer batch or attribute -o")
    yield from found
