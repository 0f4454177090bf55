"""More nodes in a graph: the same edges as if they had been traced at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.errors import ModelMismatch, UnsuitableValue, UsageError
from circuit_tracer_cli.expansion import EXPANSIONS, Expander, expand
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.prune import pruned_graph
from tests.attention.prompts import cases
from tests.builders import PROMPT, on_both_backends, replacement

CASES = ("backend_name", "family", "kind", "skip", "read", "write")


def traced(
    backend_name: str, family: str, kind: str, skip: bool, read: str, write: str, cap: int | None
) -> tuple[Graph, Any]:
    """A capped graph and its model; without a cap all active features are nodes."""
    model = replacement(family, kind, "relu", skip, read=read, write=write, backend_name=backend_name)
    graph = attribute(
        list(PROMPT), model, max_n_logits=3, max_feature_nodes=cap, batch_size=4, update_interval=1
    )
    return graph, model


def left_out(graph: Graph) -> list[tuple[int, int, int]]:
    """Layer, position, feature of the active features that aren't nodes."""
    nodes = set(graph.selected_features.tolist())
    rows = graph.active_features.tolist()
    return [(row[0], row[1], row[2]) for place, row in enumerate(rows) if place not in nodes]


def assert_equal_edges(a: Graph, b: Graph) -> None:
    """The same nodes, edges equal to rounding of the largest of each row."""
    assert torch.equal(a.selected_features, b.selected_features)
    assert a.node_ids() == b.node_ids()
    ours, theirs = a.adjacency_matrix, b.adjacency_matrix
    size = theirs.abs().amax(dim=1, keepdim=True).clamp_min(1e-3)
    assert float(((ours - theirs).abs() / size).max()) < 1e-5


@pytest.mark.parametrize(CASES, on_both_backends(cases()))
def test_adding_everything_gives_the_graph_without_a_cap(
    backend_name: str, family: str, kind: str, skip: bool, read: str, write: str
) -> None:
    capped, model = traced(backend_name, family, kind, skip, read, write, 12)
    whole, _ = traced(backend_name, family, kind, skip, read, write, None)
    missing = left_out(capped)
    assert missing
    assert_equal_edges(expand(capped, model, missing), whole)


@pytest.fixture(scope="module")
def capped() -> tuple[Graph, Any]:
    """A small graph with a cap, and its model."""
    return traced("transformerlens", "llama", "plt", False, "mlp.hook_in", "hook_mlp_out", 8)


def test_the_order_of_additions_does_not_matter(capped: tuple[Graph, Any]) -> None:
    graph, model = capped
    first, second, *_ = left_out(graph)
    together = expand(graph, model, [first, second])
    assert_equal_edges(expand(expand(graph, model, [second]), model, [first]), together)
    assert len(together.selected_features) == len(graph.selected_features) + 2


def test_rows_that_were_there_keep_their_bits(capped: tuple[Graph, Any]) -> None:
    graph, model = capped
    larger = expand(graph, model, left_out(graph)[:3])
    place = {name: i for i, name in enumerate(larger.node_ids())}
    moved = torch.tensor([place[name] for name in graph.node_ids()])
    assert torch.equal(larger.adjacency_matrix[moved][:, moved], graph.adjacency_matrix)
    (record,) = larger.metadata[EXPANSIONS]
    assert len(record["added"]) == 3
    assert EXPANSIONS not in graph.metadata


def test_hidden_inputs_are_what_the_cap_left_out(capped: tuple[Graph, Any]) -> None:
    graph, model = capped
    target = graph.layout.logit_offset
    hidden = Expander(graph, model).hidden_inputs(target, top=5)
    whole, _ = traced("transformerlens", "llama", "plt", False, "mlp.hook_in", "hook_mlp_out", None)
    row = whole.adjacency_matrix[whole.layout.logit_offset].double()
    names = whole.node_ids()
    nodes = set(graph.node_ids())
    effects = {name: float(row[i]) for i, name in enumerate(names) if name not in nodes and row[i] != 0}
    ranked = sorted(effects, key=lambda name: -abs(effects[name]))[:5]
    assert [one.node_id for one in hidden.strongest] == ranked
    assert [one.weight for one in hidden.strongest] == pytest.approx([effects[n] for n in ranked], rel=1e-4)
    assert hidden.count == len(effects)
    expected = sum(map(abs, effects.values())) / float(row.abs().sum())
    assert hidden.share == pytest.approx(expected, rel=1e-4)
    assert hidden.total == pytest.approx(float(row.sum()), rel=1e-4)
    larger = expand(graph, model, inputs_of=target, top=5)
    assert set(larger.node_ids()) - nodes == set(ranked)


def test_nodes_that_are_there_are_passed_over(capped: tuple[Graph, Any]) -> None:
    graph, model = capped
    layer, position, feature = graph.active_features[graph.selected_features[0]].tolist()
    assert expand(graph, model, [(layer, position, feature)]) is graph


def test_what_cannot_be_added_is_named(capped: tuple[Graph, Any]) -> None:
    graph, model = capped
    active = {tuple(row) for row in graph.active_features.tolist()}
    idle = next(f for f in range(100) if (1, 2, f) not in active)
    for feature, message in (
        ((1, 2, idle), "isn't active on this prompt: its pre-activation is"),
        ((99, 2, 0), "there is no layer 99"),
        ((1, 99, 0), "there is no position 99"),
        ((1, 2, 10**6), "there is no feature 1000000"),
    ):
        with pytest.raises(UnsuitableValue, match=message):
            expand(graph, model, [feature])
    with pytest.raises(UsageError, match="nothing to add"):
        expand(graph, model)
    with pytest.raises(UsageError, match="pruned graph"):
        expand(pruned_graph(graph), model, [(1, 2, idle)])


def test_another_model_is_refused(capped: tuple[Graph, Any]) -> None:
    graph, model = capped
    other = Graph(
        **{
            name: getattr(graph, name)
            for name in ("input_string", "input_tokens", "active_features", "cfg", "selected_features")
        },
        adjacency_matrix=graph.edges,
        activation_values=graph.activation_values * 1.001,
        logit_targets=graph.logit_targets,
        logit_probabilities=graph.logit_probabilities,
    )
    with pytest.raises(ModelMismatch, match="other weights or another dtype"):
        expand(other, model, left_out(graph)[:1])
