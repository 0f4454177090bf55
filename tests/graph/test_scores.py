from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings

from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import compute_graph_scores, compute_influence, normalize_matrix
from tests.graph.builders import golden_case, golden_names, graphs, worked_example


def test_worked_example() -> None:
    replacement, completeness = compute_graph_scores(worked_example())
    assert replacement == pytest.approx(0.75)
    assert completeness == pytest.approx(0.913793, abs=1e-6)


@settings(max_examples=30)
@given(graphs())
def test_equals_the_dense_definition(graph: Graph) -> None:
    layout, weights = graph.layout, graph.logit_weights.double()
    normalized = normalize_matrix(graph.adjacency_matrix.double())
    influence = compute_influence(normalized, weights)
    errors = slice(layout.error_offset, layout.token_offset)
    from_errors = influence[errors].sum()
    from_tokens = influence[layout.token_offset : layout.logit_offset].sum()
    reach = influence + weights
    completeness = ((1 - normalized[:, errors].sum(1)) * reach).sum() / reach.sum()
    expected = float(from_tokens / (from_tokens + from_errors)) if from_tokens + from_errors > 0 else 0.0
    found = compute_graph_scores(graph)
    assert found == pytest.approx((expected, float(completeness)), rel=1e-9)
    assert all(0 <= score <= 1 + 1e-12 for score in found)


@pytest.mark.parametrize("name", golden_names())
def test_reference_scores(golden: Path, name: str) -> None:
    case = golden_case(golden, name)
    expected = (case.facts["replacement_score"], case.facts["completeness_score"])
    assert compute_graph_scores(case.graph) == pytest.approx(expected, abs=1e-5)
