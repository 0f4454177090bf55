"""Graphs against the reference's own, case by case (`shared/golden`)."""

from __future__ import annotations

import functools
import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from circuit_tracer_cli import (
    CustomTarget,
    Graph,
    ReplacementModel,
    attribute,
    compute_graph_scores,
    prune_graph,
)
from circuit_tracer_cli.backends import BACKENDS
from circuit_tracer_cli.graph.influence import compute_node_influence
from tests.cases import some

GOLDEN = Path(__file__).resolve().parents[2] / ".." / "shared" / "golden"
CASES = sorted(
    path.parent.name
    for path in GOLDEN.glob("cases/*/inputs.json")
    if json.loads(path.read_text(encoding="utf-8"))["kind"] == "graph"
)
pytestmark = pytest.mark.skipif(not CASES, reason="the golden data isn't beside this checkout")


@functools.cache
def model_of(model: Path, transcoders: Path, backend: str) -> ReplacementModel:
    """A golden model with a golden set."""
    if backend == "nnsight":
        pytest.importorskip("nnsight")
    return ReplacementModel.from_pretrained(str(model), str(transcoders), backend, device="cpu")


def targets_of(given: dict[str, Any] | None, model: ReplacementModel) -> Any:
    """Targets as the case states them."""
    if given is None:
        return None
    if given["form"] == "strings":
        return given["strings"]
    if given["form"] == "token_ids":
        return torch.tensor(given["token_ids"])
    W_U = model.W_U
    return [
        CustomTarget(t["token_str"], t["prob"], W_U[:, t["a"]] - W_U[:, t["b"]]) for t in given["targets"]
    ]


@functools.cache
def traced(case: str, backend: str) -> tuple[Graph, dict[str, Any], dict[str, torch.Tensor]]:
    """Our graph and the reference's answer."""
    folder = GOLDEN / "cases" / case
    inputs = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
    model = model_of(
        (folder / inputs["model"]).resolve(), (folder / inputs["transcoders"]).resolve(), backend
    )
    settings = {**inputs["defaults"], **inputs["attribute_kwargs"]}
    targets = targets_of(inputs["attribution_targets"], model)
    graph = attribute(inputs["prompt"], model, attribution_targets=targets, **settings)
    return (
        graph,
        json.loads((folder / "expected.json").read_text(encoding="utf-8")),
        load_file(folder / "expected.safetensors"),
    )


@pytest.mark.parametrize(("case", "backend"), some(product(CASES, BACKENDS), 3))
def test_nodes_and_edges(case: str, backend: str) -> None:
    graph, facts, want = traced(case, backend)
    assert graph.metadata["backend"] == backend
    assert graph.input_string == facts["input_string"]
    assert graph.input_tokens.tolist() == want["input_tokens"].tolist()
    assert torch.equal(graph.active_features, want["active_features"])
    assert torch.equal(graph.selected_features, want["selected_features"])
    torch.testing.assert_close(graph.activation_values, want["activation_values"], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(graph.adjacency_matrix, want["adjacency_matrix"], atol=5e-4, rtol=1e-5)


@pytest.mark.parametrize(("case", "backend"), some(product(CASES, BACKENDS), 3))
def test_targets(case: str, backend: str) -> None:
    graph, facts, want = traced(case, backend)
    for ours, theirs in zip(graph.logit_targets, facts["logit_targets"], strict=True):
        assert ours.vocab_idx == theirs["vocab_idx"]
        if (
            "\ufffd" in theirs["token_str"]
        ):  # part of a character: the reference can't show it, here it is named by its bytes
            assert ours.token_str.startswith("\\x")
        else:
            assert ours.token_str == theirs["token_str"]
    assert graph.logit_token_ids.tolist() == want["logit_vocab_indices"].tolist()
    assert graph.vocab_size == facts["vocab_size"]
    torch.testing.assert_close(graph.logit_probabilities, want["logit_probabilities"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("case", "backend"), some(product(CASES, BACKENDS), 3))
def test_influence_pruning_and_scores(case: str, backend: str) -> None:
    graph, facts, want = traced(case, backend)
    influence = compute_node_influence(graph.adjacency_matrix, graph.logit_weights)
    torch.testing.assert_close(influence.float(), want["node_influence"], atol=1e-5, rtol=1e-4)
    for name, thresholds in (("prune_default", (0.8, 0.98)), ("prune_tight", (0.5, 0.9))):
        pruned = prune_graph(graph, *thresholds)
        assert torch.equal(pruned.node_mask, want[f"{name}.node_mask"].bool())
        assert pruned.edge_mask.nonzero().tolist() == want[f"{name}.edge_index"].tolist()
    replacement, completeness = compute_graph_scores(graph)
    assert replacement == pytest.approx(facts["replacement_score"], abs=1e-5)
    assert completeness == pytest.approx(facts["completeness_score"], abs=1e-5)
