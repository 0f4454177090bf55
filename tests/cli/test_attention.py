"""`heads` and `attend` on a tiny model: tables, JSON, stored heads, and what can't be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.cli.conftest import Run


@pytest.fixture(scope="module")
def strongest(raw_graph: Path) -> tuple[str, str]:
    """Ids of the ends of the strongest edge between two positions."""
    from circuit_tracer_cli.graph.store import load_graph

    graph = load_graph(raw_graph)
    names = graph.node_ids()
    edges = [
        (abs(weight), source, target)
        for block in graph.edges.blocks()
        for source, target, weight in block.triples()
        if graph.node_kind(source) == "feature"
        and graph.node_kind(target) == "feature"
        and names[source].rsplit("_", 1)[1] != names[target].rsplit("_", 1)[1]
    ]
    _, source, target = max(edges)
    return names[source], names[target]


def asked(run: Run, *arguments: object) -> Any:
    found = run(*arguments, "--json", "--quiet")
    assert found.code == 0, found.stderr
    return json.loads(found.text)


def test_heads_of_an_edge_add_up(run: Run, raw_graph: Path, strongest: tuple[str, str]) -> None:
    edge = ":".join(strongest)
    for by in ("arrive", "leave"):
        (found,) = asked(run, "heads", raw_graph, "--edge", edge, "--by", by, "-n", 3)["edges"]
        assert (found["source"], found["target"]) == strongest
        assert len(found["heads"]) == 3
        assert set(found["heads"][0]) == {"layer", "head", "position", "value"}
        assert sum(head["value"] for head in found["heads"]) + found["rest"] == pytest.approx(found["weight"])
    (through,) = asked(run, "heads", raw_graph, "--edge", edge, "--by", "through")["edges"]
    assert set(through["heads"][0]) == {"layer", "head", "value"}
    (hops,) = asked(run, "heads", raw_graph, "--edge", edge, "--by", "hops")["edges"]
    assert sum(hop["value"] for hop in hops["hops"]) == pytest.approx(hops["weight"], rel=1e-4)
    (chains,) = asked(run, "heads", raw_graph, "--edge", edge, "--by", "chains")["edges"]
    assert chains["chains"][0]["heads"][0].startswith("L")


def test_an_edge_is_named_as_show_names_it(run: Run, raw_graph: Path, strongest: tuple[str, str]) -> None:
    layer, feature, position = strongest[0].split("_")
    told = run("heads", raw_graph, "--edge", f"{layer}/{feature}@{position}:{strongest[1]}", "--why")
    assert told.code == 0
    assert f"{strongest[0]} → {strongest[1]}" in told.text
    assert "score" in told.text
    assert "%" in told.text


def test_the_why_of_every_way(run: Run, raw_graph: Path, strongest: tuple[str, str]) -> None:
    for by in ("arrive", "leave", "through"):
        (found,) = asked(run, "heads", raw_graph, "--edge", ":".join(strongest), "--by", by, "--why")["edges"]
        first, why = found["heads"][0], found["why"]
        assert (first["layer"], first["head"]) == (why["layer"], why["head"])
        if by == "arrive":
            assert why["key"] == first["position"]
        if by == "leave":
            assert why["query"] == first["position"]


def test_a_score_is_explained(run: Run, raw_graph: Path) -> None:
    found = asked(run, "attend", raw_graph, "--head", "L2H1", "--query", -1, "--key", 2)
    parts = [one["value"] for part in ("pairs", "constants") for one in found[part]]
    assert sum(parts) + found["rest"] == pytest.approx(found["score"])
    other = asked(run, "attend", raw_graph, "--head", "l2h1", "--query", -1, "--key", 1)
    difference = asked(run, "attend", raw_graph, "--head", "L2H1", "--query", -1, "--key", 2, "--against", 1)
    assert difference["score"] == pytest.approx(found["score"] - other["score"], abs=1e-5)
    row = asked(run, "attend", raw_graph, "--head", "L2H1", "--query", -1)
    assert row["pattern"][2]["value"] == pytest.approx(found["pattern"])
    assert row["key"] is None
    table = run(
        "attend", raw_graph, "--head", "L2H1", "--query", -1, "--key", 2, "--against", "rest", "--features"
    )
    assert "against the rest" in table.text
    assert run("attend", raw_graph, "--head", "L2H1", "--query", 3).text.count("\n") >= 5


@pytest.mark.parametrize("columns", ["80", "40"])
def test_tables_fit(
    run: Run, raw_graph: Path, strongest: tuple[str, str], columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for arguments in (
        ["heads", raw_graph, "--edge", ":".join(strongest)],
        ["attend", raw_graph, "--head", "L1H0", "--query", 4, "--key", 3],
    ):
        told = run(*arguments)
        assert told.code == 0
        tables = [line for line in told.text.splitlines() if "  " in line]
        assert max(map(len, tables)) <= int(columns)


def test_heads_of_all_edges_are_kept_and_exported(run: Run, raw_graph: Path, here: Path) -> None:
    pruned, kept = here / "pruned.safetensors", here / "kept.safetensors"
    assert run("prune", raw_graph, "-o", pruned).code == 0
    assert run("heads", pruned, "--all", "-o", kept).code == 0
    assert run("export", kept, "--slug", "tiny", "--graph-file-dir", here / "graphs").code == 0
    links = json.loads((here / "graphs" / "tiny.json").read_text())["links"]
    told = [link for link in links if "heads" in link]
    assert 0 < len(told) < len(links)
    printed = asked(run, "heads", pruned, "--all")["edges"]
    assert len(printed) == len(links)
    assert sum(bool(edge["heads"]) for edge in printed) == len(told)
    for link in told:
        assert len(link["heads"]) <= 4
        total = sum(head[3] for head in link["heads"]) + link["heads_rest"]
        assert total == pytest.approx(link["weight"], abs=1e-6)
        assert link["source"].rsplit("_", 1)[-1] != link["target"].rsplit("_", 1)[-1]


def test_reasons_are_kept_and_exported_as_neuronpedia_reads_them(
    run: Run, raw_graph: Path, here: Path
) -> None:
    """The file is valid by Neuronpedia's rules, and every id that a reason names can be looked up in it."""
    from circuit_tracer_cli.graph.store import load_graph

    graph = load_graph(raw_graph)
    logit = graph.layout.logit_offset
    columns, values = graph.edges.row(logit)
    ids = [graph.node_id(column) for column in columns.tolist()]
    moved = [at for at, name in enumerate(ids) if not name.endswith(f"_{graph.n_pos - 1}")]
    strongest = ids[max(moved, key=lambda at: abs(float(values[at])))], graph.node_id(logit)
    kept = here / "kept.safetensors"
    edge = ":".join(strongest)
    (told,) = asked(run, "heads", raw_graph, "--edge", edge, "--why", "-o", kept)["edges"]
    assert run("heads", kept, "--all", "-o", kept).code == 0
    assert run("export", kept, "--slug", "tiny", "--node-threshold", 0.6).code == 0
    file = json.loads((here / "graph_files" / "tiny.json").read_text())
    schema = Path(__file__).parents[1] / "export" / "neuronpedia.schema.json"
    jsonschema.validate(file, json.loads(schema.read_text()))
    assert any("heads" in link for link in file["links"])
    (node,) = [node for node in file["nodes"] if "qk_tracing_results" in node]
    assert node["node_id"] == strongest[1]
    found = node["qk_tracing_results"]
    assert found["pair_wise_contributors"] == [
        [pair["q"], pair["k"], pair["value"]] for pair in told["why"]["pairs"]
    ]
    look = {name: told["why"][name] for name in ("layer", "head", "query", "key")}
    assert node["qk_look"] == {**look, "source": strongest[0]}
    shown = {node["node_id"] for node in file["nodes"]}
    only = file["qk_only_nodes"]
    assert not shown & set(only)
    named = {name for *names, _ in found["pair_wise_contributors"] for name in names}
    named |= {name for side in "qk" for name, _ in found[f"top_{side}_marginal_contributors"]}
    assert named <= shown | set(only)
    required = json.loads(schema.read_text())["properties"]["nodes"]["items"]["required"]
    assert all(set(required) <= set(one) and one["node_id"] == name for name, one in only.items())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["heads"], 2, "name edges with --edge"),
        (["heads", "--edge", "a:b", "--all", "-o", "x.safetensors"], 2, "name edges with --edge"),
        (["heads", "--all"], 2, "--all needs a file"),
        (["heads", "--all", "--json", "-o", "-"], 2, "both write to stdout"),
        (["heads", "--all", "--json", "-n", "3"], 2, "four strongest heads of each edge, not 3"),
        (["heads", "--edge", "1/2@3"], 2, "is not SOURCE:TARGET"),
        (["heads", "--edge", "1/2@3:E_1_1", "-o", "x.safetensors"], 2, "-o needs --all or --why"),
        (["heads", "--edge", "1/2@3:E_1_1", "--by", "hops", "--why"], 2, "--why explains a single head"),
        (["heads", "--edge", "99/2@3:E_1_1"], 1, "the graph has no node 99/2@3"),
        (["heads", "--edge", "E_3_1:E_3_1"], 1, "where no edge ends"),
        (["attend", "--head", "3.2", "--query", "1"], 2, "is not written L14H3"),
        (["attend", "--head", "L9H0", "--query", "1"], 1, "there is no layer 9"),
        (["attend", "--head", "L1H9", "--query", "1"], 1, "there is no head 9"),
        (["attend", "--head", "L1H0", "--query", "70"], 1, "query position 70 is outside"),
        (["attend", "--head", "L1H0", "--query", "2", "--key", "3"], 1, "can't look ahead"),
        (["attend", "--head", "L1H0", "--query", "2", "--against", "1"], 2, "--against needs a first key"),
        (
            ["attend", "--head", "L1H0", "--query", "2", "--key", "1", "--against", "x"],
            2,
            "--against 'x' is neither a position nor rest",
        ),
        (["attend", "--head", "L1H0", "--query", "2", "-m", "nowhere/at/all"], 1, ""),
    ],
)
def test_what_can_not_be_done_is_named(
    run: Run, raw_graph: Path, arguments: list[str], code: int, message: str
) -> None:
    command, *rest = arguments
    found = run(command, raw_graph, *rest)
    assert found.code == code, found.stderr
    assert found.stderr.splitlines()[-1 if "hint" not in found.stderr else -2].startswith("error: ")
    assert message in found.stderr
    assert found.stdout == b""
