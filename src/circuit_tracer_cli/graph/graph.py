"""The attribution graph of one prompt: its nodes, its direct effects and what they were computed from."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.graph.defaults import STABILITY_GRID
from circuit_tracer_cli.graph.edges import Edges, check_edges
from circuit_tracer_cli.graph.layout import NodeKind, NodeLayout, error_id, feature_id, logit_ids, token_id
from circuit_tracer_cli.types import LogitTarget, TargetPlace, UnifiedConfig

if TYPE_CHECKING:
    import networkx
    import pandas

ROOT = "root"
"""Key of a graph's metadata: the id of the node that is explained instead of the targets."""


@dataclass(frozen=True, slots=True)
class Stability:
    """How many of the prunings of `STABILITY_GRID` keep each node and edge.

    Attributes:
        nodes: uint8 `(T)`.
        edges: uint8 `(nnz)`, in the order of the graph's edges.
    """

    nodes: torch.Tensor
    edges: torch.Tensor


@dataclass(frozen=True, slots=True)
class Pruning:
    """What pruning did to a graph.

    Attributes:
        node_mask: bool `(T)`, the nodes kept.
        cumulative_scores: float32 `(T)`, share of all influence at each node's rank in the unpruned graph.
        node_threshold: Share of the influence that the kept nodes account for.
        edge_threshold: The same for edges.
        replacement_score: Of the unpruned graph.
        completeness_score: Of the unpruned graph.
        n_edges_before: Edges of the unpruned graph.
        stability: How steadily other thresholds keep the nodes and edges; None where that wasn't measured.
    """

    node_mask: torch.Tensor
    cumulative_scores: torch.Tensor
    node_threshold: float
    edge_threshold: float
    replacement_score: float
    completeness_score: float
    n_edges_before: int
    stability: Stability | None = None


class Graph:
    """Direct effects between the active features, errors, tokens and target logits of one prompt.

    Node order is selected features, error nodes (layer-major), tokens, logits; rows of the matrix are targets, columns sources.

    Args:
        input_string: The decoded prompt, special tokens included.
        input_tokens: int64 `(P)`.
        active_features: int64 `(n, 3)`: layer, position, feature of every active feature, in that order.
        adjacency_matrix: `Edges`, or a dense `(T, T)` tensor, `T = m + L·P + P + K`.
        cfg: Facts about the model, as a record or a dict of the same keys.
        selected_features: int64 `(m)`, ascending row numbers of `active_features`.
        activation_values: float `(n)`.
        logit_targets: `K` targets, or (in older files) an integer tensor of token ids.
        logit_probabilities: float `(K)`, the weight of each target.
        scan: Identifier of the transcoders, one or one per layer.
        vocab_size: Size of the tokenizer's vocabulary; the model's when not given.
        metadata: Further facts: model, versions, settings, `prompt_tokens` (each prompt token decoded), timings.
        pruning: The masks, if the graph was pruned.
        target_places: What each target is and where it stands; None for logits at the last position, as in older files.

    Raises:
        InvalidValue: The parts don't fit together.
    """

    def __init__(
        self,
        input_string: str,
        input_tokens: torch.Tensor,
        active_features: torch.Tensor,
        adjacency_matrix: torch.Tensor | Edges,
        cfg: UnifiedConfig | Mapping[str, Any],
        selected_features: torch.Tensor,
        activation_values: torch.Tensor,
        logit_targets: Sequence[LogitTarget] | torch.Tensor,
        logit_probabilities: torch.Tensor,
        scan: str | list[str] | None = None,
        vocab_size: int | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        pruning: Pruning | None = None,
        target_places: Sequence[TargetPlace] | None = None,
    ) -> None:
        self.input_string = input_string
        self.cfg = _as_config(cfg)
        self.input_tokens = _as_ids(torch.as_tensor(input_tokens), "input_tokens")
        self.active_features = _as_ids(active_features, "active_features")
        self.selected_features = _as_ids(selected_features, "selected_features")
        self.activation_values = activation_values
        self.logit_targets = _as_targets(logit_targets)
        self.logit_probabilities = logit_probabilities
        self.scan = scan
        self.vocab_size = self.cfg.d_vocab if vocab_size is None else int(vocab_size)
        self.metadata = dict(metadata or {})
        self.pruning = pruning
        self.target_places = None if target_places is None else [TargetPlace(*one) for one in target_places]
        self._edges = (
            adjacency_matrix if isinstance(adjacency_matrix, Edges) else Edges.from_dense(adjacency_matrix)
        )
        _check(self)

    def __repr__(self) -> str:
        shape = self.layout
        return (
            f"Graph({self.input_string!r}, features={shape.n_features}, positions={shape.n_pos}, "
            f"logits={shape.n_logits}, edges={self._edges.nnz}{', pruned' if self.pruning else ''})"
        )

    def _repr_html_(self) -> str:
        from circuit_tracer_cli.graph.nodes import graph_card

        return graph_card(self)

    @property
    def edges(self) -> Edges:
        """The direct effects in compressed rows."""
        return self._edges

    @property
    def adjacency_matrix(self) -> torch.Tensor:
        """The direct effects as a new dense float32 `(T, T)` tensor. Raises OutOfMemory if it can't fit."""
        return self._edges.to_dense()

    @adjacency_matrix.setter
    def adjacency_matrix(self, matrix: torch.Tensor | Edges) -> None:
        if self.pruning is not None:
            self.pruning = replace(self.pruning, stability=None)  # it is about the edges that were there
        self._edges = matrix if isinstance(matrix, Edges) else Edges.from_dense(matrix)
        _check(self)

    @property
    def layout(self) -> NodeLayout:
        """How the nodes are numbered."""
        return NodeLayout(len(self.selected_features), self.cfg.n_layers, self.n_pos, len(self.logit_targets))

    @property
    def n_pos(self) -> int:
        """`P`, the number of prompt tokens."""
        return len(self.input_tokens)

    @property
    def n_nodes(self) -> int:
        """`T`, the number of nodes."""
        return self._edges.n

    @property
    def logit_token_ids(self) -> torch.Tensor:
        """int64 `(K)`: vocabulary index of each target (virtual for custom ones), on the probabilities' device."""
        ids = [target.vocab_idx for target in self.logit_targets]
        return torch.tensor(ids, dtype=torch.int64, device=self.logit_probabilities.device)

    @property
    def logit_tokens(self) -> torch.Tensor:
        """Deprecated name of `logit_token_ids`."""
        warnings.warn("logit_tokens is deprecated, use logit_token_ids", DeprecationWarning, stacklevel=2)
        return self.logit_token_ids

    @property
    def logit_weights(self) -> torch.Tensor:
        """float32 `(T)`: the weights of the nodes that influence is measured on, on the edges' device.

        Zero except for the target nodes, which have their probabilities; in a graph with another root, one at that node.
        """
        weights = torch.zeros(self.n_nodes, device=self._edges.device)
        root = self.root
        if root is None:
            weights[self.layout.logit_offset :] = self.logit_probabilities.to(weights)
        else:
            weights[root] = 1.0
        return weights

    @property
    def places(self) -> list[TargetPlace]:
        """`K`: what each target is and where it stands."""
        if self.target_places is not None:
            return self.target_places
        kinds = ("direction" if t.vocab_idx >= self.cfg.d_vocab else "token" for t in self.logit_targets)
        return [TargetPlace(kind, self.cfg.n_layers, self.n_pos - 1) for kind in kinds]

    @property
    def target_features(self) -> list[int]:
        """Rows of `active_features` that are targets themselves; none of them is among `selected_features`."""
        return [place for place in self.target_rows() if place is not None]

    def target_rows(self) -> list[int | None]:
        """`K`: each target's row of `active_features`; None for one that isn't an active feature."""
        found: list[int | None] = []
        for place, target in zip(self.places, self.logit_targets, strict=True):
            at = torch.tensor([place.layer, place.position, target.vocab_idx])
            if place.kind != "feature":
                found.append(None)
                continue
            same = (self.active_features.cpu() == at).all(1).nonzero().flatten().tolist()
            found.append(same[0] if same else None)
        return found

    def earlier_target(self) -> str | None:
        """Return the id of a target that isn't the model's next token or a direction there; None if every target is."""
        last = (self.cfg.n_layers, self.n_pos - 1)
        here = [(place.layer, place.position) == last for place in self.places]
        return None if all(here) else self._logit_ids()[here.index(False)]

    @property
    def root(self) -> int | None:
        """The node that the graph explains instead of its targets; None for the targets. See `rooted`."""
        name = self.metadata.get(ROOT)
        return None if name is None else self.node_ids().index(name)

    @property
    def prompt_tokens(self) -> list[str] | None:
        """Each prompt token decoded, if `metadata` contains them."""
        tokens = self.metadata.get("prompt_tokens")
        if isinstance(tokens, list) and len(tokens) == self.n_pos and all(isinstance(t, str) for t in tokens):
            return tokens
        return None

    def node_kind(self, node: int) -> NodeKind:
        """`"feature"`, `"error"`, `"token"` or `"logit"`. Raises IndexError outside the graph."""
        return self.layout.kind(node)

    def node_id(self, node: int) -> str:
        """Return a node's id in the JSON graph file. Raises IndexError outside the graph."""
        layout = self.layout
        kind = layout.kind(node)
        if kind == "feature":
            layer, position, feature = self.active_features[self.selected_features[node]].tolist()
            return feature_id(layer, feature, position)
        if kind == "error":
            return error_id(*layout.error_place(node))
        if kind == "token":
            position = layout.token_position(node)
            return token_id(int(self.input_tokens[position]), position)
        return self._logit_ids()[node - layout.logit_offset]

    def node_ids(self) -> list[str]:
        """The ids of all nodes in node order."""
        layout = self.layout
        features = self.active_features[self.selected_features].tolist()
        ids = [feature_id(layer, feature, position) for layer, position, feature in features]
        ids += [error_id(layer, p) for layer in range(layout.n_layers) for p in range(layout.n_pos)]
        ids += [token_id(token, p) for p, token in enumerate(self.input_tokens.tolist())]
        return ids + self._logit_ids()

    def _logit_ids(self) -> list[str]:
        indices, positions = [t.vocab_idx for t in self.logit_targets], [p.position for p in self.places]
        names = logit_ids(indices, self.cfg.n_layers, positions)
        return [
            feature_id(place.layer, index, place.position) if place.kind == "feature" else name
            for name, index, place in zip(names, indices, self.places, strict=True)
        ]

    def to(self, device: torch.device | str) -> None:
        """Move edges, active features and probabilities to a device, in place."""
        self._edges = self._edges.to(device)
        self.active_features = self.active_features.to(device)
        self.logit_probabilities = self.logit_probabilities.to(device)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Graph:
        """Return the graph in a file of any kind. Raises MissingFile, BadGraphFile."""
        from circuit_tracer_cli.graph.store import load_graph

        return load_graph(path)

    def replace(self, **changes: Any) -> Graph:
        """Return a graph with some fields changed, as `dataclasses.replace` does; other fields are shared.

        Args:
            changes: Arguments of `Graph` by name, such as `metadata` or `scan`.

        Raises:
            InvalidValue: The parts don't fit together.
            TypeError: `Graph` has no such argument.
        """
        names = [name for name in inspect.signature(Graph).parameters if name != "adjacency_matrix"]
        fields: dict[str, Any] = {name: getattr(self, name) for name in names}
        return Graph(**({"adjacency_matrix": self._edges} | fields | changes))

    def rooted(self, node: int | str | None) -> Graph:
        """Return the graph with another root, so that scores, influence and pruning explain that node.

        Args:
            node: Its number, its id, or `layer/feature@position`; None for the targets again.

        Raises:
            UnsuitableValue: There is no such node, it has no incoming edges, or pruning removed it.
        """
        from circuit_tracer_cli.graph.roots import rooted_graph

        return rooted_graph(self, node)

    def prune(self, node_threshold: float | None = None, edge_threshold: float | None = None) -> Graph:
        """Return the graph with only the kept edges: see `pruned_graph`. Raises InvalidValue, UsageError."""
        from circuit_tracer_cli.graph.prune import pruned_graph

        return pruned_graph(self, node_threshold, edge_threshold)

    def scores(self) -> tuple[float, float]:
        """Return the replacement and the completeness score, both in 0..1: see `compute_graph_scores`."""
        from circuit_tracer_cli.graph.influence import compute_graph_scores

        return compute_graph_scores(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph to a `.safetensors` or `.pt` file, atomically. Raises UsageError, OutputError."""
        from circuit_tracer_cli.graph.store import save_graph

        save_graph(self, Path(path))

    def export(
        self,
        slug: str,
        directory: str | os.PathLike[str] = "graph_files",
        format: str = "json",
        *,
        features_dir: str | os.PathLike[str] | None = None,
    ) -> list[Path]:
        """Write the graph for the viewer or another program, pruned with the default thresholds unless it's pruned already.

        Args:
            slug: Name of the files.
            directory: The folder; made if missing.
            format: `json` (the viewer's), `html`, `graphml` or `csv`.
            features_dir: Feature examples, for formats that include them.

        Returns:
            The files written.

        Raises:
            UsageError: Unknown format, or a slug that can't name a file.
            OutputError: The folder can't be written to.
        """
        from circuit_tracer_cli.export import Destination, exporter
        from circuit_tracer_cli.export.slugs import check_slug

        write = exporter(format)
        check_slug(slug)
        examples = None if features_dir is None else Path(features_dir)
        return write(self.prune(), Destination(slug, Path(directory), examples))

    def to_pt(self, path: str | os.PathLike[str]) -> None:
        """Write the graph in the `.pt` format, whatever the file's name. Raises OutputError."""
        from circuit_tracer_cli.graph.store import save_graph

        save_graph(self, Path(path), kind="pt")

    @staticmethod
    def from_pt(path: str | os.PathLike[str], map_location: torch.device | str = "cpu") -> Graph:
        """Return the graph in a file of any kind. Raises MissingFile, BadGraphFile."""
        from circuit_tracer_cli.graph.store import load_graph

        graph = load_graph(path)
        if torch.device(map_location).type != "cpu":
            graph.to(map_location)
        return graph

    def to_networkx(self) -> networkx.DiGraph[str]:
        """A directed graph from source to target over the kept nodes: see `graph/nodes.py`."""
        from circuit_tracer_cli.graph.nodes import to_networkx

        return to_networkx(self)

    def to_dataframe(self) -> pandas.DataFrame:
        """A table of the edges: see `graph/nodes.py`."""
        from circuit_tracer_cli.graph.nodes import to_dataframe

        return to_dataframe(self)


def _as_config(cfg: UnifiedConfig | Mapping[str, Any]) -> UnifiedConfig:
    if isinstance(cfg, UnifiedConfig):
        return cfg
    try:
        config = UnifiedConfig.from_dict(dict(cfg))
    except TypeError as error:
        raise InvalidValue(f"the graph's model configuration is incomplete: {error}") from error
    for name in ("n_layers", "d_model", "d_vocab"):
        value = getattr(config, name)
        _require(type(value) is int and value >= 0, f"the graph's model configuration has no valid {name}")
    for name in ("tokenizer_name", "model_name", "original_architecture"):
        _require(
            isinstance(getattr(config, name), str), f"the graph's model configuration has no valid {name}"
        )
    return config


def _as_ids(tensor: torch.Tensor, name: str) -> torch.Tensor:
    _require(not tensor.is_floating_point() and not tensor.is_complex(), f"{name} must contain integers")
    return tensor.to(torch.int64)


def _as_targets(targets: Sequence[LogitTarget] | torch.Tensor) -> list[LogitTarget]:
    if isinstance(targets, torch.Tensor):
        return [LogitTarget("", int(index)) for index in targets.flatten().tolist()]
    try:
        pairs = [LogitTarget(*target) for target in targets]
    except TypeError as error:
        raise InvalidValue("each logit target must be a pair of token string and vocabulary index") from error
    if not all(isinstance(p.token_str, str) and isinstance(p.vocab_idx, int) for p in pairs):
        raise InvalidValue("each logit target must be a pair of token string and vocabulary index")
    return pairs


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InvalidValue(message)


def _check(graph: Graph) -> None:
    """Raise InvalidValue unless the parts of the graph fit together."""
    active, selected, n_active = graph.active_features, graph.selected_features, len(graph.active_features)
    _require(isinstance(graph.input_string, str), "the prompt of a graph must be a string")
    _require(
        graph.input_tokens.ndim == 1 and graph.n_pos > 0,
        "the prompt tokens of a graph must be a row of at least one id",
    )
    _require(active.ndim == 2 and active.shape[1:] == (3,), "active_features must have shape (n, 3)")
    values = graph.activation_values
    _require(
        values.is_floating_point() and values.shape == (n_active,),
        f"activation_values must contain {n_active} floats",
    )
    probabilities, n_logits = graph.logit_probabilities, len(graph.logit_targets)
    _require(
        probabilities.is_floating_point() and probabilities.shape == (n_logits,),
        f"logit_probabilities must contain {n_logits} floats, one per target",
    )
    _require(bool(torch.isfinite(probabilities).all()), "a logit probability is NaN or infinite")
    _check_places(graph)
    _require(selected.ndim == 1, "selected_features must have one axis")
    if len(selected):
        _require(bool((selected.diff() > 0).all()), "selected_features must ascend")
        _require(
            int(selected[0]) >= 0 and int(selected[-1]) < n_active,
            f"selected_features must be in 0..{n_active - 1}",
        )
    if n_active:
        bounds = torch.tensor([graph.cfg.n_layers, graph.n_pos], device=active.device)
        inside = bool((active >= 0).all()) and bool((active[:, :2] < bounds).all())
        _require(inside, "an active feature is outside the model's layers or the prompt's positions")
    expected = graph.layout.n_nodes
    _require(
        graph.n_nodes == expected,
        f"the adjacency matrix has {graph.n_nodes} nodes, but the rest of the graph has {expected}",
    )
    check_edges(graph.edges)
    root = graph.metadata.get(ROOT)
    _require(root is None or root in graph.node_ids(), f"the graph's root {root!r} isn't one of its nodes")
    if graph.pruning is not None:
        _check_pruning(graph.pruning, expected, graph.edges.nnz)


TARGET_KINDS = ("token", "direction", "feature")


def _check_places(graph: Graph) -> None:
    places = graph.places
    _require(len(places) == len(graph.logit_targets), "a graph must name the place of each of its targets")
    for kind, layer, position in places:
        _require(kind in TARGET_KINDS, f"a target of the graph has the unknown kind {kind!r}")
        _require(
            type(layer) is int
            and (0 <= layer <= graph.cfg.n_layers if kind != "token" else layer == graph.cfg.n_layers),
            f"a target of the graph is at layer {layer}, which it can't be",
        )
        _require(
            type(position) is int and 0 <= position < graph.n_pos,
            f"a target of the graph is at position {position}, outside its prompt",
        )
    if any(kind == "feature" for kind, *_ in places):
        own = graph.target_features
        _require(
            len(own) == sum(kind == "feature" for kind, *_ in places),
            "a target of the graph is a feature that isn't active",
        )
        _require(
            not set(own) & set(graph.selected_features.tolist()), "a feature of the graph is also its target"
        )


def _check_pruning(pruning: Pruning, n_nodes: int, n_edges: int) -> None:
    mask, scores = pruning.node_mask, pruning.cumulative_scores
    _require(
        mask.dtype == torch.bool and mask.shape == (n_nodes,), f"node_mask must contain {n_nodes} booleans"
    )
    _require(
        scores.is_floating_point() and scores.shape == (n_nodes,),
        f"cumulative_scores must contain {n_nodes} floats",
    )
    steady = pruning.stability
    if steady is not None:
        for counts, size, what in ((steady.nodes, n_nodes, "node"), (steady.edges, n_edges, "edge")):
            whole = counts.dtype == torch.uint8 and counts.shape == (size,)
            _require(
                whole and not bool((counts > len(STABILITY_GRID)).any()),
                f"the stability of a pruned graph isn't a count for each {what}",
            )
    thresholds = (pruning.node_threshold, pruning.edge_threshold)
    _require(
        all(0 <= value <= 1 for value in thresholds),
        "the thresholds of a pruned graph must be between 0 and 1",
    )
