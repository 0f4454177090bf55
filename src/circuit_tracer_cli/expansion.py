"""Add nodes to an existing graph: rows of new features (what drives them) and their columns (what they drive).

A graph's rows contain only the columns of its own nodes, so a feature added later needs both. Rows come from the engine as in
any trace; columns are the transpose, with new features carried forward to every target that has a row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.attention.prompt import FrozenPrompt, freeze, kept_nodes, with_nodes
from circuit_tracer_cli.attribution.linear import Targets
from circuit_tracer_cli.attribution.rows import encoder_rows
from circuit_tracer_cli.errors import InvalidValue, UnsuitableValue, UsageError
from circuit_tracer_cli.graph.edges import Edges, EdgesBuilder
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.heads import HEADS
from circuit_tracer_cli.graph.layout import feature_id
from circuit_tracer_cli.graph.roots import node_of
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.transcoders.components import why_inactive

Feature = tuple[int, int, int]
"""Layer, position and index of a feature."""

EXPANSIONS = "expansions"
"""Key of a graph's metadata that records what was added, and when."""
ROWS_AT_ONCE = 64
BLOCK = 1 << 22
"""Elements of the old graph that are dense at once."""


@dataclass(frozen=True, slots=True)
class HiddenInput:
    """A source of a node that the graph leaves out.

    Attributes:
        node_id: Its id in the graph file once it is added.
        layer, position, feature: The feature.
        activation: Its activation.
        weight: Its direct effect on the node.
    """

    node_id: str
    layer: int
    position: int
    feature: int
    activation: float
    weight: float


@dataclass(frozen=True, slots=True)
class HiddenInputs:
    """The part of a node's input that a graph doesn't show.

    Attributes:
        strongest: The features that aren't nodes, by direct effect, largest first.
        count: Number of features with an effect that aren't nodes.
        share: Sum of their absolute weights, relative to that of all inputs, 0..1.
        total: Sum of all direct effects on the node, including those of sources that aren't nodes.
    """

    strongest: list[HiddenInput]
    count: int
    share: float
    total: float


@torch.no_grad()
def hidden_inputs(prompt: FrozenPrompt, node: int, top: int = 10) -> HiddenInputs:
    """Return what a prompt's graph doesn't show of a node's input.

    Args:
        prompt: With a graph; features that aren't among its nodes are hidden.
        node: A feature or target of that graph.
        top: How many of the strongest to name.

    Raises:
        UnsuitableValue: The node is an error or a token.
    """
    row = prompt.engine.rows(prompt.targets([node]))[0]
    of_feature = torch.zeros(len(prompt.active))
    columns = prompt.engine.columns.feature_column
    inside = columns < len(row)
    of_feature[inside] = row[columns[inside]].cpu().float()
    hidden = of_feature.index_fill(0, prompt.graph.selected_features.cpu(), 0.0)
    hidden[prompt.graph.target_features] = 0.0
    order = torch.argsort(hidden.abs(), descending=True, stable=True)[:top]
    indices, values = prompt.active.indices.cpu(), prompt.active.values.cpu()
    strongest = []
    for place in order[hidden[order] != 0].tolist():
        layer, position, feature = indices[place].tolist()
        name = feature_id(layer, feature, position)
        strongest.append(
            HiddenInput(name, layer, position, feature, float(values[place]), float(hidden[place]))
        )
    whole = float(row.double().abs().sum())
    return HiddenInputs(
        strongest=strongest,
        count=int((hidden != 0).sum()),
        share=float(hidden.double().abs().sum()) / whole if whole else 0.0,
        total=float(row.double().sum()),
    )


@torch.no_grad()
def links_of_new(
    prompt: FrozenPrompt, add: Sequence[str], shown: Sequence[str]
) -> tuple[Graph, list[tuple[str, str, float]]]:
    """Return what features add to a graph file that doesn't have them.

    Args:
        prompt: A prompt, with or without a graph.
        add: Ids of active features.
        shown: Ids of the file's nodes.

    Returns:
        A graph without edges, of the features and targets among all these, and the links from and to the added ones: source,
        target and direct effect.

    Raises:
        UnsuitableValue: A feature isn't active on the prompt, or a node shown is a direction, whose vector isn't known.
    """
    n_layers, n_vocab = prompt.engine.n_layers, prompt.model.model.shape.d_vocab
    for name in shown:
        parts = name.split("_")
        if parts[0] == str(n_layers + 1) and parts[1].isdigit() and int(parts[1]) >= n_vocab:
            raise UnsuitableValue(
                f"{name} is a direction, which graph files don't contain",
                "circuit-tracer expand the raw graph",
            )
    asked = with_nodes(prompt, [*add, *shown])
    graph, names = asked.graph, asked.graph.node_ids()
    new = [node_of(graph, name) for name in dict.fromkeys(add)]
    kept, fresh = {*shown, *add}, set(new)
    links = [
        (names[source], names[target], weight)
        for target, row in _rows_over_nodes(asked, new)
        for source, weight in row
        if names[source] in kept
    ]
    layout = graph.layout
    old = [n for n in (*range(layout.n_features), *range(layout.logit_offset, len(names))) if n not in fresh]
    effects = asked.engine.push(asked.source_columns(new), asked.targets(old)).cpu().float()
    for row, column in effects.nonzero().tolist():
        links.append((names[new[column]], names[old[row]], float(effects[row, column])))
    return graph, links


def _rows_over_nodes(
    prompt: FrozenPrompt, nodes: Sequence[int]
) -> Iterator[tuple[int, list[tuple[int, float]]]]:
    """Yield features with their inputs among a prompt's nodes, as `(source, weight)`."""
    targets, of_column = prompt.targets(nodes), kept_nodes(prompt, prompt.graph.selected_features)
    order = torch.argsort(targets.layers, descending=True, stable=True)
    for part in order.split(ROWS_AT_ONCE):
        rows = prompt.engine.rows(targets.select(part)).cpu().float()
        sources = of_column[: rows.shape[1]]
        for place, row in zip(part.tolist(), rows, strict=True):
            there = ((sources >= 0) & (row != 0)).nonzero().flatten()
            yield nodes[place], list(zip(sources[there].tolist(), row[there].tolist(), strict=True))


class Expander:
    """A graph and its model, for finding and adding nodes that the graph leaves out.

    Args:
        graph: A raw graph.
        model: The model and transcoders that it was made with.

    Raises:
        UsageError: The graph is pruned.
        ModelMismatch: The graph was made with something else.
        UnsupportedArchitecture: The family has no closed form.
    """

    def __init__(self, graph: Graph, model: ReplacementModel) -> None:
        if graph.pruning is not None:
            raise UsageError("a pruned graph can't be expanded", "expand the raw graph, then prune it again")
        self.graph = graph
        self.prompt: FrozenPrompt = freeze(graph, model)
        kept = torch.zeros(len(graph.active_features), dtype=torch.bool)
        kept[graph.selected_features.cpu()] = True
        kept[graph.target_features] = True
        self.is_node = kept

    def hidden_inputs(self, node: int, top: int = 10) -> HiddenInputs:
        """The strongest sources of a feature or target that aren't nodes of the graph. Raises UnsuitableValue."""
        return hidden_inputs(self.prompt, node, top)

    def find(self, features: Sequence[Feature]) -> Tensor:
        """Return the indices of features among the active ones, ascending, without those that are nodes already.

        Raises UnsuitableValue for a feature that doesn't exist or isn't active; the message gives its pre-activation.
        """
        known = {tuple(row): place for place, row in enumerate(self.graph.active_features.tolist())}
        found = set()
        for feature in features:
            place = known.get(tuple(feature))
            if place is None:
                layer, prompt = feature[0], self.prompt
                layers = prompt.frozen.layers
                inputs = layers[layer].feature_input if 0 <= layer < len(layers) else prompt.frozen.embed
                silent = prompt.tokens.zero_positions
                raise why_inactive(prompt.model.transcoders, feature, silent, inputs)
            if not bool(self.is_node[place]):
                found.add(place)
        return torch.tensor(sorted(found), dtype=torch.int64)

    @torch.no_grad()
    def added(self, new: Tensor) -> Graph:
        """Return the graph with more of the active features as nodes.

        Args:
            new: Ascending int64 indices of active features that aren't nodes.
        """
        graph = self.graph
        if not len(new):
            return graph
        selected = torch.sort(torch.cat([graph.selected_features.cpu(), new])).values
        edges = self._merged(selected, new)
        features = [graph.active_features[place].tolist() for place in new.tolist()]
        record = {
            "when_ms": int(time.time() * 1000),
            "added": [feature_id(layer, feature, position) for layer, position, feature in features],
        }
        kept = {
            key: value for key, value in graph.metadata.items() if key != HEADS
        }  # they refer to nodes by number
        metadata = {**kept, EXPANSIONS: [*graph.metadata.get(EXPANSIONS, []), record]}
        return graph.replace(
            adjacency_matrix=edges, selected_features=selected, metadata=metadata, pruning=None
        )

    def _merged(self, selected: Tensor, new: Tensor) -> Edges:
        """Return the old rows with the new columns, and the new rows."""
        graph, layout = self.graph, self.graph.layout
        n_new, n_old = len(new), graph.n_nodes
        place = torch.searchsorted(selected, graph.selected_features.cpu())
        rest = torch.arange(layout.n_features, n_old) + n_new
        moved = torch.cat([place, rest])  # old node → new node
        fresh = torch.searchsorted(selected, new)
        builder = EdgesBuilder(n_old + n_new)
        targets = [*range(layout.n_features), *range(layout.logit_offset, n_old)]
        sources = self.prompt.engine.columns.feature_column[new]
        step = max(1, min(ROWS_AT_ONCE * 8, BLOCK // max(1, n_old)))
        for start in range(0, len(targets), step):
            rows = torch.tensor(targets[start : start + step])
            values = torch.zeros(len(rows), n_old + n_new)
            old = torch.cat([graph.edges.dense_rows(row, row + 1).cpu() for row in rows.tolist()])
            values[:, moved] = old
            effects = self.prompt.engine.push(sources, self.prompt.targets(rows.tolist()))
            values[:, fresh] = effects.cpu().float()
            builder.add_rows(moved[rows], values)
        self._add_new_rows(builder, selected, new, fresh)
        return builder.build()

    def _add_new_rows(self, builder: EdgesBuilder, selected: Tensor, new: Tensor, fresh: Tensor) -> None:
        """Return rows of the new features over all nodes."""
        engine, active = self.prompt.engine, self.prompt.active
        n_active, shared = len(active), self.graph.n_nodes - self.graph.layout.n_features
        node_of = torch.full((n_active + shared,), -1, dtype=torch.int64)
        node_of[selected] = torch.arange(len(selected))
        node_of[n_active:] = torch.arange(shared) + len(selected)
        of_column = node_of[engine.columns.nodes()]
        at = self.graph.active_features[new].cpu()
        order = torch.argsort(at[:, 0], descending=True, stable=True)
        for part in order.split(ROWS_AT_ONCE):
            vectors = encoder_rows(self.prompt.model.transcoders, at[part], active.inputs).to(engine.dtype)
            rows = engine.rows(Targets(at[part, 0], at[part, 1], vectors)).cpu().float()
            nodes = of_column[: rows.shape[1]]
            values = torch.zeros(len(part), len(selected) + shared)
            values[:, nodes[nodes >= 0]] = rows[:, nodes >= 0]
            builder.add_rows(fresh[part], values)


def expand(
    graph: Graph,
    model: ReplacementModel,
    add: Sequence[Feature | Sequence[int]] = (),
    inputs_of: int | None = None,
    top: int = 10,
) -> Graph:
    """Return a raw graph with more nodes.

    Args:
        graph: A raw graph; it isn't changed.
        model: The model and transcoders that it was made with.
        add: Features `(layer, position, feature)` that are active on the prompt.
        inputs_of: Index of a node whose strongest sources that aren't nodes are added too.
        top: Number of sources to add.

    Returns:
        A new graph. Existing rows keep their exact values; scores and pruning are those of the larger graph.

    Raises:
        UsageError: The graph is pruned, or there is nothing to add.
        UnsuitableValue: A feature isn't active on the prompt.
        ModelMismatch: The graph was made with something else.
    """
    if not add and inputs_of is None:
        raise UsageError("nothing to add", "name features, or a node whose inputs to add")
    if top < 1:
        raise InvalidValue(f"top must be at least 1, not {top}")
    expander = Expander(graph, model)
    wanted: list[Any] = [tuple(feature) for feature in add]
    if inputs_of is not None:
        hidden = expander.hidden_inputs(inputs_of, top)
        wanted += [(one.layer, one.position, one.feature) for one in hidden.strongest]
    return expander.added(expander.find(wanted))
