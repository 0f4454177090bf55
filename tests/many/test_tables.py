"""Graphs as tables, and questions to them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from circuit_tracer_cli.errors import CircuitTracerError, MissingFile, UsageError
from circuit_tracer_cli.export.viewer import create_graph_files
from circuit_tracer_cli.graph.heads import HEADS
from circuit_tracer_cli.many.facts import facts_of_graph
from circuit_tracer_cli.many.tables import TABLES, query, tables, write_tables
from tests.graph.builders import random_graph

pytest.importorskip("duckdb")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three raw graphs."""
    path = tmp_path_factory.mktemp("graphs")
    for seed in range(3):
        random_graph(seed=seed, n_layers=3, n_pos=4).save(path / f"g{seed}.safetensors")
    write_tables(path)
    return path


def test_tables_say_what_the_graphs_say(folder: Path) -> None:
    for seed in range(3):
        facts = facts_of_graph(random_graph(seed=seed, n_layers=3, n_pos=4), f"g{seed}")
        _, nodes = query(
            folder, f"select node, kind, layer, pos, influence, kept from nodes where graph = 'g{seed}'"
        )
        assert [row[0] for row in nodes] == facts.ids
        assert [row[2] for row in nodes] == facts.layer.tolist()
        assert np.allclose([row[4] for row in nodes], facts.influence)
        assert [row[5] for row in nodes] == facts.kept.tolist()
        _, edges = query(
            folder,
            f"select source_layer, target_layer, weight, share, flow from edges where graph = 'g{seed}'",
        )
        assert [row[0] for row in edges] == facts.layer[facts.source].tolist()
        for column, expected in zip((2, 3, 4), (facts.weight, facts.edge_share, facts.flow), strict=True):
            assert np.allclose([row[column] for row in edges], expected)


def test_heads_stand_in_a_table_where_graphs_have_some(tmp_path: Path) -> None:
    graph = random_graph(n_layers=3, n_pos=4)
    block = next(iter(graph.edges.blocks()))
    source, target, _ = next(iter(block.triples()))
    graph.metadata[HEADS] = {
        "by": "arrive",
        "links": [[source, target, [[2, 1, 3, 0.5], [0, 4, 1, -0.25]], 0.1]],
    }
    graph.save(tmp_path / "with.safetensors")
    random_graph(seed=1).save(tmp_path / "without.safetensors")
    facts = facts_of_graph(graph, "with")
    asked = "select graph, source_pos, target_layer, layer, head, from_pos, value from heads order by value"
    ends = int(facts.position[source]), int(facts.layer[target])
    expected = [("with", *ends, 0, 4, 1, -0.25), ("with", *ends, 2, 1, 3, 0.5)]
    assert query(tmp_path, asked)[1] == expected
    assert not (tmp_path / "tables" / "heads" / "without.parquet").exists()


def test_heads_of_the_viewers_files_are_in_the_table_too(tmp_path: Path, folder: Path) -> None:
    graph = random_graph(n_layers=3, n_pos=4)
    pruned = graph.prune()
    source, target, _ = next(iter(next(iter(pruned.edges.blocks())).triples()))
    graph.metadata[HEADS] = {"by": "arrive", "links": [[source, target, [[2, 1, 3, 0.5]], 0.1]]}
    create_graph_files(graph, "a", tmp_path)
    assert query(tmp_path, "select graph, layer, head, from_pos, value from heads")[1] == [
        ("a", 2, 1, 3, 0.5)
    ]
    names, rows = query(folder, "select * from heads")
    assert rows == []
    assert names[:2] == ["graph", "source_kind"]
    assert names == query(tmp_path, "select * from heads")[0]


def test_errors_and_tokens_keep_their_own_numbers(folder: Path) -> None:
    _, rows = query(
        folder,
        "select distinct kind, feature, token from nodes where kind in ('error', 'token') order by all",
    )
    assert ("error", -1, -1) in rows
    assert ("token", -1, 5) in rows


def test_only_new_graphs_are_written_again(folder: Path, tmp_path: Path) -> None:
    assert write_tables(folder).new == 0
    changed = tmp_path / "one"
    changed.mkdir()
    random_graph().save(changed / "g.safetensors")
    assert write_tables(changed).new == 1
    later = (changed / "tables" / "edges" / "g.parquet").stat().st_mtime + 10
    os.utime(changed / "g.safetensors", (later, later))
    assert write_tables(changed).new == 1
    assert not [path for path in changed.rglob("*") if path.name.startswith(".")]


def test_graph_files_are_read_where_there_are_no_raw_graphs(tmp_path: Path) -> None:
    create_graph_files(random_graph(), "a", tmp_path)
    assert query(tmp_path, "select graph, whole from graphs")[1] == [("a", False)]


def test_columns_of_the_users_own_stand_beside(tmp_path: Path) -> None:
    random_graph().save(tmp_path / "g.safetensors")
    line = {"graph": "g", "prompt": "a", "slug": "g", "city": "Dallas", "group": "Texas"}
    (tmp_path / "batch.jsonl").write_text(json.dumps(line))
    assert query(tmp_path, 'select x_city, "group" from graphs')[1] == [("Dallas", "Texas")]


@pytest.mark.parametrize(
    "sql",
    ["select 1; select 2", "copy nodes to 'x.csv'", "drop view nodes", "install httpfs", "attach 'x.db'"],
)
def test_nothing_but_one_select_is_run(folder: Path, sql: str) -> None:
    with pytest.raises(UsageError, match="single SELECT"):
        query(folder, sql)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select * from read_text('/etc/hostname')", "disabled"),
        ("select nope from nodes", "nope"),
        ("selec 1", "isn't valid SQL"),
    ],
)
def test_bad_queries_are_refused_in_one_line(folder: Path, sql: str, message: str) -> None:
    with pytest.raises(CircuitTracerError, match=message) as caught:
        query(folder, sql)
    assert "\n" not in caught.value.message


def test_a_folder_without_graphs_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="has no graphs"):
        write_tables(tmp_path)
    with pytest.raises(MissingFile, match="no such folder"):
        tables(tmp_path / "absent")


def test_every_table_has_a_row_for_each_graph(folder: Path) -> None:
    for table in TABLES:
        _, rows = query(folder, f"select distinct graph from {table} order by 1")
        assert rows == [("g0",), ("g1",), ("g2",)]


def test_a_query_that_needs_more_memory_than_it_may_have_spills(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spill"))
    (tmp_path / "spill").mkdir()
    monkeypatch.setattr("circuit_tracer_cli.many.tables.MEMORY_LIMIT", "48MB")
    sql = "select count(*) from (select i, count(*), min(i + 1) from range(3000000) t(i) group by i)"
    assert query(folder, sql)[1] == [(3_000_000,)]
    assert not list((tmp_path / "spill").iterdir())
