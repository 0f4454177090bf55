from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit_tracer_cli.transcoders.activations import JumpReLU, ReLU, TopK


def test_relu_keeps_what_is_positive() -> None:
    assert ReLU()(torch.tensor([-1.0, 0.0, 2.0])).tolist() == [0, 0, 2]


def test_jumprelu_is_strict_at_its_threshold() -> None:
    act = JumpReLU(torch.tensor([1.0, 1.0, 1.0, -1.0]))
    assert act(torch.tensor([[0.5, 1.0, 1.5, -0.5]])).tolist() == [[0, 0, 1.5, -0.5]]


def test_jumprelu_never_turns_minus_infinity_into_nan() -> None:
    assert JumpReLU(torch.tensor([0.0]))(torch.tensor([-math.inf])).tolist() == [0]


def test_jumprelu_keeps_the_dtype_of_its_input() -> None:
    act = JumpReLU(torch.tensor([0.5]))
    assert act(torch.ones(1, dtype=torch.bfloat16)).dtype is torch.bfloat16


def test_topk_looks_at_each_position_alone_and_keeps_negative_values() -> None:
    z = torch.tensor([[-3.0, -1.0, -2.0], [9.0, 8.0, 7.0]])
    assert TopK(2)(z).tolist() == [[0, -1, -2], [9, 8, 0]]


@settings(derandomize=True, max_examples=50)
@given(st.integers(1, 8), st.integers(0, 10_000))
def test_topk_keeps_exactly_k_of_distinct_values(k: int, seed: int) -> None:
    z = torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))
    kept = TopK(k)(z)
    assert (kept != 0).sum(-1).tolist() == [k] * 5
    dropped = z.masked_fill(kept != 0, -math.inf)
    assert bool((z.masked_fill(kept == 0, math.inf).amin(-1) >= dropped.amax(-1)).all())


def test_parameters_move_with_the_set() -> None:
    moved = JumpReLU(torch.tensor([0.5])).to(torch.device("cpu"), torch.float16)
    assert moved.threshold.dtype is torch.float16
    assert TopK(3).to(torch.device("cpu"), torch.float16) == TopK(3)
    assert ReLU().to(torch.device("cpu"), torch.float16) == ReLU()
