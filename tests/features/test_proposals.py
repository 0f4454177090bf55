"""Labels that a trace proposes: their tokens against dense products, their drivers against a sum over all paths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuit_tracer_cli import attribute, prune_graph
from circuit_tracer_cli.features import proposals
from circuit_tracer_cli.features.finish import logit_effects
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.proposals import PROPOSALS, WIDTH, proposals_of
from circuit_tracer_cli.replacement import ReplacementModel

PROMPT = "The capital of the state containing Dallas is"


@pytest.fixture(scope="module")
def model() -> ReplacementModel:
    return ReplacementModel.from_pretrained("demo", "demo")


@pytest.fixture(scope="module")
def graph(model: ReplacementModel) -> Graph:
    return attribute(PROMPT, model)


def test_every_shown_feature_has_a_label_of_at_most_forty_characters(graph: Graph) -> None:
    mask = prune_graph(graph).node_mask
    shown = [graph.node_id(node) for node in range(graph.layout.n_features) if mask[node]]
    found = proposals_of(graph.metadata, graph.prompt_tokens)
    assert set(shown) <= set(found)
    assert all(
        0 < len(one["text"]) <= WIDTH and one["provenance"].startswith("trace: ") for one in found.values()
    )
    assert found["0_100_7"]["text"].startswith("from Dallas → Texas")


def test_promoted_tokens_are_those_of_the_weights(graph: Graph, model: ReplacementModel) -> None:
    first = next(iter(logit_effects(model, 0, 5)))
    known = graph.metadata[PROPOSALS]["features"]["0/100"]
    assert [value for _, value in known["promotes"]] == pytest.approx(first.strength[100], abs=0.006)
    assert known["promotes"][0][0] == " Texas"
    assert all(low < 0 for _, low in known["suppresses"])


def test_drivers_are_shares_over_all_paths(graph: Graph) -> None:
    dense = graph.adjacency_matrix.double().abs().numpy()
    shares = dense / np.maximum(dense.sum(1, keepdims=True), 1e-10)
    over_paths = np.linalg.inv(np.eye(len(dense)) - shares)
    first = graph.layout.token_offset
    for node in range(0, graph.layout.n_features, 7):
        for position, share in graph.metadata[PROPOSALS]["drivers"].get(graph.node_id(node), []):
            assert share == pytest.approx(over_paths[node, first + int(position)], abs=1e-4)


def test_they_can_be_left_out_and_change_nothing_else(model: ReplacementModel, graph: Graph) -> None:
    plain = attribute(PROMPT, model, labels=False)
    assert PROPOSALS not in plain.metadata
    assert torch.equal(plain.adjacency_matrix, graph.adjacency_matrix)


def test_only_as_many_as_the_budget_allows(
    model: ReplacementModel, graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposals, "MOST_FLOPS", 40 * proposals.flops_per_feature(model))
    some = proposals.proposals(graph, model)["drivers"]
    assert 20 < len(some) <= 40
    monkeypatch.setattr(proposals, "MOST_NODES", 3)
    assert set(proposals.proposals(graph, model)["drivers"]) <= set(some)


def test_without_memory_the_graph_is_kept(model: ReplacementModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("circuit_tracer_cli.attribution.attribute.proposals", full)
    assert PROPOSALS not in attribute(PROMPT, model).metadata


@pytest.mark.parametrize(
    "stored", [None, [], {"features": 1}, {"features": {}, "drivers": {"0_1_2": [["x", 1]]}}]
)
def test_what_somebody_has_edited_is_passed_over(stored: object) -> None:
    assert proposals_of({PROPOSALS: stored}, ["a"]) == {}
