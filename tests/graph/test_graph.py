from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from circuit_tracer_cli.errors import CircuitTracerError, InvalidValue
from circuit_tracer_cli.graph.edges import Edges
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.influence import compute_graph_scores
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.types import LogitTarget, UnifiedConfig
from tests.graph.builders import CONFIG, assert_same, graphs, random_graph, worked_example


def test_fields_and_order() -> None:
    graph = worked_example()
    assert (graph.n_pos, graph.n_nodes, graph.vocab_size) == (2, 9, CONFIG.d_vocab)
    kinds = [graph.node_kind(node) for node in range(9)]
    assert kinds == ["feature"] * 2 + ["error"] * 4 + ["token"] * 2 + ["logit"]
    expected = ["0_7_1", "1_9_1", "0_-1_0", "0_-1_1", "1_-1_0", "1_-1_1", "E_3_0", "E_4_1", "3_5_1"]
    assert graph.node_ids() == expected
    assert [graph.node_id(node) for node in range(9)] == expected
    assert graph.logit_weights.tolist() == pytest.approx([0.0] * 8 + [0.6])
    assert "features=2" in repr(graph)
    assert graph.prompt_tokens == ["a", " b"]
    assert random_graph(metadata={"prompt_tokens": ["one too few"]}).prompt_tokens is None


@pytest.mark.parametrize("node", [-1, 9])
def test_node_outside(node: int) -> None:
    for ask in (worked_example().node_kind, worked_example().node_id):
        with pytest.raises(IndexError):
            ask(node)


@settings(max_examples=30)
@given(graphs())
def test_ids_are_unique(graph: Graph) -> None:
    ids = graph.node_ids()
    assert len(set(ids)) == len(ids) == graph.n_nodes


def test_error_id_differs_from_the_feature_of_the_same_numbers() -> None:
    active = torch.tensor([[0, 0, 1], [0, 1, 1]])
    graph = random_graph(n_features=0)
    base = {name: getattr(graph, name) for name in ("input_string", "input_tokens", "cfg", "logit_targets")}
    clash = Graph(
        **base,
        active_features=active,
        selected_features=torch.arange(2),
        activation_values=torch.ones(2),
        adjacency_matrix=torch.zeros(13, 13),
        logit_probabilities=graph.logit_probabilities,
    )
    assert len(set(clash.node_ids())) == 13


def test_repeated_target_gets_its_own_id() -> None:
    graph = random_graph(
        n_logits=3, logit_targets=[LogitTarget("a", 7), LogitTarget("a", 7), LogitTarget("b", 8)]
    )
    assert graph.node_ids()[-3:] == ["3_7_2", "3_7_2_2", "3_8_2"]


def test_matrix_may_be_dense_or_compressed() -> None:
    graph = worked_example()
    dense = graph.adjacency_matrix
    assert dense.dtype == torch.float32
    again = random_graph(5)
    other = random_graph(5, adjacency_matrix=Edges.from_dense(again.adjacency_matrix))
    assert torch.equal(again.adjacency_matrix, other.adjacency_matrix)
    graph.adjacency_matrix = dense * 2
    assert torch.equal(graph.adjacency_matrix, dense * 2)


def test_half_precision_matrix_becomes_float32() -> None:
    matrix = random_graph(5).adjacency_matrix
    assert random_graph(5, adjacency_matrix=matrix.to(torch.bfloat16)).adjacency_matrix.dtype == torch.float32


def test_targets_as_ids() -> None:
    legacy = random_graph(logit_targets=torch.tensor([4, 60]))
    assert legacy.logit_targets == [LogitTarget("", 4), LogitTarget("", 60)]
    assert torch.equal(legacy.logit_token_ids, torch.tensor([4, 60]))
    with pytest.warns(DeprecationWarning, match="logit_token_ids"):
        assert legacy.logit_tokens.dtype == torch.int64


def test_to_moves_in_place() -> None:
    graph = worked_example()
    graph.to("cpu")
    assert graph.adjacency_matrix.device.type == "cpu"


def test_config_may_be_a_dict() -> None:
    graph = random_graph(cfg=CONFIG.to_dict() | {"unknown": 1})
    assert isinstance(graph.cfg, UnifiedConfig)
    assert graph.cfg == CONFIG


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cfg": {"n_layers": 2}}, "incomplete"),
        ({"cfg": CONFIG.to_dict() | {"n_layers": "2"}}, "n_layers"),
        ({"cfg": CONFIG.to_dict() | {"tokenizer_name": 3}}, "tokenizer_name"),
        ({"input_string": 3}, "string"),
        ({"input_tokens": torch.zeros(0, dtype=torch.int64)}, "at least one id"),
        ({"input_tokens": torch.zeros(2, dtype=torch.int64)}, "outside the model's layers or the prompt"),
        ({"active_features": torch.zeros(12, 2, dtype=torch.int64)}, "shape"),
        ({"active_features": torch.full((12, 3), -1)}, "outside the model's layers"),
        ({"active_features": torch.full((12, 3), 2)}, "outside the model's layers"),
        ({"activation_values": torch.ones(11)}, "12 floats"),
        ({"activation_values": torch.ones(12, dtype=torch.int64)}, "12 floats"),
        ({"selected_features": torch.arange(11)}, "the adjacency matrix has"),
        ({"selected_features": torch.arange(12).flip(0)}, "ascend"),
        ({"selected_features": torch.arange(1, 13)}, "must be in 0..11"),
        ({"logit_probabilities": torch.ones(3)}, "2 floats"),
        ({"logit_probabilities": torch.tensor([0.1, NAN])}, "NaN"),
        ({"logit_targets": [("a", 1, 2), ("b", 2)]}, "pair"),
        ({"logit_targets": [("a", "1"), ("b", 2)]}, "pair"),
        ({"adjacency_matrix": torch.zeros(22, 23)}, "square"),
        ({"adjacency_matrix": torch.full((23, 23), NAN)}, "NaN"),
        ({"adjacency_matrix": torch.zeros(5, 5)}, "has 5 nodes"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        random_graph(**changes)


def test_networkx_runs_from_source_to_target() -> None:
    graph = worked_example()
    found = graph.to_networkx()
    assert (found.number_of_nodes(), found.number_of_edges()) == (9, 10)
    assert found.edges["0_7_1", "1_9_1"]["weight"] == 3
    assert found.edges["E_3_0", "0_7_1"]["weight"] == -1
    assert found.nodes["1_9_1"] == {
        "index": 1, "kind": "feature", "position": 1, "layer": 1, "feature": 9, "activation": 2.0
    }  # fmt: skip
    assert found.nodes["3_5_1"]["token"] == " c"
    assert found.nodes["3_5_1"]["probability"] == pytest.approx(0.6)
    kept = pruned_graph(graph).to_networkx()
    assert sorted(kept.nodes) == ["0_7_1", "1_9_1", "3_5_1", "E_3_0", "E_4_1"]
    assert kept.nodes["0_7_1"]["influence"] == pytest.approx(0.57018, abs=1e-5)


def test_dataframe_lists_the_edges() -> None:
    table = worked_example().to_dataframe()
    assert list(table.columns) == ["source", "target", "source_kind", "target_kind", "weight"]
    assert len(table) == 10
    into = table[table["target"] == "1_9_1"]
    assert dict(zip(into["source"], into["weight"], strict=True)) == {
        "0_7_1": 3.0,
        "0_-1_1": 0.5,
        "E_4_1": 0.5,
    }
    assert set(into["target_kind"]) == {"feature"}
    assert list(into["source_kind"]) == ["feature", "error", "token"]


@pytest.mark.parametrize(("method", "package"), [("to_networkx", "networkx"), ("to_dataframe", "pandas")])
def test_missing_package_says_how_to_get_it(
    method: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(CircuitTracerError, match="isn't installed") as caught:
        getattr(worked_example(), method)()
    assert caught.value.hint == f"pip install {package}"


def test_package_offers_its_names_late() -> None:
    import circuit_tracer_cli.graph as package

    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)
    with pytest.raises(AttributeError):
        _ = package.no_such_name
    assert builtins.callable(package.load_graph)


def test_a_graph_does_by_its_methods_what_the_functions_do(tmp_path: Path) -> None:
    graph = random_graph(density=0.3)
    graph.save(tmp_path / "g.safetensors")
    assert_same(Graph.load(tmp_path / "g.safetensors"), graph)
    assert graph.scores() == compute_graph_scores(graph)
    assert_same(graph.prune(0.7, 0.9), pruned_graph(graph, 0.7, 0.9))
    assert graph.prune().pruning is not None


def test_replacing_a_field_leaves_the_graph_as_it_was() -> None:
    graph = random_graph()
    other = graph.replace(metadata={"model": "m"}, scan="user/set")
    assert (other.metadata, other.scan) == ({"model": "m"}, "user/set")
    assert other.edges is graph.edges
    assert graph.scan != "user/set"
    assert_same(graph.replace(), graph)
    with pytest.raises(InvalidValue, match="floats, one per target"):
        graph.replace(logit_targets=[])
    with pytest.raises(TypeError, match="unexpected keyword"):
        graph.replace(colour="red")
