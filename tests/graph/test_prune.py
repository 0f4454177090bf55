from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from circuit_tracer_cli.errors import InvalidValue, UsageError
from circuit_tracer_cli.graph.edges import Edges
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import (
    compute_edge_influence,
    compute_graph_scores,
    compute_influence,
    normalize_matrix,
)
from circuit_tracer_cli.graph.prune import PruneResult, prune_graph, pruned_graph
from tests.graph.builders import golden_case, golden_names, graphs, random_graph, worked_example

THRESHOLDS = st.sampled_from([0.0, 0.3, 0.8, 0.98, 1.0])


def share_threshold(scores: torch.Tensor, threshold: float) -> float:
    ranked = scores.flatten().sort(descending=True).values
    ranked = ranked[ranked > 0]
    if not len(ranked):
        return float("inf")
    reached = (ranked.cumsum(0) / ranked.sum() >= threshold).nonzero()
    return float(ranked[int(reached[0]) if len(reached) and threshold < 1 else -1])


def prune_densely(
    graph: Graph, node_threshold: float, edge_threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition, step by step over dense matrices in float64."""
    matrix, weights, layout = graph.adjacency_matrix.double(), graph.logit_weights.double(), graph.layout
    influence = compute_influence(normalize_matrix(matrix), weights).float()
    node_mask = influence >= share_threshold(influence.double(), node_threshold)
    node_mask[layout.token_offset :] = True
    left = matrix * node_mask[:, None] * node_mask[None, :]
    scores = compute_edge_influence(left, weights).float()
    edge_mask = scores >= share_threshold(scores.double(), edge_threshold)
    while True:
        alive = node_mask.clone()
        alive[: layout.token_offset] &= edge_mask.any(0)[: layout.token_offset]
        alive[: layout.error_offset] &= edge_mask.any(1)[: layout.error_offset]
        if torch.equal(alive, node_mask):
            return node_mask, edge_mask
        node_mask = alive
        edge_mask = edge_mask & node_mask[:, None] & node_mask[None, :]


def test_worked_example() -> None:
    graph = worked_example()
    result = prune_graph(graph)
    assert result.node_mask.tolist() == [True, True, False, False, False, False, True, True, True]
    kept = {(0, 6), (0, 7), (1, 0), (1, 7), (8, 0), (8, 1), (8, 7)}
    assert {tuple(pair) for pair in result.edge_mask.nonzero().tolist()} == kept
    expected = torch.tensor([0.57018, 0.78070, 1, 0.94737, 1, 1, 0.86842, 0.30702, 1])
    torch.testing.assert_close(result.cumulative_scores, expected, atol=1e-5, rtol=0)
    assert prune_graph(graph, node_threshold=0.9).node_mask[3]


def test_result_unpacks_like_the_reference() -> None:
    result = prune_graph(worked_example())
    node_mask, edge_mask, cumulative_scores = result
    assert torch.equal(node_mask, result.node_mask)
    assert torch.equal(edge_mask, result[1])
    assert torch.equal(cumulative_scores, result.cumulative_scores)
    assert len(result) == 3
    assert (edge_mask.shape, edge_mask.dtype) == ((9, 9), torch.bool)


@settings(max_examples=30)
@given(graphs(), THRESHOLDS, THRESHOLDS)
def test_equals_the_dense_definition(graph: Graph, node_threshold: float, edge_threshold: float) -> None:
    result = prune_graph(graph, node_threshold, edge_threshold)
    nodes, edges = prune_densely(graph, node_threshold, edge_threshold)
    assert torch.equal(result.node_mask, nodes)
    assert torch.equal(result.edge_mask, edges)


@settings(max_examples=30)
@given(graphs(), THRESHOLDS, THRESHOLDS)
def test_pruned_is_part_of_the_whole(graph: Graph, node_threshold: float, edge_threshold: float) -> None:
    pruned = pruned_graph(graph, node_threshold, edge_threshold)
    assert pruned.pruning is not None
    whole, part, kept = graph.adjacency_matrix, pruned.adjacency_matrix, pruned.pruning.node_mask
    assert torch.equal(part[part != 0], whole[part != 0])
    assert not part[~kept].any()
    assert not part[:, ~kept].any()
    assert kept[graph.layout.token_offset :].all()
    features = kept[: graph.layout.error_offset].nonzero().flatten()
    assert (part[features] != 0).any(1).all()
    inner = kept[: graph.layout.token_offset].nonzero().flatten()
    assert (part[:, inner] != 0).any(0).all()


@settings(max_examples=30)
@given(graphs(), THRESHOLDS, THRESHOLDS)
def test_higher_thresholds_keep_more_nodes_before_cleaning(graph: Graph, low: float, high: float) -> None:
    assume(low <= high)
    fewer, more = prune_graph(graph, low, 1.0), prune_graph(graph, high, 1.0)
    assert not (fewer.node_mask & ~more.node_mask).any()
    edges_low, edges_high = prune_graph(graph, 0.8, low), prune_graph(graph, 0.8, high)
    assert not (edges_low.edge_keep & ~edges_high.edge_keep).any()


@settings(max_examples=30)
@given(graphs())
def test_one_keeps_every_edge_that_reaches_a_target(graph: Graph) -> None:
    result = prune_graph(graph, 1.0, 1.0)
    scores = Edges(
        graph.edges.indptr, graph.edges.indices, compute_edge_influence(graph.edges, graph.logit_weights)
    )
    reaching = scores.to_dense() > 0
    fed = reaching.any(1)
    fed[graph.layout.error_offset :] = True
    assert not (result.edge_mask & ~reaching).any()
    if fed[: graph.layout.error_offset].all():
        assert torch.equal(result.edge_mask, reaching)


def test_zero_keeps_the_strongest_edge_only() -> None:
    result = prune_graph(random_graph(density=1.0), 1.0, 0.0)
    assert int(result.edge_keep.sum()) <= 1


def test_no_edges_at_all() -> None:
    graph = random_graph(density=0.0)
    result = prune_graph(graph)
    assert result.node_mask.nonzero().flatten().tolist() == list(
        range(graph.layout.token_offset, graph.n_nodes)
    )
    assert result.cumulative_scores.tolist() == [1.0] * graph.n_nodes
    assert compute_graph_scores(graph)[0] == 0.0


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("name", ["node_threshold", "edge_threshold"])
def test_thresholds_outside_are_refused(name: str, value: float) -> None:
    graph = worked_example()
    for prune in (prune_graph, pruned_graph):
        with pytest.raises(InvalidValue, match=name):
            prune(graph, **{name: value})


def test_record_of_the_pruning() -> None:
    graph = worked_example()
    pruned = pruned_graph(graph, 0.9, 0.95)
    record = pruned.pruning
    assert record is not None
    assert (record.node_threshold, record.edge_threshold) == (0.9, 0.95)
    assert record.n_edges_before == graph.edges.nnz == 10
    assert (record.replacement_score, record.completeness_score) == compute_graph_scores(graph)
    assert compute_graph_scores(pruned) == compute_graph_scores(graph)
    assert graph.pruning is None


def test_pruning_again_takes_the_stored_masks() -> None:
    pruned = pruned_graph(worked_example(), 0.9, 0.95)
    assert pruned_graph(pruned) is pruned
    assert pruned_graph(pruned, 0.9, 0.95) is pruned
    again = prune_graph(pruned, 0.9, 0.95)
    assert isinstance(again, PruneResult)
    assert again.edge_keep.all()
    assert pruned.pruning is not None
    assert torch.equal(again.node_mask, pruned.pruning.node_mask)
    for call in (lambda: pruned_graph(pruned, 0.5), lambda: prune_graph(pruned)):
        with pytest.raises(UsageError, match=r"already pruned with thresholds 0\.9 and 0\.95") as caught:
            call()
        assert caught.value.hint


@pytest.mark.parametrize("name", golden_names())
def test_reference_masks(golden: Path, name: str) -> None:
    case = golden_case(golden, name)
    for which, thresholds in (("prune_default", (0.8, 0.98)), ("prune_tight", (0.5, 0.9))):
        result = prune_graph(case.graph, *thresholds)
        assert torch.equal(result.node_mask, case.tensors[f"{which}.node_mask"])
        assert torch.equal(result.edge_mask, case.edge_mask(which))
        expected = case.tensors["prune_cumulative_scores"]
        torch.testing.assert_close(result.cumulative_scores, expected, rtol=1e-5, atol=1e-6)


MEMORY = """
import torch
from circuit_tracer_cli.graph.edges import EdgesBuilder
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.prune import prune_graph
from tests.graph.builders import config, random_graph

def status(name):
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) * 1024 for line in stream if line.startswith(name))

torch.set_num_threads(1)
prune_graph(random_graph())
n_layers, n_pos, per_layer = 8, 10, 260
m = n_layers * per_layer
n_nodes = m + n_layers * n_pos + n_pos + 1
builder = EdgesBuilder(n_nodes)
for layer in range(n_layers):
    rows = torch.zeros(per_layer, n_nodes)
    rows[:, : layer * per_layer] = torch.randn(per_layer, layer * per_layer)
    rows[:, -1 - n_pos : -1] = 1
    builder.add_rows(torch.arange(layer * per_layer, (layer + 1) * per_layer), rows)
rows = torch.randn(1, n_nodes)
rows[0, -1] = 0
builder.add_rows(torch.tensor([n_nodes - 1]), rows)
features = torch.stack([torch.arange(m) // per_layer, torch.arange(m) % per_layer // 26, torch.arange(m) % 26], 1)
graph = Graph("p", torch.arange(n_pos), features, builder.build(), config(n_layers), torch.arange(m),
              torch.ones(m), [("a", 1)], torch.tensor([0.9]))
edges = graph.edges
with open("/proc/self/clear_refs", "w") as stream:
    stream.write("5")
before = status("VmRSS")
prune_graph(graph)
print(edges.nnz, (status("VmHWM") - before) / edges.nbytes)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's count of peak memory")
def test_pruning_needs_less_than_half_the_edges_on_top(request: pytest.FixtureRequest) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        capture_output=True,
        text=True,
        check=True,
        cwd=request.config.rootpath,
    )
    n_edges, extra = done.stdout.split()
    assert int(n_edges) > 1_900_000
    assert float(extra) < 0.5
