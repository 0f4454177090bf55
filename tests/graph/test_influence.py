from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit_tracer_cli.graph.edges import Edges
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import (
    compute_edge_influence,
    compute_influence,
    compute_node_influence,
    normalize_matrix,
    topological_waves,
)
from tests.graph.builders import golden_case, golden_names, graphs, random_graph, worked_example


def as_stored(matrix: torch.Tensor, sparse: bool) -> torch.Tensor | Edges:
    return Edges.from_dense(matrix) if sparse else matrix


def dense(value: torch.Tensor | Edges) -> torch.Tensor:
    return value.to_dense() if isinstance(value, Edges) else value


def twelve_nodes() -> tuple[torch.Tensor, torch.Tensor]:
    matrix = torch.zeros(12, 12)
    matrix[11, [1, 3, 6, 8]] = 1
    matrix[3, [0, 1, 6]] = 1
    matrix[1, [9, 10]] = 1
    matrix[0, 9] = 1
    weights = torch.zeros(12)
    weights[11] = 1
    return matrix, weights


@pytest.mark.parametrize("sparse", [False, True])
def test_reference_example(sparse: bool) -> None:
    matrix, weights = twelve_nodes()
    influence = compute_node_influence(as_stored(matrix, sparse), weights)
    expected = torch.tensor([1 / 12, 1 / 3, 0, 1 / 4, 0, 0, 1 / 3, 0, 1 / 4, 1 / 4, 1 / 6, 0])
    torch.testing.assert_close(influence, expected)
    matrix[0, 9] = matrix[3, 0] = 0
    stored = as_stored(matrix, sparse)
    scores = compute_edge_influence(stored, weights)
    if isinstance(stored, Edges):
        scores = Edges(stored.indptr, stored.indices, scores).to_dense()
    wanted = torch.zeros(12, 12)
    wanted[11, [1, 3, 6, 8]] = 1 / 4
    wanted[3, [1, 6]] = 1 / 8
    wanted[1, [9, 10]] = 3 / 16
    torch.testing.assert_close(scores, wanted)


@pytest.mark.parametrize("sparse", [False, True])
def test_worked_example(sparse: bool) -> None:
    graph = worked_example()
    stored = as_stored(graph.adjacency_matrix, sparse)
    influence = compute_node_influence(stored, graph.logit_weights)
    torch.testing.assert_close(influence, torch.tensor([0.30, 0.24, 0, 0.09, 0, 0.06, 0.10, 0.35, 0]))
    normalized = dense(normalize_matrix(stored))
    torch.testing.assert_close(normalized[8], torch.tensor([0.2, 0.4, 0, 0.1, 0, 0.1, 0, 0.2, 0]))
    assert normalized[2:8].abs().sum() == 0


@settings(max_examples=30)
@given(graphs())
def test_sparse_equals_dense(graph: Graph) -> None:
    matrix, weights = graph.adjacency_matrix.double(), graph.logit_weights.double()
    torch.testing.assert_close(
        compute_node_influence(graph.edges, weights),
        compute_node_influence(matrix, weights),
        rtol=1e-10,
        atol=1e-12,
    )
    torch.testing.assert_close(dense(normalize_matrix(graph.edges)), normalize_matrix(matrix).float())
    scores = Edges(
        graph.edges.indptr, graph.edges.indices, compute_edge_influence(graph.edges, weights)
    ).to_dense()
    torch.testing.assert_close(scores, compute_edge_influence(matrix, weights).float())


@settings(max_examples=30)
@given(graphs())
def test_closed_form(graph: Graph) -> None:
    normalized, weights = normalize_matrix(graph.adjacency_matrix.double()), graph.logit_weights.double()
    identity = torch.eye(graph.n_nodes, dtype=torch.float64)
    expected = weights @ (torch.linalg.inv(identity - normalized) - identity)
    torch.testing.assert_close(compute_node_influence(graph.edges, weights), expected, rtol=1e-8, atol=1e-10)


@given(st.integers(0, 200))
def test_nodes_in_any_order(seed: int) -> None:
    """A matrix whose numbering isn't topological has the same influence, node for node."""
    graph = random_graph(seed, n_layers=3)
    order = torch.randperm(graph.n_nodes, generator=torch.Generator().manual_seed(seed))
    shuffled = Edges.from_dense(graph.adjacency_matrix[order][:, order])
    weights = graph.logit_weights.double()
    expected = compute_node_influence(graph.edges, weights)[order]
    torch.testing.assert_close(
        compute_node_influence(shuffled, weights[order]), expected, rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("sparse", [False, True])
def test_signed_influence_is_not_made_absolute(sparse: bool) -> None:
    matrix = torch.zeros(3, 3)
    matrix[1, 0], matrix[2, 1] = -0.5, 0.5
    influence = compute_influence(as_stored(matrix, sparse), torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(influence, torch.tensor([-0.25, 0.5, 0.0]))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("max_iter", [7, 1000])
def test_cycle_ends_with_the_number_of_iterations(sparse: bool, max_iter: int) -> None:
    matrix = torch.zeros(3, 3)
    matrix[0, 1] = matrix[1, 0] = matrix[2, 0] = 1
    with pytest.raises(RuntimeError, match=f"after {max_iter} iterations"):
        compute_influence(as_stored(matrix, sparse), torch.tensor([0.0, 0.0, 1.0]), max_iter=max_iter)


def test_waves_follow_the_layers() -> None:
    graph = random_graph(n_layers=4, density=1.0)
    waves = topological_waves(graph.edges)
    assert waves is not None
    assert len(waves) <= 5
    assert sorted(row for first, last in waves for row in range(first, last)) == list(range(graph.n_nodes))
    matrix = graph.adjacency_matrix
    has_row = (matrix != 0).any(1)
    for first, last in waves:
        assert not (matrix[first:last, first:] != 0)[:, has_row[first:]].any()


def test_waves_refuse_an_order_that_is_not_topological() -> None:
    matrix = torch.zeros(3, 3)
    matrix[0, 1], matrix[1, 2] = 1, 1
    assert topological_waves(Edges.from_dense(matrix)) is None


@pytest.mark.parametrize("name", golden_names())
def test_reference_influence(golden: Path, name: str) -> None:
    case = golden_case(golden, name)
    influence = compute_node_influence(case.graph.edges, case.graph.logit_weights)
    torch.testing.assert_close(influence, case.tensors["node_influence"], rtol=1e-5, atol=1e-7)
