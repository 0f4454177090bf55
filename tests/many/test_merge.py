"""Graphs of many prompts merged into one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuit_tracer_cli.errors import CircuitTracerError, InvalidValue
from circuit_tracer_cli.export.graph_json import read_graph_json, write_graph_json
from circuit_tracer_cli.export.records import GraphFile
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.many import merge
from circuit_tracer_cli.many.align import align
from circuit_tracer_cli.many.facts import TOKEN, Array, facts_of_graph
from circuit_tracer_cli.many.merge import bootstrap, compare_groups, corrected
from circuit_tracer_cli.many.merged_file import MERGED, graph_file_of, merge_files
from tests.graph.builders import random_graph


def saved(folder: Path, *graphs: Graph, start: int = 0) -> list[Path]:
    """Raw graph files."""
    paths = []
    for number, graph in enumerate(graphs, start):
        path = folder / f"g{number}.safetensors"
        graph.save(path)
        paths.append(path)
    return paths


def written(path: Path, file: GraphFile) -> Path:
    """A graph file on disk, as `merge` leaves it."""
    with path.open("wb") as stream:
        write_graph_json(stream, file.metadata, file.qParams, file.nodes, file.links)
    return path


def values(file: GraphFile) -> dict[Any, dict[str, float]]:
    """Numbers of all nodes and links."""
    found: dict[Any, dict[str, float]] = {node.node_id: node.extra[MERGED] for node in file.nodes}
    found.update({(link.source, link.target): link.extra[MERGED] for link in file.links})
    return found


def test_copies_of_a_graph_merge_to_the_graph(tmp_path: Path) -> None:
    graph = random_graph()
    file = graph_file_of(merge_files(saved(tmp_path, graph, graph, graph)), "m")
    facts = facts_of_graph(graph, "g")
    kept = {name for name, here in zip(facts.ids, facts.kept.tolist(), strict=True) if here}
    assert {node.node_id for node in file.nodes} == kept
    texts = {node.node_id: node.clerp for node in file.nodes if node.feature_type == "embedding"}
    assert texts == {
        name: facts.tokens[position]
        for name, kind, position in zip(facts.ids, facts.kind, facts.position, strict=True)
        if kind == TOKEN and name in kept
    }
    weights = {(link.source, link.target): link.weight for link in file.links}
    assert weights == pytest.approx(
        {
            (facts.ids[s], facts.ids[t]): w
            for s, t, w in zip(
                facts.source.tolist(), facts.target.tolist(), facts.weight.tolist(), strict=True
            )
        }
    )
    for numbers in values(file).values():
        assert numbers["frequency"] == 1
        assert numbers["sd"] == pytest.approx(0, abs=1e-7)
        assert numbers["low"] == pytest.approx(numbers["mean_share"], rel=1e-5)


def test_the_order_of_graphs_does_not_matter(tmp_path: Path) -> None:
    paths = saved(tmp_path, *(random_graph(seed=seed) for seed in range(3)))
    found = [
        {
            k: {n: v for n, v in x.items() if n not in ("low", "high")}
            for k, x in values(graph_file_of(u, "m")).items()
        }
        for u in (merge_files(list(order)) for order in (paths, paths[::-1], [paths[1], paths[0], paths[2]]))
    ]
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for key, numbers in other.items():
            assert numbers == pytest.approx(found[0][key])


@pytest.mark.parametrize("least", [0.0, 0.5])
def test_sums_that_wait_in_a_file_add_up_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: float
) -> None:
    paths = saved(tmp_path, *(random_graph(seed=seed, density=0.4) for seed in range(5)))
    in_memory = merge_files(paths, least=least).merged
    written: list[int] = []
    part_of = merge._part_of

    def counted(keys: Array) -> Array:
        written.append(len(keys))
        return part_of(keys)

    monkeypatch.setattr(merge, "KEYS_IN_MEMORY", 20)
    monkeypatch.setattr(merge, "_part_of", counted)
    spilled = merge_files(paths, least=least).merged
    assert len(written) > 4
    for name in ("nodes", "edges"):
        one, other = getattr(in_memory, name), getattr(spilled, name)
        assert len(one.keys)
        np.testing.assert_array_equal(one.keys, other.keys)
        for column in ("n_seen", "mean_share", "sd", "mean_value", "stability", "low", "high"):
            np.testing.assert_allclose(getattr(one, column), getattr(other, column), rtol=1e-9, atol=1e-12)


def test_merging_merged_graphs_is_merging_all(tmp_path: Path) -> None:
    graphs = [random_graph(seed=seed, density=0.4) for seed in range(5)]
    paths = saved(tmp_path, *graphs)
    parts = [
        written(tmp_path / f"m{i}.json", graph_file_of(merge_files(some), f"m{i}"))
        for i, some in enumerate((paths[:2], paths[2:]))
    ]
    whole, from_parts = (
        values(graph_file_of(merge_files(paths), "w")),
        values(graph_file_of(merge_files(parts), "p")),
    )
    assert whole.keys() == from_parts.keys()
    for key, numbers in from_parts.items():
        assert "low" not in numbers
        assert numbers == pytest.approx({name: whole[key][name] for name in numbers}, abs=1e-9)


def test_means_count_graphs_without_the_node_as_zero(tmp_path: Path) -> None:
    a, b = random_graph(seed=2), random_graph(seed=2)
    b.active_features[0, 2] = 40  # feature 0 of layer 0 at position 0 becomes another one
    file = graph_file_of(merge_files(saved(tmp_path, a, b)), "m")
    facts = facts_of_graph(a, "a")
    total = facts.influence / facts.influence.sum()
    assert facts.kept[0]
    numbers = values(file)["0_0_0"]
    assert numbers["frequency"] == 0.5
    assert numbers["mean_share"] == pytest.approx(total[0] / 2)
    assert numbers["mean_share_seen"] == pytest.approx(total[0])
    assert "0_40_0" in values(file)


def test_only_what_is_frequent_enough_is_kept(tmp_path: Path) -> None:
    paths = saved(tmp_path, *(random_graph(seed=seed, density=0.5) for seed in range(4)))
    file = graph_file_of(merge_files(paths, least=0.75), "m")
    assert min(numbers["frequency"] for numbers in values(file).values()) >= 0.75
    names = {node.node_id for node in file.nodes}
    assert all({link.source, link.target} <= names for link in file.links)
    with pytest.raises(InvalidValue, match="between 0 and 1"):
        merge_files(paths, least=2)


def test_the_file_is_one_that_the_viewer_reads(tmp_path: Path) -> None:
    paths = saved(tmp_path, *(random_graph(seed=seed) for seed in range(2)))
    path = written(tmp_path / "m.json", graph_file_of(merge_files(paths), "m"))
    file = read_graph_json(path.read_bytes())
    assert file.metadata.extra[MERGED]["n"] == 2
    assert sum(node.is_target_logit for node in file.nodes) == 1
    stored = json.loads(path.read_bytes())
    assert {node[MERGED]["n_seen"] for node in stored["nodes"]} == {1, 2}
    assert all(link[MERGED]["n_seen"] in (1, 2) for link in stored["links"])
    target = next(node for node in stored["nodes"] if node["feature_type"] == "logit")
    expected = np.mean([float(random_graph(seed=seed).logit_probabilities[0]) for seed in range(2)])
    assert target["token_prob"] == pytest.approx(expected)


def test_bootstrap_bounds_are_those_of_resampled_means() -> None:
    shares = np.random.default_rng(0).random((12, 3)).astype(np.float32)
    low, high = bootstrap(shares, seed=1)
    rng = np.random.default_rng(7)
    means = np.array([shares[rng.integers(0, 12, 12)].mean(axis=0) for _ in range(20_000)])
    assert np.allclose([low, high], np.quantile(means, [0.025, 0.975], axis=0), atol=0.02)


def test_all_splits_of_small_groups_are_tried() -> None:
    shares = np.array([[0.0], [0.1], [0.2], [0.3], [0.4], [1.0], [1.1], [1.2], [1.3], [1.4]])
    test = compare_groups(shares.astype(np.float32), ["a"] * 5 + ["b"] * 5)
    assert test.p[0] == pytest.approx(2 / 252)  # of the 252 splits this one and its mirror image
    assert test.delta[0] == 1
    assert test.difference[0] == pytest.approx(1.0)


def test_small_groups_have_no_p_value() -> None:
    test = compare_groups(np.ones((6, 2), dtype=np.float32), ["a"] * 4 + ["b"] * 2)
    assert np.isnan(test.p).all()
    assert np.isnan(test.q).all()


def test_q_values_of_a_known_example() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005, np.nan])
    assert corrected(p)[:4] == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert np.isnan(corrected(p)[4])


def test_graphs_of_different_sets_are_not_merged(tmp_path: Path) -> None:
    paths = saved(tmp_path, random_graph(), random_graph(scan="else/where"))
    with pytest.raises(CircuitTracerError, match="different transcoder sets"):
        merge_files(paths)
    assert align([facts_of_graph(random_graph(), "g")]).level == "exact"
