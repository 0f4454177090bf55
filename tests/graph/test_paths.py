from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import compute_node_influence, normalize_matrix
from circuit_tracer_cli.graph.paths import strongest_nodes, strongest_paths
from circuit_tracer_cli.graph.prune import pruned_graph
from tests.graph.builders import config, graphs, worked_example


def all_paths(graph: Graph, sources: set[int], target: int) -> list[tuple[float, tuple[int, ...]]]:
    """Every path by enumeration, with its strength."""
    normalized = normalize_matrix(graph.adjacency_matrix.double())
    found = []

    def walk(node: int, strength: float, tail: tuple[int, ...]) -> None:
        if node in sources:
            found.append((strength, tail))
        for source in normalized[node].nonzero().flatten().tolist():
            walk(source, strength * float(normalized[node, source]), (source, *tail))

    walk(target, 1.0, (target,))
    return found


@settings(max_examples=30)
@given(graphs(), st.integers(1, 6))
def test_equals_enumeration(graph: Graph, k: int) -> None:
    layout = graph.layout
    tokens = set(range(layout.token_offset, layout.logit_offset))
    every = []
    for target in range(layout.logit_offset, layout.n_nodes):
        weight = float(graph.logit_weights[target])
        paths = all_paths(graph, tokens, target)
        every += [strength * weight for strength, _ in paths]
        found = strongest_paths(graph, k, target=target)
        expected = sorted((strength for strength, _ in paths), reverse=True)[:k]
        assert [path.strength for path in found] == pytest.approx(expected, rel=1e-6)
        assert {path.nodes for path in found} <= {nodes for _, nodes in paths}
        assert len({path.nodes for path in found}) == len(found)
    weighted = [
        path.strength * float(graph.logit_weights[path.nodes[-1]]) for path in strongest_paths(graph, k)
    ]
    assert weighted == pytest.approx(sorted(every, reverse=True)[:k], rel=1e-6)


@settings(max_examples=30)
@given(graphs())
def test_path_says_what_its_edges_are(graph: Graph) -> None:
    matrix = graph.adjacency_matrix
    for path in strongest_paths(graph, 3):
        pairs = zip(path.nodes[1:], path.nodes[:-1], strict=True)
        assert path.weights == pytest.approx([float(matrix[target, source]) for target, source in pairs])
        assert path.sign == math.prod(1 if weight > 0 else -1 for weight in path.weights)


def test_worked_example() -> None:
    best = {path.nodes: path for path in strongest_paths(worked_example(), k=3)}
    assert set(best) == {(7, 8), (7, 0, 1, 8), (7, 0, 8)}
    assert best[7, 8].strength == pytest.approx(0.2)
    assert best[7, 0, 1, 8].strength == pytest.approx(2 / 3 * 0.75 * 0.4)
    assert best[7, 0, 1, 8].weights == (2.0, 3.0, 2.0)
    through_token = strongest_paths(worked_example(), k=9, source=6)
    assert [path.nodes for path in through_token] == [(6, 0, 1, 8), (6, 0, 8)]
    assert {path.sign for path in through_token} == {-1}
    assert strongest_paths(worked_example(), source=3, target=1)[0].nodes == (3, 1)


@pytest.mark.parametrize("arguments", [{"k": 0}, {"source": 9}, {"target": -1}])
def test_bad_arguments(arguments: dict[str, int]) -> None:
    with pytest.raises(InvalidValue):
        strongest_paths(worked_example(), **arguments)


def test_cycle_is_refused() -> None:
    matrix = torch.zeros(9, 9)
    matrix[0, 1] = matrix[1, 0] = matrix[8, 0] = 1
    graph = worked_example()
    graph.adjacency_matrix = matrix
    with pytest.raises(InvalidValue, match="cycle"):
        strongest_paths(graph)


def test_long_chain() -> None:
    n_layers = 1500
    matrix = torch.zeros(2 * n_layers + 2, 2 * n_layers + 2)
    token = 2 * n_layers
    matrix[0, token] = matrix[token + 1, n_layers - 1] = 1
    for layer in range(1, n_layers):
        matrix[layer, layer - 1] = 1
    graph = Graph(
        "x",
        torch.tensor([1]),
        torch.stack([torch.arange(n_layers), torch.zeros(n_layers), torch.zeros(n_layers)], 1).long(),
        matrix,
        config(n_layers),
        torch.arange(n_layers),
        torch.ones(n_layers),
        [("y", 1)],  # type: ignore[list-item]
        torch.tensor([1.0]),
    )
    assert len(strongest_paths(graph)[0].nodes) == n_layers + 2


@settings(max_examples=30)
@given(graphs())
def test_strongest_nodes_are_ordered_by_influence(graph: Graph) -> None:
    influence = compute_node_influence(graph.edges, graph.logit_weights.double())
    found = strongest_nodes(graph, 4)
    inner = influence[: graph.layout.token_offset]
    expected = inner[inner > 0].sort(descending=True).values[:4] / influence.sum()
    assert [share for _, share in found] == pytest.approx(expected.tolist(), rel=1e-6)


def test_strongest_nodes_of_a_pruned_graph_are_kept_ones() -> None:
    pruned = pruned_graph(worked_example())
    assert [node for node, _ in strongest_nodes(pruned)] == [0, 1]
