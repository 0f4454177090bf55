from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.errors import InvalidValue, OutOfMemory
from circuit_tracer_cli.graph import edges as module
from circuit_tracer_cli.graph.edges import Edges, EdgesBuilder, check_edges
from tests.graph.builders import random_graph


def sparse_matrix(seed: int, n: int, density: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, n, generator=generator) * (torch.rand(n, n, generator=generator) < density)


@given(st.integers(0, 99), st.integers(0, 12), st.sampled_from([0.0, 0.2, 1.0]))
def test_dense_and_back(seed: int, n: int, density: float) -> None:
    matrix = sparse_matrix(seed, n, density)
    edges = Edges.from_dense(matrix)
    assert torch.equal(edges.to_dense(), matrix)
    assert (edges.n, edges.nnz) == (n, int((matrix != 0).sum()))
    check_edges(edges)


@given(st.integers(0, 99), st.integers(1, 12), st.integers(1, 7), st.randoms(use_true_random=False))
def test_builder_takes_rows_in_any_order(seed: int, n: int, step: int, random: object) -> None:
    matrix = sparse_matrix(seed, n, 0.5)
    order = list(range(n))
    random.shuffle(order)  # type: ignore[attr-defined]
    builder = EdgesBuilder(n)
    for start in range(0, n, step):
        ids = torch.tensor(order[start : start + step])
        builder.add_rows(ids, matrix[ids])
    assert builder.nnz == int((matrix != 0).sum())
    built = builder.build()
    assert torch.equal(built.to_dense(), matrix)
    check_edges(built)


def test_builder_leaves_missing_rows_empty() -> None:
    builder = EdgesBuilder(3)
    builder.add_rows(torch.tensor([2]), torch.tensor([[1.0, 0.0, 0.0]]))
    assert builder.build().to_dense().tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert builder.build().nnz == 0


@pytest.mark.parametrize(
    ("ids", "shape", "message"),
    [
        ([0], (1, 2), "don't fit"),
        ([0, 1], (1, 3), "don't fit"),
        ([3], (1, 3), "must be in 0..2"),
        ([-1], (1, 3), "must be in 0..2"),
        ([1, 1], (2, 3), "given twice"),
        ([2], (1, 3), "given twice"),
    ],
)
def test_builder_refuses(ids: list[int], shape: tuple[int, int], message: str) -> None:
    builder = EdgesBuilder(3)
    builder.add_rows(torch.tensor([2]), torch.ones(1, 3))
    with pytest.raises(InvalidValue, match=message):
        builder.add_rows(torch.tensor(ids), torch.ones(shape))


@given(st.integers(0, 50), st.integers(1, 9), st.integers(1, 20))
def test_blocks_cover_every_edge_once(seed: int, n: int, size: int) -> None:
    matrix = sparse_matrix(seed, n, 0.4)
    found = torch.zeros(n, n)
    edges = Edges.from_dense(matrix)
    expected_start = 0
    for block in edges.blocks(size=size):
        assert block.start == expected_start
        assert 0 < len(block.values) <= size
        assert int(block.counts.sum()) == len(block.values)
        for source, target, weight in block.triples():
            found[target, source] += weight
        expected_start += len(block.values)
    assert torch.equal(found, matrix)


def test_blocks_and_rows_of_a_range() -> None:
    matrix = sparse_matrix(1, 8, 0.5)
    edges = Edges.from_dense(matrix)
    rows = {int(row) for block in edges.blocks(2, 5) for row in block.rows}
    assert rows <= {2, 3, 4}
    assert torch.equal(edges.dense_rows(2, 5), matrix[2:5])
    columns, weights = edges.row(3)
    assert columns.tolist() == matrix[3].nonzero().flatten().tolist()
    assert torch.equal(weights, matrix[3][matrix[3] != 0])


@given(st.integers(0, 50), st.integers(0, 9))
def test_select_keeps_what_it_is_told(seed: int, n: int) -> None:
    edges = Edges.from_dense(sparse_matrix(seed, n, 0.6))
    keep = torch.rand(edges.nnz, generator=torch.Generator().manual_seed(seed)) < 0.5
    kept = edges.select(keep)
    check_edges(kept)
    marked = Edges(edges.indptr, edges.indices, keep.to(torch.float32)).to_dense()
    assert torch.equal(kept.to_dense(), edges.to_dense() * marked)
    assert edges.select(torch.ones(edges.nnz, dtype=torch.bool)) is edges


def good() -> dict[str, torch.Tensor]:
    return {
        "indptr": torch.tensor([0, 2, 2, 3]),
        "indices": torch.tensor([0, 2, 1], dtype=torch.int32),
        "values": torch.tensor([1.0, 2.0, 3.0]),
    }


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("indptr", torch.tensor([0, 2, 1, 3]), "descend"),
        ("indptr", torch.tensor([1, 2, 2, 3]), "number of edges"),
        ("indptr", torch.tensor([0, 2, 2, 4]), "number of edges"),
        ("indptr", torch.tensor([0, 2, 2, 3], dtype=torch.int32), "int64"),
        ("indices", torch.tensor([0, 3, 1], dtype=torch.int32), "outside"),
        ("indices", torch.tensor([-1, 2, 1], dtype=torch.int32), "outside"),
        ("indices", torch.tensor([2, 0, 1], dtype=torch.int32), "ascend"),
        ("indices", torch.tensor([2, 2, 1], dtype=torch.int32), "ascend"),
        ("indices", torch.tensor([[0, 2, 1]], dtype=torch.int32), "one axis"),
        ("values", torch.tensor([1.0, float("nan"), 3.0]), "NaN"),
        ("values", torch.tensor([1.0, float("inf"), 3.0]), "NaN or infinite"),
        ("values", torch.tensor([1.0, 0.0, 3.0]), "zero"),
        ("values", torch.tensor([1.0, 2.0]), "number of edges"),
    ],
)
def test_check_edges_names_the_fault(name: str, value: torch.Tensor, message: str) -> None:
    check_edges(Edges(**good()))
    with pytest.raises(InvalidValue, match=message):
        check_edges(Edges(**{**good(), name: value}))


def test_check_edges_sees_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Edges(torch.tensor([0, 4]), torch.tensor([0, 2, 1, 3], dtype=torch.int32), torch.ones(4))
    edges = Edges(torch.cat([broken.indptr, torch.full((3,), 4)]), broken.indices, broken.values)
    blocks = list(edges.blocks(size=2))
    monkeypatch.setattr(Edges, "blocks", lambda self: iter(blocks))
    with pytest.raises(InvalidValue, match="ascend"):
        check_edges(edges)


def test_dense_that_cannot_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = random_graph()
    monkeypatch.setattr(module, "free_memory", lambda device: 4 * graph.n_nodes**2 - 1)
    with pytest.raises(OutOfMemory, match="KiB is free") as caught:
        _ = graph.adjacency_matrix
    assert caught.value.hint


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 2)])
def test_matrix_must_be_square(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValue, match="square"):
        Edges.from_dense(torch.zeros(shape))
