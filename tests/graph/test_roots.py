"""A graph asked about one of its own nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from circuit_tracer_cli.errors import UnsuitableValue
from circuit_tracer_cli.export.viewer import create_graph_files
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import compute_influence, normalize_matrix
from circuit_tracer_cli.graph.paths import strongest_nodes, strongest_paths
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.graph.store import load_graph
from tests.graph.builders import random_graph, worked_example


@pytest.fixture(scope="module")
def raw() -> Graph:
    return random_graph(seed=3, n_layers=3, n_pos=3, n_features=3, n_logits=2)


def the_same_question(raw: Graph, node: int) -> Graph:
    """A graph whose only target has the row of `node`, and in which that node and those after it have none."""
    matrix = raw.adjacency_matrix
    last = torch.zeros(1, raw.n_nodes)
    last[0] = matrix[node]
    first = raw.layout.logit_offset
    matrix = torch.cat([matrix[:first], last])[:, : first + 1]
    return raw.replace(
        adjacency_matrix=matrix, logit_targets=raw.logit_targets[:1], logit_probabilities=torch.ones(1)
    )


def test_a_root_is_explained_as_a_target_with_its_row_would_be(raw: Graph) -> None:
    node = 25  # a feature of the last layer
    rooted, alike = raw.rooted(node), the_same_question(raw, node)
    assert rooted.root == node
    assert raw.root is None
    assert rooted.scores() == pytest.approx(alike.scores(), abs=1e-6)
    first = raw.layout.logit_offset
    ours, theirs = rooted.prune(0.7, 0.9), alike.prune(0.7, 0.9)
    assert ours.pruning is not None
    assert theirs.pruning is not None
    expected = theirs.pruning.node_mask[:first].clone()
    expected[node] = True
    assert torch.equal(ours.pruning.node_mask[:first], expected)
    assert not bool(ours.pruning.node_mask[first:].any())
    assert torch.equal(ours.adjacency_matrix[node, :first], theirs.adjacency_matrix[first, :first])
    found = [(path.nodes[:-1], path.strength) for path in strongest_paths(rooted, 4)]
    wanted = [(path.nodes[:-1], path.strength) for path in strongest_paths(alike, 4)]
    assert [nodes for nodes, _ in found] == [nodes for nodes, _ in wanted]
    assert [s for _, s in found] == pytest.approx([s for _, s in wanted])


def test_influence_on_a_root_follows_the_definition(raw: Graph) -> None:
    rooted = raw.rooted(raw.node_id(25))
    weights = torch.zeros(raw.n_nodes)
    weights[25] = 1
    influence = compute_influence(normalize_matrix(raw.adjacency_matrix), weights)
    inner = influence[: raw.layout.token_offset]
    assert [node for node, _ in strongest_nodes(rooted, 3)] == inner.topk(3).indices.tolist()


def test_all_weight_on_one_target_is_that_target_as_root(raw: Graph) -> None:
    target = raw.layout.logit_offset + 1
    alone = raw.replace(logit_probabilities=torch.tensor([0.0, 1.0]))
    rooted = raw.rooted(target)
    assert rooted.scores() == pytest.approx(alone.scores(), abs=1e-6)
    assert torch.equal(rooted.prune().edges.indices, alone.prune().edges.indices)
    assert rooted.rooted(None).scores() == raw.scores()


def test_the_root_is_written_and_read_back(raw: Graph, tmp_path: Path) -> None:
    name = raw.node_id(25)
    for graph in (raw.rooted(25), raw.rooted(25).prune()):
        graph.save(tmp_path / "g.safetensors")
        assert load_graph(tmp_path / "g.safetensors").root == 25
    create_graph_files(raw.rooted(25), "g", tmp_path)
    file = json.loads((tmp_path / "g.json").read_text())
    assert file["metadata"]["root"] == name
    (top,) = [node for node in file["nodes"] if node["is_target_logit"]]
    assert (top["node_id"], top["token_prob"], top["influence"]) == (name, 1.0, None)
    assert not [node for node in file["nodes"] if node["feature_type"] == "logit"]
    assert {link["target"] for link in file["links"]} >= {name}
    assert not [link for link in file["links"] if link["source"] == name]


def test_of_a_pruned_graph_only_what_leads_to_the_root_is_left() -> None:
    pruned = worked_example().prune(1.0, 1.0)
    rooted = pruned.rooted("0/7@1")
    assert rooted.pruning is not None
    assert rooted.pruning.node_mask.nonzero().flatten().tolist() == [0, 6, 7]
    assert rooted.edges.nnz == 2
    assert rooted.scores() == (1.0, 1.0)
    with pytest.raises(UnsuitableValue, match="already pruned"):
        pruned_graph(rooted, 0.5)
    with pytest.raises(UnsuitableValue, match="can no longer explain its targets"):
        rooted.rooted(None)
    with pytest.raises(UnsuitableValue, match="removed by pruning"):
        worked_example().prune(0.5, 0.5).rooted("0/7@1").rooted("1/9@1")


def test_what_nothing_enters_is_no_root(raw: Graph) -> None:
    for node in (raw.layout.error_offset, raw.layout.token_offset):
        with pytest.raises(UnsuitableValue, match="has no inputs to explain"):
            raw.rooted(node)
    with pytest.raises(UnsuitableValue, match="has no node 9/9@0"):
        raw.rooted("9/9@0")
    with pytest.raises(UnsuitableValue, match="there is no node"):
        raw.rooted(10**6)
