from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from circuit_tracer_cli.errors import BadTranscoders
from circuit_tracer_cli.files.tensors import TensorFile
from circuit_tracer_cli.transcoders import weights as rows
from circuit_tracer_cli.transcoders.weights import EagerWeights, LazyWeights, all_finite

MATRIX = torch.randn(11, 2, 3, generator=torch.Generator().manual_seed(0))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> TensorFile:
    path = tmp_path_factory.mktemp("rows") / "w.safetensors"
    damaged = MATRIX.clone()
    damaged[4, 1, 1] = torch.nan
    huge = torch.full((3, 2), 1e30)
    save_file({"W": MATRIX, "damaged": damaged, "huge": huge}, path)
    return TensorFile(path)


@settings(derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 10), max_size=20))
def test_lazy_rows_equal_eager_rows_in_any_order(file: TensorFile, features: list[int]) -> None:
    index = torch.tensor(features, dtype=torch.int64)
    lazy = LazyWeights(file, "W", CPU, torch.float32)
    assert torch.equal(lazy.rows(index), EagerWeights(MATRIX).rows(index))


def test_rows_are_copies_that_may_be_written(file: TensorFile) -> None:
    index = torch.arange(11)
    for source in (LazyWeights(file, "W", CPU, torch.float32), EagerWeights(MATRIX.clone())):
        source.rows(index).zero_()
        assert torch.equal(source.rows(index), MATRIX)


def test_blocks_are_the_same_for_both(file: TensorFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_BLOCK_ELEMENTS", 24)
    lazy = [(start, block.clone()) for start, block in LazyWeights(file, "W", CPU, torch.float32).blocks()]
    eager = list(EagerWeights(MATRIX).blocks())
    assert [start for start, _ in lazy] == [start for start, _ in eager] == [0, 4, 8]
    assert torch.equal(torch.cat([block for _, block in lazy]), MATRIX)
    assert torch.equal(torch.cat([block for _, block in eager]), MATRIX)


def test_dtype_and_row_shape_are_delivered_as_asked(file: TensorFile) -> None:
    source = LazyWeights(file, "W", CPU, torch.bfloat16, row_shape=(1, 6))
    assert source.shape == (11, 1, 6)
    assert torch.equal(source.rows(torch.tensor([3])), MATRIX[3].bfloat16().view(1, 1, 6))
    assert torch.equal(source.full(), MATRIX.bfloat16().view(11, 1, 6))
    moved = source.to(CPU, torch.float64)
    assert moved.shape == (11, 1, 6)
    assert moved.full().dtype is torch.float64
    assert torch.equal(source.load().full(), source.full())


def test_damaged_rows_are_named_when_they_are_read(file: TensorFile) -> None:
    lazy = LazyWeights(file, "damaged", CPU, torch.float32)
    assert torch.equal(lazy.rows(torch.tensor([3, 5])), MATRIX[[3, 5]])
    for read in (lambda: lazy.rows(torch.tensor([3, 4])), lazy.load):
        with pytest.raises(BadTranscoders, match=r"w\.safetensors: tensor 'damaged' contains NaN"):
            read()


def test_a_cast_that_overflows_is_an_error(file: TensorFile) -> None:
    with pytest.raises(BadTranscoders, match="too large for float16") as caught:
        LazyWeights(file, "huge", CPU, torch.float16).load()
    assert "bfloat16" in (caught.value.hint or "")


def test_large_finite_values_are_finite() -> None:
    assert all_finite(torch.full((4,), 3e38))
    assert all_finite(torch.full((4,), 60000.0, dtype=torch.float16))
    assert all_finite(torch.empty(0))
    assert not all_finite(torch.tensor([torch.inf, -torch.inf]))
