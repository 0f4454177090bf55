"""A graph together with the model that it was made from: the same prompt, features, errors and token vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from circuit_tracer_cli.attention.prompt import check_sizes
from circuit_tracer_cli.backends.base import FrozenPass
from circuit_tracer_cli.errors import ModelMismatch, UnsuitableValue
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.interventions.passes import Push, Recording
from circuit_tracer_cli.interventions.run import Constraints, PassResult
from circuit_tracer_cli.interventions.spec import Intervention, Scaled
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.transcoders.components import active_features, reconstruct


class Subject:
    """A graph and its model.

    Attributes:
        features: int64 `(m, 3)`: layer, position, feature of the nodes that are features.
        kept: Indices of the nodes kept by pruning; all of them for a raw graph.
        active: What is active on the prompt.
        silent: Positions at which errors are zero by definition.
        n_unknown: Number of the graph's features that aren't active in this model on this prompt.

    Raises:
        ModelMismatch: The graph can't have been made with this model and these transcoders.
    """

    def __init__(self, graph: Graph, model: ReplacementModel) -> None:
        self.graph, self.model = graph, model
        if graph.root is not None:
            raise UnsuitableValue(
                f"the graph explains {graph.node_id(graph.root)}, but a validation measures effects on the targets",
                "validate the graph that `attribute` wrote",
            )
        if (earlier := graph.earlier_target()) is not None:
            raise UnsuitableValue(
                f"{earlier} isn't the next token, and only effects on the next token can be measured",
                "validate a graph of the prompt up to there",
            )
        check_sizes(graph, model)
        self._check_set()
        self.tokens = model.tokenize(graph.input_tokens)
        if self.tokens.ids.tolist() != graph.input_tokens.tolist():
            raise ModelMismatch("the model uses another first token than the graph's prompt")
        self.frozen: FrozenPass = model.interventions.unmodified(self.tokens).frozen
        self.features = graph.active_features[graph.selected_features].cpu()
        mask = graph.pruning.node_mask if graph.pruning else torch.ones(graph.n_nodes, dtype=torch.bool)
        self.kept = mask.cpu().nonzero().squeeze(1)
        inputs = [layer.feature_input for layer in self.frozen.layers]
        self.active = active = active_features(model.transcoders, inputs, self.tokens.zero_positions)
        self.n_unknown = self._count_unknown(active.indices.cpu())
        outputs = reconstruct(model.transcoders, active, inputs)
        self.errors = [
            at.feature_output.to(out) - out for at, out in zip(self.frozen.layers, outputs, strict=True)
        ]
        self.silent = set() if model.transcoders.of_model else set(self.tokens.zero_positions)
        for error in self.errors:
            error[list(self.silent)] = 0

    def _check_set(self) -> None:
        transcoders, features = self.model.transcoders, self.graph.active_features[:, 2]
        if len(features) and int(features.max()) >= transcoders.d_transcoder:
            raise ModelMismatch(
                f"the graph has feature {int(features.max())}, but these transcoders have {transcoders.d_transcoder} per layer",
                hint="use the graph's own set with --transcoder-set",
            )

    def _count_unknown(self, active: Tensor) -> int:
        """Return how many of the graph's features aren't active here. Raises ModelMismatch if most aren't."""
        known = set(map(tuple, active.tolist()))
        unknown = sum(tuple(feature) not in known for feature in self.features.tolist())
        if 2 * unknown > len(self.features):
            raise ModelMismatch(
                f"{unknown} of the graph's {len(self.features)} features aren't active in this model on its prompt",
                hint="use the graph's own model and set with --model and --transcoder-set",
            )
        return unknown

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.graph.cfg.n_layers

    def nodes(self, kind: str) -> list[int]:
        """The kept nodes of a kind (`feature`, `error`, `token`), without those that can't have an effect by definition."""
        layout = self.graph.layout
        bounds = {
            "feature": (0, layout.error_offset),
            "error": (layout.error_offset, layout.token_offset),
            "token": (layout.token_offset, layout.logit_offset),
        }
        first, last = bounds[kind]
        found = self.kept[(self.kept >= first) & (self.kept < last)].tolist()
        if kind == "error":
            return [node for node in found if layout.error_place(node)[1] not in self.silent]
        return [int(node) for node in found]

    def edit(self, node: int, factor: float) -> Intervention:
        """The edit that multiplies the activation of a feature node."""
        layer, position, feature = self.features[node].tolist()
        return Intervention(layer, position, feature, Scaled(factor))

    def push(self, node: int) -> Push:
        """An error or token node's vector, to be added once more."""
        layout = self.graph.layout
        if layout.kind(node) == "token":
            position = layout.token_position(node)
            return Push(None, position, self.frozen.embed[position])
        layer, position = layout.error_place(node)
        return Push(layer, position, self.errors[layer][position])

    def run(
        self,
        edits: Sequence[Intervention],
        constraints: Constraints,
        recording: Recording | None = None,
        pushes: Sequence[Push] = (),
    ) -> PassResult:
        """Run one pass over the graph's prompt; return the last position's logits."""
        return self.model.interventions.run(
            self.tokens, edits, constraints, recording, pushes, last_logits=True
        )

    def at_features(self, values: Tensor) -> Tensor:
        """The entries `(m)` of `values (layer, pos, feature)` at the graph's features, in float64 on the CPU."""
        layer, position, feature = self.features.to(values.device).unbind(1)
        return values[layer, position, feature].double().cpu()
