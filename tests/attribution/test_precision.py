"""The precision of the engine's products: what it changes, what it must not, and where there is none."""

from __future__ import annotations

import pytest
import torch
from tests.builders import PROMPT, replacement
from tests.cases import one_of

from circuit_tracer_cli import attribute
from circuit_tracer_cli.attribution.products import add_product, product, tensor_cores
from circuit_tracer_cli.attribution.sources import LayerDecoders
from circuit_tracer_cli.cli.summary import GraphSummary, headline
from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.validation.precision import rounded_to


def factors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 5, 70, generator=generator), torch.randn(3, 70, 4, generator=generator)


def test_products_of_16_bit_factors_are_summed_in_float32() -> None:
    a, b = factors()
    exact = a.bfloat16().double() @ b.bfloat16().double()
    for found in (product(a, b.bfloat16()), product(a.bfloat16(), b)):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=1e-5)
    out = torch.ones(5, 4)
    add_product(out, a[0], b[0].bfloat16())
    torch.testing.assert_close(out.double(), exact[0] + 1, atol=1e-5, rtol=1e-5)
    assert (exact - a.double() @ b.double()).abs().max() > 1e-3  # factors are rounded


def test_products_of_float32_factors_are_the_usual_ones() -> None:
    a, b = factors()
    assert torch.equal(product(a, b), torch.bmm(a, b))
    out = torch.empty(5, 4)
    assert product(a[0], b[0], out) is out
    assert torch.equal(out, a[0] @ b[0])


@pytest.mark.parametrize(("family", "kind"), one_of(("gemma2", "clt"), ("llama", "plt"), ("gptj", "clt")))
def test_16_bit_products_move_edges_a_little_and_say_so(
    family: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[torch.dtype] = []
    usual = LayerDecoders.contract

    def contract(self: LayerDecoders, G: torch.Tensor, out: torch.Tensor) -> None:
        stored.append(self.rows.dtype)
        assert G.dtype == out.dtype == torch.float32
        usual(self, G, out)

    model = replacement(family, kind, "jumprelu", True)
    want = attribute(list(PROMPT), model, labels=False)
    monkeypatch.setattr(LayerDecoders, "contract", contract)
    graph = attribute(list(PROMPT), model, labels=False, precision="bf16")
    assert set(stored) == {torch.bfloat16}
    assert torch.equal(graph.active_features, want.active_features)
    rows, exact = (one.adjacency_matrix.to_dense() for one in (graph, want))
    assert rows.dtype == torch.float32
    assert 1e-5 < float((rows - exact).norm() / exact.norm()) < 1e-2
    assert _precision(want) == ("float32", None, False)
    assert _precision(graph) == ("bf16", "bf16", True)


def _precision(graph: Graph) -> tuple[str, str | None, bool]:
    lines = "\n".join(headline(GraphSummary(graph)))
    return graph.metadata["precision"], rounded_to(graph), "bf16 products" in lines


def test_a_graph_in_16_bits_with_16_bit_products_is_rounded_twice() -> None:
    model = replacement("llama", "plt", dtype=torch.bfloat16)
    graph = attribute(list(PROMPT), model, labels=False, precision="bf16")
    assert rounded_to(graph) == "bfloat16 with products in bf16"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"precision": "tf32"}, "cpu has no TF32"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"precision": "bf16", "engine": "vector-jacobian"}, "takes the engine closed-form"),
    ],
)
def test_a_precision_that_is_not_there_is_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        attribute(list(PROMPT), replacement("llama", "plt"), **settings)


def test_tf32_is_on_for_the_rows_alone() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    with tensor_cores("tf32"):
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before
