"""Groups: deterministic, without cycles, with the influence of the graph; seeds only grow."""

from __future__ import annotations

from typing import Any

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit_tracer_cli import Graph, group_nodes
from circuit_tracer_cli.errors import InvalidValue, UnsuitableValue
from circuit_tracer_cli.graph.grouping import Circuit, circuit_of, dendrogram, partition
from circuit_tracer_cli.graph.groups import adjusted_rand, group_circuit, name_of, quotient
from tests.graph.builders import random_graph


def random_circuit(seed: int, n_features: int = 14, n_pos: int = 3) -> Circuit:
    """Features of four layers at random positions, a token each, one logit; edges go up and never back."""
    draw = np.random.default_rng(seed)
    layers, positions = np.sort(draw.integers(0, 4, n_features)), draw.integers(0, n_pos, n_features)
    features = draw.integers(0, 6, n_features)
    kinds = ["feature"] * n_features + ["token"] * n_pos + ["logit"]
    layer = np.concatenate([layers, np.full(n_pos, -1), [4]])
    position = np.concatenate([positions, np.arange(n_pos), [n_pos - 1]])
    A = draw.normal(size=(len(kinds), len(kinds))) * (draw.random((len(kinds), len(kinds))) < 0.6)
    allowed = (layer[None, :] < layer[:, None]) & (position[None, :] <= position[:, None])
    w = np.zeros(len(kinds))
    w[-1] = 0.9
    names = [f"{kind}{at:02d}" for at, kind in enumerate(kinds)]
    order = np.argsort(names)
    return Circuit(
        [names[at] for at in order],
        [kinds[at] for at in order],  # type: ignore[misc]
        layer[order],
        position[order],
        np.concatenate([features, np.full(n_pos + 1, -1)])[order],
        np.where(allowed, A, 0)[np.ix_(order, order)],
        w[order],
    )


def has_cycle(circuit: Circuit, groups: list[tuple[int, ...]]) -> bool:
    """By another library, on the contracted graph."""
    of = {node: f"g{at}" for at, nodes in enumerate(groups) for node in nodes}
    contracted: networkx.DiGraph[Any] = networkx.DiGraph()
    for target, source in zip(*circuit.A.nonzero(), strict=True):
        a, b = of.get(int(source), int(source)), of.get(int(target), int(target))
        if a != b:
            contracted.add_edge(a, b)
    return not networkx.is_directed_acyclic_graph(contracted)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 0.35, 0.7]), st.booleans())
def test_no_cycle_leads_through_the_groups(seed: int, level: float, across: bool) -> None:
    circuit = random_circuit(seed)
    found = partition(circuit, level, across_positions=across)
    assert found.acyclic
    assert not has_cycle(circuit, found.groups)


def test_without_the_test_of_paths_there_would_be_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    from circuit_tracer_cli.graph import grouping

    monkeypatch.setattr(grouping._State, "_leaves_no_cycle", lambda *_: True)
    circuits = [random_circuit(seed) for seed in range(40)]
    assert any(has_cycle(circuit, partition(circuit, 0.0).groups) for circuit in circuits)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_influence_of_the_groups_is_that_of_their_members(seed: int, level: float) -> None:
    circuit = random_circuit(seed)
    q = quotient(circuit, partition(circuit, level).groups)
    np.testing.assert_allclose((q.w + q.influence) @ q.shares, q.influence, atol=1e-12)
    np.testing.assert_allclose(q.influence.sum(), circuit.influence.sum())
    np.testing.assert_allclose(q.weights.sum(), circuit.A.sum())
    np.testing.assert_allclose(q.positive + q.negative, q.weights, atol=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_a_cut_of_the_dendrogram_is_the_grouping_at_that_level(seed: int, level: float) -> None:
    circuit = random_circuit(seed)
    parts = {node: {node} for node in range(len(circuit.ids))}
    for step in dendrogram(circuit):
        if step.height < level:
            break
        joined = parts[step.first] | parts[step.second]
        parts.update(dict.fromkeys(joined, joined))
    cut = sorted({tuple(sorted(part)) for part in parts.values() if len(part) > 1})
    assert cut == partition(circuit, level).groups


def test_the_order_of_the_features_in_a_graph_does_not_matter() -> None:
    graph = random_graph(5, n_layers=3, n_pos=3, n_features=4)
    first = group_nodes(graph, 0.1, across_positions=True)
    again = group_nodes(graph.prune(), 0.1, across_positions=True)
    assert [group.nodes for group in first.groups] == [group.nodes for group in again.groups]
    assert first.to_dict() == again.to_dict()


def test_seeds_only_grow_and_stay_apart() -> None:
    circuit = random_circuit(3)
    before = partition(circuit, 0.0).groups[0]
    seeds = [before[:1], before[1:2]]
    found = partition(circuit, 0.0, seeds=seeds)
    assert found.n_seeds == 2
    assert set(seeds[0]) <= set(found.groups[0])
    assert set(seeds[1]) <= set(found.groups[1])
    assert not set(found.groups[0]) & set(found.groups[1])


def test_a_seed_on_a_cycle_is_told_and_nothing_else_joins_it() -> None:
    circuit = random_circuit(1)
    graph: networkx.DiGraph[int] = networkx.from_numpy_array(circuit.A.T, create_using=networkx.DiGraph)
    source, target = next(
        (a, b)
        for a in graph
        for b in networkx.descendants(graph, a)
        if any(c in networkx.ancestors(graph, b) for c in networkx.descendants(graph, a))
    )
    assert not partition(circuit, 0.35, seeds=[(source, target)]).acyclic


@pytest.mark.parametrize("level", [-0.1, 1.5, float("nan")])
def test_a_level_outside_the_scale_is_refused(level: float) -> None:
    with pytest.raises(InvalidValue, match="level"):
        partition(random_circuit(0), level)


def test_a_node_in_two_groups_is_refused() -> None:
    with pytest.raises(InvalidValue, match="two groups"):
        partition(random_circuit(0), seeds=[(0, 1), (1, 2)])


def test_too_many_nodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuit_tracer_cli.graph.grouping.MOST_NODES", 3)
    with pytest.raises(UnsuitableValue, match="too many to group"):
        circuit_of(random_graph())


def test_opposed_features_stay_apart() -> None:
    """A promoter and a suppressor with the same input: equal `in`, opposite `out`."""
    ids, kinds = ["0_1_0", "0_2_0", "3_9_0", "E_1_0"], ["feature", "feature", "logit", "token"]
    A = np.array([[0, 0, 0, 1.0], [0, 0, 0, 1.0], [1.0, -1.0, 0, 0], [0, 0, 0, 0]])
    at = np.zeros(4, dtype=np.int64)
    circuit = Circuit(ids, kinds, at, at, np.array([1, 2, -1, -1]), A, np.array([0, 0, 1.0, 0]))  # type: ignore[arg-type]
    assert partition(circuit, 0.0).groups == []
    alike = Circuit(ids, kinds, at, at, np.array([1, 2, -1, -1]), np.abs(A), circuit.w)  # type: ignore[arg-type]
    assert partition(alike, 1.0).groups == [(0, 1)]
    assert name_of(alike, (0, 1), {"0_1_0": "Dallas → Texas", "3_9_0": " Austin"}, ["a"]) == "say Texas"
    assert name_of(alike, (0, 1), {"3_9_0": " Austin"}, ["a"]) == "say Austin"


def test_a_feature_at_two_positions_joins_only_across_positions() -> None:
    ids = ["0_1_0", "0_1_1", "3_9_1", "E_1_0"]
    kinds: Any = ["feature", "feature", "logit", "token"]
    A = np.array([[0, 0, 0, 1.0], [0, 0, 0, 1.0], [1.0, 1.0, 0, 0], [0, 0, 0, 0]])
    position = np.array([0, 1, 1, 0])
    circuit = Circuit(
        ids, kinds, position * 0, position, np.array([1, 1, -1, -1]), A, np.array([0, 0, 1.0, 0])
    )
    assert partition(circuit, 0.0).groups == []
    assert partition(circuit, 0.0, across_positions=True).groups == [(0, 1)]


def test_adjusted_rand_index() -> None:
    a, b = np.array([0, 0, 1, 1]), np.array([5, 5, 2, 2])
    assert adjusted_rand(a, b) == 1
    assert adjusted_rand(a, np.array([0, 1, 0, 1])) == pytest.approx(-0.5)


def test_numbers_and_names_of_the_demo(demo_graph: Graph) -> None:
    found = group_nodes(demo_graph, 0.6)
    assert [group.name for group in found.groups][:2] == ["Texas, at Dallas", "say Austin"]
    assert found.acyclic
    assert 0.9 < (found.numbers["coverage"] or 0) <= 1
    assert all(0 <= (group.numbers["stability"] or 0) <= 1 for group in found.groups)
    kept = [["Lone Star", *found.groups[0].nodes[:2]]]
    again = group_nodes(demo_graph, 0.6, keep=kept)
    lone = next(group for group in again.groups if group.kept)
    assert lone.name == "Lone Star"
    assert set(lone.nodes) >= set(kept[0][1:])
    assert group_circuit(
        circuit_of(demo_graph), 1.0, across_positions=False, keep=(), labels={}, tokens=["x"] * 20
    ).numbers["groups"] in (0, 1)


@pytest.fixture(scope="module")
def demo_graph() -> Graph:
    from circuit_tracer_cli import ReplacementModel, attribute

    model = ReplacementModel.from_pretrained("demo", "demo", backend="transformers")
    return attribute("The capital of the state containing Dallas is", model)
