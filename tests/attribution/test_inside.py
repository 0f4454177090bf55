"""Features and directions inside the model as targets: the rows that the same nodes have in any other graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors.torch import save_file
from tests.attention.prompts import cases
from tests.attribution.test_positions import row, same
from tests.builders import PROMPT, on_both_backends, replacement
from tests.export.test_viewer import SCHEMA

from circuit_tracer_cli.attention.loadings import head_loadings
from circuit_tracer_cli.attention.prompt import edge_of
from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.attribution.rows import encoder_rows
from circuit_tracer_cli.attribution.target_texts import DirectionAt, FeatureAt
from circuit_tracer_cli.errors import BadTarget, UnsuitableValue
from circuit_tracer_cli.expansion import expand
from circuit_tracer_cli.export.graph_json import read_graph_json
from circuit_tracer_cli.graph.contrast import why_not
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import compute_node_influence
from circuit_tracer_cli.graph.proposals import PROPOSALS
from circuit_tracer_cli.many.facts import read_facts
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.validation.subject import Subject


def highest(graph: Graph) -> tuple[int, tuple[int, int, int]]:
    """The last feature node, and its layer, feature and position."""
    node = graph.layout.n_features - 1
    layer, position, feature = graph.active_features[graph.selected_features[node]].tolist()
    return node, (layer, feature, position)


@pytest.mark.parametrize(
    ("backend_name", "family", "kind", "skip", "read", "write"), on_both_backends(cases())
)
def test_a_feature_explains_itself_as_it_does_behind_a_token(
    backend_name: str, family: str, kind: str, skip: bool, read: str, write: str
) -> None:
    model = replacement(family, kind, "relu", skip, read=read, write=write, backend_name=backend_name)
    usual = attribute(list(PROMPT), model, max_n_logits=2, labels=False)
    node, (layer, feature, position) = highest(usual)
    at = torch.tensor([[layer, position, feature]])
    inputs = [one.feature_input for one in model.frozen_pass(torch.tensor(PROMPT)).layers]
    vector = encoder_rows(model.transcoders, at, inputs)[0]
    for target in (FeatureAt(layer, feature, position), DirectionAt("probe", vector, layer, position)):
        graph = attribute(list(PROMPT), model, attribution_targets=[target], labels=False)
        assert same(row(graph, graph.n_nodes - 1), row(usual, node))
        for other in range(graph.layout.n_features):
            assert same(row(graph, other), row(usual, usual.node_ids().index(graph.node_id(other))))
        assert graph.scores() == pytest.approx(usual.rooted(node).scores(), abs=1e-6)


@pytest.fixture(scope="module")
def usual() -> tuple[Graph, ReplacementModel]:
    """A graph of all features, and its model."""
    model = replacement("llama", "plt")
    return attribute(list(PROMPT), model, max_n_logits=2), model


@pytest.fixture(scope="module")
def inside(usual: tuple[Graph, ReplacementModel]) -> Graph:
    """A capped graph of that graph's last feature."""
    at = FeatureAt(*highest(usual[0])[1])
    return attribute(
        list(PROMPT), usual[1], attribution_targets=[at], max_feature_nodes=4, batch_size=2, update_interval=1
    )


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_files_keep_a_feature_as_the_target(inside: Graph, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"graph.{suffix}"
    inside.save(path)
    again = Graph.load(path)
    assert again.places == inside.places
    assert again.node_id(again.n_nodes - 1) == inside.node_id(inside.n_nodes - 1)
    assert again.scores() == inside.scores()


def test_the_feature_is_the_target_in_the_graph_file(inside: Graph, tmp_path: Path) -> None:
    written = inside.export("inside", tmp_path)[0]
    jsonschema.validate(json.loads(written.read_bytes()), SCHEMA)
    file = read_graph_json(written.read_bytes(), str(written))
    (target,) = [node for node in file.nodes if node.is_target_logit]
    assert target.node_id == inside.node_id(inside.n_nodes - 1)
    assert (target.feature_type, target.token_prob) == ("cross layer transcoder", 1.0)
    assert target.activation is not None
    assert not [node for node in file.nodes if node.feature_type == "logit"]
    facts = read_facts(written)
    assert facts.n_target_positions == 0


def test_what_drives_the_target_is_told_as_for_a_node(usual: tuple[Graph, ReplacementModel]) -> None:
    graph, model = usual
    node, at = highest(graph)
    traced = attribute(list(PROMPT), model, attribution_targets=[FeatureAt(*at)])
    drivers = traced.metadata[PROPOSALS]["drivers"][graph.node_id(node)]
    rooted = graph.rooted(node)
    influence = compute_node_influence(rooted.edges, rooted.logit_weights)
    tokens = influence[graph.layout.token_offset : graph.layout.logit_offset]
    assert drivers
    for position, share in drivers:
        assert share == pytest.approx(float(tokens[position]), abs=1e-3)


def test_expansion_gives_the_graph_without_a_cap(
    usual: tuple[Graph, ReplacementModel], inside: Graph
) -> None:
    at = FeatureAt(*highest(usual[0])[1])
    whole = attribute(list(PROMPT), usual[1], attribution_targets=[at])
    missing = [
        (layer, position, feature)
        for layer, position, feature in whole.active_features[whole.selected_features].tolist()
    ]
    larger = expand(inside, usual[1], missing)
    assert larger.node_ids() == whole.node_ids()
    assert (larger.adjacency_matrix - whole.adjacency_matrix).abs().max() < 1e-5


def test_heads_of_an_edge_into_the_target(usual: tuple[Graph, ReplacementModel], inside: Graph) -> None:
    target = inside.node_id(inside.n_nodes - 1)
    source = max(row(inside, inside.n_nodes - 1).items(), key=lambda item: abs(item[1]))[0]
    edge = edge_of(usual[0], source, target)
    ours = head_loadings(inside, usual[1], [(source, target)], by="through")
    theirs = head_loadings(usual[0], usual[1], [edge], by="through")
    values = [[share.value for share in found.edges[0].heads] for found in (ours, theirs)]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_directions_come_from_files(usual: tuple[Graph, ReplacementModel], tmp_path: Path) -> None:
    graph, model = usual
    n_layers, token = graph.cfg.n_layers, graph.logit_targets[0].vocab_idx
    u = model.W_U.T
    save_file({"direction": (u[token] - u.mean(0)).contiguous()}, tmp_path / "token.safetensors")
    text = f"direction:{tmp_path}/token.safetensors@{n_layers}/-1"
    found = attribute(list(PROMPT), model, attribution_targets=[text])
    assert same(row(found, found.n_nodes - 1), row(graph, graph.layout.logit_offset))
    assert found.logit_targets[0].token_str == f"token {n_layers}@{len(PROMPT) - 1}"


def test_what_is_about_tokens_refuses_the_rest(
    usual: tuple[Graph, ReplacementModel], inside: Graph, tmp_path: Path
) -> None:
    with pytest.raises(UnsuitableValue, match="isn't the next token"):
        Subject(inside, usual[1])
    with pytest.raises(UnsuitableValue, match="isn't a token"):
        why_not(inside, 0)


def refusals() -> list[tuple[list[Any], str]]:
    """Targets, and what is said of them; the model has two layers and a width of 24."""
    ones = torch.ones(24)
    return [
        ([FeatureAt(9, 0, 3)], "no layer 9"),
        ([FeatureAt(0, 10**6, 3)], "no feature 1000000"),
        ([FeatureAt(0, 0, 0)], "nothing is traced at position 0"),
        ([FeatureAt(0, 0, 99)], "outside the prompt"),
        ([DirectionAt("v", torch.ones(3), 0, 3)], r"has shape \(3,\), not \(24,\)"),
        ([FeatureAt(0, 0, 3), DirectionAt("v", ones, 1, 3)], "is an input of the target at layer 1"),
        ([DirectionAt("v", ones, 1, 3), DirectionAt("v", ones, 1, 3)], "given twice"),
        (["feature:0/1", "7"], "isn't of the form feature:LAYER/FEATURE@POSITION"),
        (["direction:probe.npz@0/1"], "isn't a safetensors file"),
        (["feature:0/1@2", "id:7"], "can't be mixed"),
    ]


@pytest.mark.parametrize(("given", "said"), refusals())
def test_what_cannot_be_a_target_is_refused(
    usual: tuple[Graph, ReplacementModel], given: list[Any], said: str
) -> None:
    with pytest.raises(BadTarget, match=said):
        attribute(list(PROMPT), usual[1], attribution_targets=given)


def test_an_inactive_feature_is_refused_with_its_pre_activation(
    usual: tuple[Graph, ReplacementModel],
) -> None:
    graph, model = usual
    active = set(map(tuple, graph.active_features.tolist()))
    quiet = next(n for n in range(model.transcoders.d_transcoder) if (0, 3, n) not in active)
    with pytest.raises(BadTarget, match="isn't active on this prompt: its pre-activation is -"):
        attribute(list(PROMPT), model, attribution_targets=[FeatureAt(0, quiet, 3)])


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"a": torch.ones(24), "b": torch.ones(24)}, "none of them called 'direction'"),
        ({"direction": torch.ones(2, 24)}, "isn't one vector"),
        ({"direction": torch.full((24,), torch.nan)}, "isn't one vector of finite numbers"),
    ],
)
def test_files_without_a_direction_are_refused(tensors: dict[str, Any], said: str, tmp_path: Path) -> None:
    from circuit_tracer_cli.attribution.target_texts import read_target

    save_file(tensors, tmp_path / "v.safetensors")
    with pytest.raises(BadTarget, match=said):
        read_target(f"direction:{tmp_path}/v.safetensors@0/1")
