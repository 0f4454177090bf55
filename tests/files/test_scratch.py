"""Arrays in files behave like arrays in memory, and so does everything built on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import circuit_tracer_cli.files.scratch as scratch
from circuit_tracer_cli.graph.edges import Edges, EdgesBuilder
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.graph.store import load_graph, save_graph
from tests.graph.builders import random_graph


def same(a: Edges, b: Edges) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("indptr", "indices", "values"))


def test_a_large_array_is_in_a_file_and_survives_release() -> None:
    array, release = scratch.scratch_array(5000, np.float32, largest_in_memory=1000)
    assert release is not scratch.nothing
    assert not array.any()
    array[:] = np.arange(5000)
    release()
    assert np.array_equal(array, np.arange(5000, dtype=np.float32))


def test_a_small_array_is_in_memory() -> None:
    array, release = scratch.scratch_array(5000, np.float32)
    assert release is scratch.nothing
    assert len(array) == 5000


def test_a_full_disk_leaves_the_array_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scratch.tempfile, "TemporaryFile", full)
    array, release = scratch.scratch_array(5000, np.float32, largest_in_memory=0)
    assert release is scratch.nothing
    assert not array.any()
    dense = torch.randn(6, 6)
    builder = EdgesBuilder(6, chunks_in_memory=0)
    builder.add_rows(torch.arange(6), dense)
    assert torch.equal(builder.build().to_dense(), dense)


@pytest.mark.parametrize("limit", [0, 100, 1 << 20])
def test_rows_written_as_they_come_give_the_same_edges(limit: int) -> None:
    dense = torch.randn(40, 40) * (torch.rand(40, 40) < 0.5)
    order = torch.randperm(40)
    builder = EdgesBuilder(40, chunks_in_memory=limit)
    for start in range(0, 40, 7):
        rows = order[start : start + 7]
        builder.add_rows(rows, dense[rows])
        if start == 21:
            some = builder.copy()
    expected = torch.zeros(40, 40)
    expected[order[:28]] = dense[order[:28]]
    assert torch.equal(some.build().to_dense(), expected)
    assert same(builder.build(), Edges.from_dense(dense))
    assert builder.nnz == 0


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    builder = EdgesBuilder(20, chunks_in_memory=0)
    builder.add_rows(torch.arange(20), torch.randn(20, 20))
    edges = builder.build()
    assert edges.nnz == 400
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("streaming", [False, True])
def test_pruning_from_the_file_equals_pruning_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    graph = random_graph(seed=3, n_layers=5, n_pos=6, n_features=4, density=0.2)
    expected = pruned_graph(graph)
    save_graph(graph, tmp_path / "g.safetensors")
    monkeypatch.setattr(scratch, "LARGEST_IN_MEMORY", 64)
    monkeypatch.setattr("circuit_tracer_cli.graph.edges.EDGE_BLOCK", 97)
    monkeypatch.setattr("circuit_tracer_cli.graph.edges.BLOCKS_HELD", 1)
    found = pruned_graph(load_graph(tmp_path / "g.safetensors", streaming=streaming))
    assert same(found.edges, expected.edges)
    assert found.edges.release is not scratch.nothing
    assert expected.pruning is not None
    assert found.pruning is not None
    assert torch.equal(found.pruning.node_mask, expected.pruning.node_mask)
    assert found.pruning.replacement_score == expected.pruning.replacement_score
    save_graph(found, tmp_path / "p.safetensors")
    assert same(load_graph(tmp_path / "p.safetensors").edges, expected.edges)


def test_rows_gives_every_node_with_edges_once() -> None:
    dense = torch.randn(30, 30) * (torch.rand(30, 1) < 0.6)
    found = torch.zeros(30, 30)
    for target, columns, weights in Edges.from_dense(dense).rows():
        found[target, torch.from_numpy(columns).long()] = torch.from_numpy(weights)
    assert torch.equal(found, dense)
