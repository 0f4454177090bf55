"""The central contract: with everything non-linear pinned, one more of a source changes its targets by its adjacency column."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.interventions.passes import Push, Recording
from circuit_tracer_cli.interventions.run import Constraints
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.validation.subject import Subject
from tests.builders import FAMILIES, PROMPT, on_both_backends, readable, replacement
from tests.cases import some

ACTIVATIONS = ("relu", "jumprelu", "topk")


def cases() -> list[tuple[str, str, str, bool, str, str]]:
    """Every family with both kinds, and in turn every activation, read and write point, with and without a skip."""
    found = []
    for number, family in enumerate(FAMILIES):
        reads = readable(family)
        for turn, kind in enumerate(("plt", "clt")):
            write = ("hook_mlp_out", "mlp.hook_out")[(number + turn) % 2]
            skip = bool((number // 2 + turn) % 2)
            found.append(
                (
                    family,
                    kind,
                    ACTIVATIONS[(number + turn) % 3],
                    skip,
                    reads[(number + turn) % len(reads)],
                    write,
                )
            )
    return found


class Measured:
    """A graph, and what pre-activations and demeaned logits do on its model."""

    def __init__(self, model: ReplacementModel) -> None:
        self.model = model
        self.graph: Graph = attribute(list(PROMPT), model)
        self.subject = Subject(self.graph, model)
        self.everything = range(model.transcoders.n_layers)
        self.base = self.values(
            *model.feature_intervention(list(PROMPT), [], apply_activation_function=False)
        )

    def values(self, logits: Tensor, activations: Tensor | None) -> tuple[Tensor, Tensor]:
        assert activations is not None
        layer, position, feature = self.subject.features.unbind(1)
        last = logits[0, -1]
        return activations[layer, position, feature], (last - last.mean())[self.graph.logit_token_ids]

    def check(self, node: int, logits: Tensor, activations: Tensor | None, atol: float, rtol: float) -> None:
        """Compare with a column."""
        column = self.graph.adjacency_matrix[:, node]
        acts, targets = self.values(logits, activations)
        torch.testing.assert_close(acts, self.base[0] + column[: len(acts)], atol=atol, rtol=rtol)
        expected = self.base[1] + column[self.graph.layout.logit_offset :]
        torch.testing.assert_close(targets, expected, atol=1e-5, rtol=1e-3)

    def double(self, node: int) -> None:
        """A feature at twice its activation, all layers constrained."""
        edit = (*self.subject.features[node].tolist(), 2 * float(self.graph.activation_values[node]))
        edits, kwargs = [edit], {"constrained_layers": self.everything, "apply_activation_function": False}
        self.check(
            node, *self.model.feature_intervention(list(PROMPT), edits, **kwargs), atol=5e-5, rtol=1e-5
        )

    def add(self, node: int) -> None:
        """An error or token vector once more."""
        constraints = Constraints(constrained_layers=self.everything)
        result = self.subject.run((), constraints, Recording(False), (self.subject.push(node),))
        self.check(node, result.logits[None], result.activations, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("backend_name", "family", "kind", "activation", "skip", "read", "write"),
    some(on_both_backends(cases()), 2),
)
def test_columns_are_measured_effects(
    backend_name: str, family: str, kind: str, activation: str, skip: bool, read: str, write: str
) -> None:
    model = replacement(family, kind, activation, skip, read=read, write=write, backend_name=backend_name)
    with model.zero_softcap():
        measured = Measured(model)
        layout, subject = measured.graph.layout, measured.subject
        features = subject.nodes("feature")
        for node in features[:: max(1, len(features) // 4)]:
            measured.double(node)
        errors = subject.nodes("error")
        for node in errors[:: len(errors) // 3]:
            measured.add(node)
        for position in (0, 1, layout.n_pos - 1):
            measured.add(layout.token_offset + position)


def test_a_column_that_is_wrong_is_noticed() -> None:
    """The check above can fail."""
    measured = Measured(replacement("llama", "plt"))
    node = measured.graph.layout.token_offset + 2
    push = measured.subject.push(node)
    twice = Push(push.layer, push.position, 1.01 * push.vector)
    result = measured.subject.run(
        (), Constraints(constrained_layers=measured.everything), Recording(False), (twice,)
    )
    with pytest.raises(AssertionError):
        measured.check(node, result.logits[None], result.activations, atol=5e-4, rtol=1e-5)
