"""A graph's prompt, frozen again on its model: the engine with every source, and the graph's nodes in the engine's order."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.linear import LinearEngine, Targets
from circuit_tracer_cli.attribution.rows import encoder_rows
from circuit_tracer_cli.attribution.sources import Sources, build_sources
from circuit_tracer_cli.attribution.target_texts import DIFFERENCE
from circuit_tracer_cli.attribution.targets import TokenReader, Unembedding
from circuit_tracer_cli.backends.base import FrozenPass, LinearWeights
from circuit_tracer_cli.errors import ModelMismatch, UnsuitableValue, UnsupportedArchitecture
from circuit_tracer_cli.graph.edges import EdgesBuilder
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.layout import NodeLayout, error_id, feature_id, token_id
from circuit_tracer_cli.graph.roots import node_of
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.tokens import Tokens
from circuit_tracer_cli.transcoders.components import ActiveFeatures, active_features
from circuit_tracer_cli.types import LogitTarget, TargetPlace

ROWS_AT_ONCE = 64
LARGEST_CHANGE, LARGEST_CHANGE_16_BIT = 1e-4, 0.05
"""Largest difference of activations, relative to their own and the typical size, for a graph to count as made with this model."""


@dataclass(frozen=True)
class FrozenPrompt:
    """A prompt frozen on a model, with every active feature, error and token in the engine. Build one with `freeze`.

    Attributes:
        graph: The graph.
        model: Its model.
        tokens: The prompt.
        frozen: The pass, with the input of every block.
        active: All active features, including those that the graph left out.
        sources: Their vectors.
        engine: The closed form.
    """

    graph: Graph
    model: ReplacementModel
    tokens: Tokens
    frozen: FrozenPass
    active: ActiveFeatures
    sources: Sources
    engine: LinearEngine

    @property
    def n_pos(self) -> int:
        """Number of tokens of the prompt."""
        return len(self.frozen.tokens)

    @property
    def n_heads(self) -> int:
        """Number of query heads of a block."""
        return self.model.model.shape.n_heads

    def source_columns(self, nodes: Sequence[int]) -> Tensor:
        """The engine's columns `(n)` of features, errors and tokens of the graph."""
        graph, layout, columns = self.graph, self.graph.layout, self.engine.columns
        found = []
        for node in nodes:
            kind = layout.kind(node)
            if kind == "feature":
                found.append(int(columns.feature_column[int(graph.selected_features[node])]))
            elif kind == "error":
                layer, position = layout.error_place(node)
                found.append(columns.error_column(position, layer))
            elif kind == "token":
                found.append(columns.token_column(layout.token_position(node)))
            else:
                raise _no_source(graph, node)
        return torch.tensor(found, dtype=torch.int64)

    def targets(self, nodes: Sequence[int]) -> Targets:
        """Features and logits of the graph as targets for the engine, in the given order."""
        graph, layout = self.graph, self.graph.layout
        wrong = [node for node in nodes if layout.kind(node) not in ("feature", "logit")]
        if wrong:
            raise _no_target(graph, wrong[0])
        features = [node for node in nodes if node < layout.n_features]
        logits = [node for node in nodes if node >= layout.logit_offset]
        at = graph.active_features[graph.selected_features[features]].cpu()
        vectors = encoder_rows(self.model.transcoders, at, self.active.inputs).to(self.engine.dtype)
        places = [graph.places[node - layout.logit_offset] for node in logits]
        ends = [torch.tensor([getattr(p, n) for p in places]).long() for n in ("layer", "position")]
        directions = [self._logit_direction(node - layout.logit_offset) for node in logits]
        rows = torch.cat([vectors, *(vector[None].to(vectors) for vector in directions)])
        place = {node: row for row, node in enumerate([*features, *logits])}
        found = Targets(torch.cat([at[:, 0], ends[0]]), torch.cat([at[:, 1], ends[1]]), rows)
        return found.select(torch.tensor([place[node] for node in nodes], dtype=torch.int64))

    def _logit_direction(self, number: int) -> Tensor:
        """The direction of a target, as it was traced."""
        target = self.graph.logit_targets[number]
        if self.graph.places[number].kind == "feature":
            row = self.graph.target_rows()[number]
            at = self.graph.active_features[[row]].cpu()
            return encoder_rows(self.model.transcoders, at, self.active.inputs)[0]
        unembedding = Unembedding(self.model.model.W_U)
        if self.graph.places[number].layer < self.engine.n_layers:
            raise _not_stored(target.token_str)
        if target.vocab_idx < len(unembedding.W_U):
            return unembedding.vector(target.vocab_idx) - unembedding.mean()
        if DIFFERENCE in target.token_str:
            reader = TokenReader(self.model.tokenizer, len(unembedding.W_U))
            first, second = reader.difference(target.token_str, lambda message: None)
            return unembedding.vector(first) - unembedding.vector(second)
        raise _not_stored(target.token_str)

    def name_of(self, node: int) -> str:
        """The id of a source in the JSON graph file, by its number in `node_of_column`; also for features that aren't nodes."""
        n_layers, n_pos = self.engine.n_layers, self.n_pos
        n_features = len(self.active)
        if node < n_features:
            layer, position, feature = self.active.indices[node].tolist()
            return feature_id(layer, feature, position)
        if node < n_features + n_layers * n_pos:
            return error_id(*divmod(node - n_features, n_pos))
        position = node - n_features - n_layers * n_pos
        return token_id(int(self.frozen.tokens[position]), position)

    @property
    def node_of_column(self) -> Tensor:
        """`(column)`: features by index in `active`, then errors by layer, then tokens."""
        return self.engine.columns.nodes()

    def head(self, layer: int, head: int) -> None:
        """Raise UnsuitableValue for a head that doesn't exist."""
        n_layers = self.engine.n_layers
        if not 0 <= layer < n_layers:
            raise UnsuitableValue(f"there is no layer {layer}: the model has layers 0 to {n_layers - 1}")
        if not 0 <= head < self.n_heads:
            raise UnsuitableValue(
                f"there is no head {head}: a layer of this model has heads 0 to {self.n_heads - 1}"
            )

    def position(self, position: int, what: str) -> int:
        """A position counted from either end. Raises UnsuitableValue outside the prompt."""
        if not -self.n_pos <= position < self.n_pos:
            raise UnsuitableValue(
                f"the {what} position {position} is outside the prompt of {self.n_pos} tokens",
                hint=f"positions go from 0 to {self.n_pos - 1}; -1 is the last",
            )
        return position % self.n_pos


def freeze(graph: Graph, model: ReplacementModel) -> FrozenPrompt:
    """Run a graph's prompt on its model and put every source into an engine.

    Raises:
        ModelMismatch: The graph can't have been made with this model and these transcoders.
        UnsupportedArchitecture: The family has no closed form.
    """
    _weights_of(model)
    check_sizes(graph, model)
    tokens = model.tokenize(graph.input_tokens)
    if tokens.ids.tolist() != graph.input_tokens.tolist():
        raise ModelMismatch("the model uses another first token than the graph's prompt")
    frozen, active = _run(model, tokens)
    _check_features(graph, active)
    return FrozenPrompt(graph, model, tokens, frozen, active, *_engine(model, tokens, frozen, active))


def freeze_tokens(tokens: Tokens, model: ReplacementModel) -> FrozenPrompt:
    """Freeze a prompt without a graph; `with_edges` adds one with the nodes in question.

    Raises UnsupportedArchitecture if the family has no closed form.
    """
    _weights_of(model)
    frozen, active = _run(model, tokens)
    graph = _graph_of(model, tokens, active, torch.zeros(0, dtype=torch.int64), [])
    return FrozenPrompt(graph, model, tokens, frozen, active, *_engine(model, tokens, frozen, active))


@torch.no_grad()
def with_edges(
    prompt: FrozenPrompt, edges: Sequence[tuple[str, str]]
) -> tuple[FrozenPrompt, list[tuple[int, int]]]:
    """Return the prompt with a graph of some edges, given as ids of a graph file, and the edges as indices of that graph.

    Raises UnsuitableValue for an id that isn't a source or target of this prompt.
    """
    asked = with_nodes(prompt, [name for edge in edges for name in edge])
    pairs = [(node_of(asked.graph, source), node_of(asked.graph, target)) for source, target in edges]
    ends = sorted({target for _, target in pairs})
    node_of_column = kept_nodes(asked, asked.graph.selected_features)
    builder = EdgesBuilder(asked.graph.layout.n_nodes)
    for start in range(0, len(ends), ROWS_AT_ONCE):
        some = ends[start : start + ROWS_AT_ONCE]
        targets = asked.targets(some)
        order = torch.argsort(targets.layers, descending=True, stable=True)
        rows = prompt.engine.rows(targets.select(order)).cpu().float()
        values = torch.zeros(len(some), asked.graph.layout.n_nodes)
        nodes = node_of_column[: rows.shape[1]]
        values[:, nodes[nodes >= 0]] = rows[:, nodes >= 0]
        builder.add_rows(torch.tensor(some)[order], values)
    asked.graph.adjacency_matrix = builder.build()
    return asked, [edge_of(asked.graph, *pair) for pair in pairs]


def with_nodes(prompt: FrozenPrompt, names: Iterable[str]) -> FrozenPrompt:
    """A prompt with a graph, still without edges, of the features and logits among some ids of a graph file.

    Ids that nothing on this prompt has are passed over.
    """
    model, n_layers = prompt.model, prompt.engine.n_layers
    places = {tuple(place): number for number, place in enumerate(prompt.active.indices.tolist())}
    features: set[int] = set()
    logits: dict[tuple[int, int], None] = {}
    for name in dict.fromkeys(names):
        parts = _numbers(name)
        if parts is None or parts[0] > n_layers:
            if parts is not None and parts[0] == n_layers + 1:
                token, position = parts[1:]
                if token < model.model.shape.d_vocab and position < prompt.n_pos:
                    logits[token, position] = None
        elif (parts[0], parts[2], parts[1]) in places:
            features.add(places[parts[0], parts[2], parts[1]])
    selected = torch.tensor(sorted(features), dtype=torch.int64)
    return replace(prompt, graph=_graph_of(model, prompt.tokens, prompt.active, selected, list(logits)))


def kept_nodes(prompt: FrozenPrompt, selected: Tensor) -> Tensor:
    """The node of every column of the engine; -1 for features that the graph leaves out."""
    n_active, layout = len(prompt.active), prompt.graph.layout
    shared = layout.logit_offset - layout.n_features
    node = torch.full((n_active + shared,), -1, dtype=torch.int64)
    node[selected] = torch.arange(len(selected))
    node[n_active:] = torch.arange(shared) + len(selected)
    return node[prompt.engine.columns.nodes().cpu()]


def _numbers(name: str) -> tuple[int, int, int] | None:
    """Layer, index and position in a feature's or logit's id."""
    parts = name.split("_")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 16 for part in parts):
        return None
    return int(parts[0]), int(parts[1]), int(parts[2])


def _graph_of(
    model: ReplacementModel,
    tokens: Tokens,
    active: ActiveFeatures,
    selected: Tensor,
    logits: Sequence[tuple[int, int]],
) -> Graph:
    """A graph of some features and of tokens at positions as targets, still without edges."""
    layout = NodeLayout(len(selected), model.cfg.n_layers, len(tokens), len(logits))
    return Graph(
        input_string=tokens.text,
        input_tokens=tokens.ids.cpu(),
        active_features=active.indices.cpu(),
        adjacency_matrix=EdgesBuilder(layout.n_nodes).build(),
        cfg=model.cfg,
        selected_features=selected,
        activation_values=active.values.cpu(),
        logit_targets=[LogitTarget("", token) for token, _ in logits],
        target_places=[TargetPlace("token", model.cfg.n_layers, position) for _, position in logits],
        logit_probabilities=torch.zeros(len(logits)),
        scan=model.scan,
        metadata={"prompt_tokens": list(tokens.strings)},
    )


def _weights_of(model: ReplacementModel) -> LinearWeights:
    weights = model.model.weights
    if weights is None:
        raise UnsupportedArchitecture(
            f"{model.cfg.original_architecture} has no closed form, so its paths can't be split by heads"
        )
    return weights


def _run(model: ReplacementModel, tokens: Tokens) -> tuple[FrozenPass, ActiveFeatures]:
    """The pass, and its active features."""
    hooks = model.transcoders.feature_input_hook, model.transcoders.feature_output_hook
    with torch.no_grad():
        frozen = model.model.frozen_pass(tokens.ids, *hooks, residuals=True)
        inputs = [layer.feature_input for layer in frozen.layers]
        return frozen, active_features(model.transcoders, inputs, tokens.zero_positions)


@torch.no_grad()
def _engine(
    model: ReplacementModel, tokens: Tokens, frozen: FrozenPass, active: ActiveFeatures
) -> tuple[Sources, LinearEngine]:
    """All sources, and the closed form."""
    dtype = torch.promote_types(model.dtype, torch.float32)
    sources = build_sources(frozen, model.transcoders, active, tokens.zero_positions, dtype)
    skips = [model.transcoders.skip_matrix(layer) for layer in range(model.transcoders.n_layers)]
    return sources, LinearEngine(_weights_of(model), frozen, model.points, sources, skips)


def check_sizes(graph: Graph, model: ReplacementModel) -> None:
    """Raise ModelMismatch unless the model has the layers, the width and the vocabulary of the graph's model."""
    shape, cfg = model.model.shape, graph.cfg
    for what, ours, theirs in (
        ("layers", shape.n_layers, cfg.n_layers),
        ("d_model", shape.d_model, cfg.d_model),
        ("d_vocab", shape.d_vocab, cfg.d_vocab),
    ):
        if ours != theirs:
            raise ModelMismatch(
                f"the graph's model has {what} {theirs}, but this one has {ours}",
                hint=f"the graph was made with {cfg.model_name}; use --model and --transcoder-set",
            )


def _check_features(graph: Graph, active: ActiveFeatures) -> None:
    """Raise ModelMismatch unless exactly the graph's features are active; otherwise numbers of edges are meaningless."""
    ours, theirs = active.indices.cpu(), graph.active_features.cpu()
    if torch.equal(ours, theirs):
        _check_activations(graph, active)
        return
    known = set(map(tuple, ours.tolist()))
    lacking = sum(tuple(feature) not in known for feature in theirs.tolist())
    raise ModelMismatch(
        f"{lacking} of the graph's {len(theirs)} active features aren't active here, where {len(ours)} features are",
        hint="use the graph's own model, set and dtype: --model, --transcoder-set, --dtype",
    )


def _check_activations(graph: Graph, active: ActiveFeatures) -> None:
    """Raise ModelMismatch if activations differ by more than different kernels explain, in the graph's number type."""
    ours, theirs = active.values.cpu().double(), graph.activation_values.cpu().double()
    if not len(ours):
        return
    limit = LARGEST_CHANGE if graph.cfg.dtype in (None, "float32", "float64") else LARGEST_CHANGE_16_BIT
    off = (ours - theirs).abs() / (theirs.abs() + theirs.abs().median())
    if not float(off.max()) <= limit:
        worst = int(off.argmax())
        layer, position, feature = graph.active_features[worst].tolist()
        raise ModelMismatch(
            f"{layer}/{feature}@{position} has activation {float(theirs[worst]):.6g} in the graph and "
            f"{float(ours[worst]):.6g} here, so the graph was made with other weights or another dtype",
            hint="use the graph's own model, set and dtype: --model, --transcoder-set, --dtype",
        )


def _not_stored(name: str) -> UnsuitableValue:
    return UnsuitableValue(
        f"the target {name!r} is a custom direction, which graph files don't contain",
        hint="choose edges into features, or trace token targets",
    )


def _no_source(graph: Graph, node: int) -> UnsuitableValue:
    return UnsuitableValue(
        f"{graph.node_id(node)} is a target, where no edge begins", hint="write SOURCE:TARGET"
    )


def _no_target(graph: Graph, node: int) -> UnsuitableValue:
    return UnsuitableValue(
        f"{graph.node_id(node)} is an error or a token, where no edge ends",
        hint="write SOURCE:TARGET; targets are features and logits",
    )


def edge_of(graph: Graph, source: int | str, target: int | str) -> tuple[int, int]:
    """An edge by the names or indices of its ends. Raises UnsuitableValue if the nodes or the edge don't exist."""
    ends = _node(graph, source), _node(graph, target)
    if graph.layout.kind(ends[0]) == "logit":
        raise _no_source(graph, ends[0])
    if graph.layout.kind(ends[1]) not in ("feature", "logit"):
        raise _no_target(graph, ends[1])
    columns, _ = graph.edges.row(ends[1])
    if ends[0] not in columns.tolist():
        pruned = "it may have been pruned; use the raw graph" if graph.pruning else "write SOURCE:TARGET"
        names = [graph.node_id(end) for end in ends]
        raise UnsuitableValue(f"the graph has no edge from {names[0]} to {names[1]}", hint=pruned)
    return ends


def _node(graph: Graph, node: int | str) -> int:
    """A node's index. Raises UnsuitableValue for one that the graph doesn't have."""
    if isinstance(node, str):
        return node_of(graph, node)
    number = operator.index(node)
    if isinstance(node, bool) or not 0 <= number < graph.layout.n_nodes:
        raise UnsuitableValue(
            f"there is no node {node}: the graph has nodes 0 to {graph.layout.n_nodes - 1}",
            hint="use the node's index, or its id as a string",
        )
    return number
