"""How steadily a fixed grid of prunings keeps nodes and edges, and where the numbers go."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from circuit_tracer_cli.errors import BadGraphFile
from circuit_tracer_cli.export import Destination, exporter
from circuit_tracer_cli.export.graph_json import read_graph_json
from circuit_tracer_cli.export.viewer import create_graph_files
from circuit_tracer_cli.graph import prune
from circuit_tracer_cli.graph.defaults import STABILITY_GRID
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import compute_edge_influence
from circuit_tracer_cli.graph.paths import strongest_edges
from circuit_tracer_cli.graph.prune import prune_graph, pruned_graph, stability_of
from circuit_tracer_cli.graph.store import load_graph, save_graph
from circuit_tracer_cli.many.facts import facts_of_file, facts_of_graph
from tests.graph.builders import random_graph


@pytest.fixture(scope="module")
def raw() -> Graph:
    return random_graph(seed=5, n_layers=4, n_pos=4, n_features=4)


@pytest.mark.parametrize("seed", [0, 5, 9])
def test_stability_counts_the_prunings_that_keep_a_node_or_an_edge(seed: int) -> None:
    raw = random_graph(seed=seed, n_layers=4, n_pos=4, n_features=4)
    results = [prune_graph(raw, *thresholds) for thresholds in STABILITY_GRID]
    found = stability_of(raw)
    assert found is not None
    assert found.nodes.tolist() == np.sum([r.node_mask.numpy() for r in results], axis=0).tolist()
    assert found.edges.tolist() == np.sum([r.edge_keep.numpy() for r in results], axis=0).tolist()
    assert len(set(found.edges.tolist())) > 4
    pruned = pruned_graph(raw)
    assert pruned.pruning is not None
    assert pruned.pruning.stability is not None
    kept = prune_graph(raw).edge_keep
    assert torch.equal(pruned.pruning.stability.edges, found.edges[kept])


def test_a_root_has_its_own_stability(raw: Graph) -> None:
    node = next(n for n in range(raw.layout.n_features - 1, 0, -1) if len(raw.edges.row(n)[0]))
    rooted = raw.rooted(node)
    results = [prune_graph(rooted, *thresholds) for thresholds in STABILITY_GRID]
    found = stability_of(rooted)
    assert found is not None
    assert found.edges.tolist() == np.sum([r.edge_keep.numpy() for r in results], axis=0).tolist()
    within = raw.prune(1, 1).rooted(node)
    assert within.pruning is not None
    assert within.pruning.stability is None


def test_a_graph_that_is_too_large_has_none(
    raw: Graph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(prune, "MOST_STEADY_EDGES", 3)
    assert stability_of(raw) is None
    pruned = pruned_graph(raw)
    assert pruned.pruning is not None
    assert pruned.pruning.stability is None
    (path, *_) = exporter("json")(pruned, Destination("g", tmp_path))
    assert all("stability" not in link for link in json.loads(path.read_bytes())["links"])
    assert strongest_edges(raw, 1)[0].stability is None


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_files_and_exports_carry_it(raw: Graph, tmp_path: Path, suffix: str) -> None:
    pruned = pruned_graph(raw)
    save_graph(pruned, tmp_path / f"p.{suffix}")
    again = load_graph(tmp_path / f"p.{suffix}")
    assert again.pruning is not None
    assert pruned.pruning is not None
    assert again.pruning.stability is not None
    assert pruned.pruning.stability is not None
    assert torch.equal(again.pruning.stability.edges, pruned.pruning.stability.edges)
    assert torch.equal(again.pruning.stability.nodes, pruned.pruning.stability.nodes)
    shares = pruned.pruning.stability.edges.numpy() / len(STABILITY_GRID)
    (path, *_) = exporter("json")(again, Destination("g", tmp_path))
    links = json.loads(path.read_bytes())["links"]
    assert [link["stability"] for link in links] == pytest.approx(shares, abs=6e-4)
    plain = json.loads(create_graph_files(raw, "plain", tmp_path)[0].read_bytes())["links"]
    assert plain == [{key: link[key] for key in ("source", "target", "weight")} for link in links]
    _, edges = exporter("csv")(again, Destination("g", tmp_path))
    rows = list(csv.DictReader(edges.read_text().splitlines()))
    assert [float(row["stability"]) for row in rows] == pytest.approx(shares, abs=6e-4)
    from_graph, from_file = (
        facts_of_graph(raw, "g").edge_stability,
        facts_of_file(read_graph_json(path.read_bytes()), "g").edge_stability,
    )
    assert sorted(from_file) == pytest.approx(sorted(from_graph), abs=6e-4)


def test_a_file_whose_counts_are_impossible_is_refused(raw: Graph, tmp_path: Path) -> None:
    pruned = pruned_graph(raw)
    assert pruned.pruning is not None
    assert pruned.pruning.stability is not None
    pruned.pruning.stability.edges[0] = 13
    save_graph(pruned, tmp_path / "p.safetensors")
    with pytest.raises(BadGraphFile, match="stability"):
        load_graph(tmp_path / "p.safetensors")


def test_another_matrix_has_no_stability_yet(raw: Graph) -> None:
    pruned = pruned_graph(raw)
    pruned.adjacency_matrix = pruned.adjacency_matrix * (pruned.adjacency_matrix > 0)
    assert pruned.pruning is not None
    assert pruned.pruning.stability is None


def test_the_strongest_edges_are_those_with_the_largest_scores(raw: Graph) -> None:
    scores, found = compute_edge_influence(raw.edges, raw.logit_weights), strongest_edges(raw, 5)
    whole = float(raw.logit_probabilities.sum())
    assert [edge.share for edge in found] == pytest.approx((scores.topk(5).values / whole).tolist())
    for edge in found:
        sources, weights = raw.edges.row(edge.target)
        assert edge.weight == float(weights[sources == edge.source])
    into_targets = [e for e in strongest_edges(raw, raw.edges.nnz) if e.target >= raw.layout.logit_offset]
    assert sum(edge.share for edge in into_targets) == pytest.approx(1, abs=1e-5)
    assert found[0].stability == 1
