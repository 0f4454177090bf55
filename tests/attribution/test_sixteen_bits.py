"""16-bit models: rows are accumulated in float32, so that only the forward pass is rounded (docs/models.md has the numbers)."""

from __future__ import annotations

import functools

import pytest
import torch
from benchmarks.precision import difference

from circuit_tracer_cli import Graph, ReplacementModel, attribute

PROMPT = "Fact: the capital of the state containing Dallas is"


@functools.cache
def graph(transcoders: str, dtype: torch.dtype) -> Graph:
    """The demo's graph in a dtype."""
    return attribute(PROMPT, ReplacementModel.from_pretrained("demo", transcoders, device="cpu", dtype=dtype))


@pytest.mark.parametrize("transcoders", ["demo", "demo-plt"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.01), (torch.float16, 0.001)])
def test_edges_are_those_of_float32_but_for_the_forward_pass(
    transcoders: str, dtype: torch.dtype, bound: float
) -> None:
    found = graph(transcoders, dtype)
    assert found.adjacency_matrix.dtype == torch.float32
    assert found.cfg.dtype == str(dtype).removeprefix("torch.")
    differs = difference(graph(transcoders, torch.float32), found)
    assert differs.common_features > 0.97 * differs.features
    assert 0 < differs.edges < bound


def test_rows_are_not_rounded_to_sixteen_bits() -> None:
    edges = graph("demo", torch.bfloat16).adjacency_matrix
    assert not torch.equal(edges, edges.bfloat16().float())
