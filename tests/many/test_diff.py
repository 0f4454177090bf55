"""Two graphs compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given

from circuit_tracer_cli.export.viewer import create_graph_files
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.many.diff import diff_facts, path_lengths, threshold_noise
from circuit_tracer_cli.many.facts import facts_of_graph, read_facts
from tests.graph.builders import graphs, random_graph, worked_example


def changed(graph: Graph, factor: float) -> Graph:
    """The same graph with the activations, and the weights from features, scaled: gains are unchanged."""
    matrix = graph.adjacency_matrix
    m = len(graph.selected_features)
    matrix[:, :m] *= factor
    return random_graph(adjacency_matrix=matrix, activation_values=graph.activation_values * factor)


@given(graphs())
def test_a_graph_does_not_differ_from_itself(graph: Graph) -> None:
    facts = facts_of_graph(graph, "a")
    diff = diff_facts(facts, facts)
    assert sorted(diff.of_class("shared")) == sorted(
        name for name, kept in zip(facts.ids, facts.kept.tolist(), strict=True) if kept
    )
    assert diff.of_class("only_a") == diff.of_class("only_b") == diff.of_class("pruned_only") == []
    assert diff.scores["jaccard"] == diff.scores["weighted_jaccard"] == 1
    assert diff.scores["cosine"] == pytest.approx(1)
    assert diff.scores["shared_influence"] == pytest.approx(1)
    assert all(c.a == c.b and not c.by_activation and not c.by_path for c in diff.changes)


def test_a_change_is_split_into_activation_and_path() -> None:
    graph = random_graph()
    a, b = facts_of_graph(graph, "a"), facts_of_graph(changed(graph, 1.5), "b")
    for change in diff_facts(a, b).changes:
        expected = 0.5 * change.a if change.kind == "feature" else 0.0
        assert change.by_activation == pytest.approx(expected, rel=1e-5)
        assert change.by_path == pytest.approx(0, abs=1e-6)


def test_the_changes_sum_to_that_of_the_target() -> None:
    first, second = random_graph(seed=1), random_graph(seed=2, n_pos=4)
    diff = diff_facts(facts_of_graph(first, "a"), facts_of_graph(second, "b"))
    targets = first.layout.logit_offset, second.layout.logit_offset
    before, after = (
        float(g.adjacency_matrix[t].double().sum()) for g, t in zip((first, second), targets, strict=True)
    )
    assert sum(c.b - c.a for c in diff.changes) == pytest.approx(after - before, abs=1e-6)
    for c in diff.changes:
        assert c.by_activation + c.by_path == pytest.approx(c.b - c.a, abs=1e-9)


def test_what_pruning_cut_is_told_from_what_is_not_there() -> None:
    graph = worked_example()
    loose, tight = facts_of_graph(graph, "loose", 1.0, 1.0), facts_of_graph(graph, "tight", 0.3, 0.3)
    diff = diff_facts(loose, tight)
    assert diff.of_class("pruned_only")
    assert not diff.of_class("only_a")
    without = worked_example()
    without.active_features[0, 2] = 8  # another feature in its place
    diff = diff_facts(loose, facts_of_graph(without, "without", 1.0, 1.0))
    assert diff.of_class("only_a") == ["0_7_1"]
    assert diff.of_class("only_b") == ["0_8_1"]


def test_a_viewer_file_has_the_facts_of_the_pruned_graph(tmp_path: Path) -> None:
    pruned = pruned_graph(random_graph(n_layers=3, n_pos=4))
    create_graph_files(pruned, "g", tmp_path)
    file, graph = read_facts(tmp_path / "g.json"), facts_of_graph(pruned, "g")
    assert file.n_layers == graph.n_layers
    assert file.targets == graph.targets
    place = {name: i for i, name in enumerate(graph.ids)}
    chosen = np.array([place[name] for name in file.ids])
    for name in ("kind", "layer", "feature", "position"):
        assert np.array_equal(getattr(file, name), getattr(graph, name)[chosen]), name
    assert np.allclose(file.influence, graph.influence[chosen])
    assert np.allclose(file.share, graph.share[chosen])
    assert file.flow.sum() == pytest.approx(graph.flow.sum())
    assert diff_facts(file, graph).scores["weighted_jaccard"] == pytest.approx(1)


def test_nodes_of_a_viewer_file_alone_are_not_called_absent(tmp_path: Path) -> None:
    graph = worked_example()
    create_graph_files(graph, "tight", tmp_path, node_threshold=0.3, edge_threshold=0.3)
    diff = diff_facts(facts_of_graph(graph, "loose", 1.0, 1.0), read_facts(tmp_path / "tight.json"))
    assert diff.of_class("unknown")
    assert not diff.of_class("only_a")


def test_path_lengths_of_the_worked_example() -> None:
    facts = facts_of_graph(worked_example(), "a", 1.0, 1.0)
    # y reads f0 1/5, f1 2/5, errors .5/5 each, t1 1/5; f1 reads f0 3/4; f0 reads tokens alone
    expected = [2 / 5, 1 / 5 + 2 / 5 * 1 / 4, 2 / 5 * 3 / 4]
    assert path_lengths(facts) == pytest.approx(expected)


def test_noise_is_what_thresholds_move() -> None:
    noise = threshold_noise(facts_of_graph(random_graph(n_layers=4, n_pos=4, n_features=3), "a"))
    assert 0 <= noise < 0.2


def test_sets_are_compared_by_place() -> None:
    a = facts_of_graph(random_graph(), "a")
    b = facts_of_graph(random_graph(scan="else"), "b")
    diff = diff_facts(a, b)
    assert diff.scores["shared_influence"] == pytest.approx(1)
    assert torch.equal(torch.tensor(diff.nodes[0].share), torch.tensor(diff.nodes[1].share))
