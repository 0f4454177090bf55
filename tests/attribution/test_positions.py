"""Targets at several positions of a prompt: the same rows as in graphs of the prompt cut there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.attention.prompts import cases
from tests.builders import PROMPT, on_both_backends, replacement

from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.attribution.target_texts import TokenAt
from circuit_tracer_cli.errors import BadPrompt, BadTarget, InvalidValue, UnsuitableValue
from circuit_tracer_cli.expansion import expand
from circuit_tracer_cli.graph.contrast import why_not
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.many.diff import diff_graphs
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.validation.subject import Subject

N = 5
"""Tokens of `PROMPT` that are the prompt; the others, and one more, complete it."""


def row(graph: Graph, node: int) -> dict[str, float]:
    """A node's inputs by id."""
    names, (columns, weights) = graph.node_ids(), graph.edges.row(node)
    return {names[at]: weight for at, weight in zip(columns.tolist(), weights.tolist(), strict=True)}


def same(ours: dict[str, float], theirs: dict[str, float]) -> bool:
    """Equal to rounding of the largest entry."""
    size = max(map(abs, theirs.values()))
    return all(abs(ours.get(key, 0) - theirs.get(key, 0)) < 1e-5 * size for key in {*ours, *theirs})


@pytest.mark.parametrize(
    ("backend_name", "family", "kind", "skip", "read", "write"), on_both_backends(cases())
)
def test_rows_of_a_completion_are_those_of_graphs_that_end_there(
    backend_name: str, family: str, kind: str, skip: bool, read: str, write: str
) -> None:
    model = replacement(family, kind, "relu", skip, read=read, write=write, backend_name=backend_name)
    follow = [*PROMPT[N:], 11]
    graph = attribute(list(PROMPT[:N]), model, completion=follow, labels=False)
    assert graph.input_tokens.tolist() == list(PROMPT)
    assert [place.position for place in graph.places] == list(range(N - 1, len(PROMPT)))
    first = graph.layout.logit_offset
    for k, token in enumerate(follow):
        cut = attribute(list(PROMPT[: N + k]), model, attribution_targets=torch.tensor([token]), labels=False)
        assert same(row(graph, first + k), row(cut, cut.layout.logit_offset))
        assert float(graph.logit_probabilities[k]) == pytest.approx(
            float(cut.logit_probabilities[0]), rel=1e-5
        )
        assert graph.node_id(first + k) == cut.node_id(cut.layout.logit_offset)


@pytest.fixture(scope="module")
def made() -> tuple[Graph, ReplacementModel]:
    """A capped graph of one token at three positions and another at the last, and its model."""
    model = replacement("llama", "plt")
    targets = [TokenAt(5, 2), "token:id:5@-3", TokenAt(5), TokenAt(6)]
    graph = attribute(
        list(PROMPT), model, attribution_targets=targets, max_feature_nodes=9, batch_size=3, update_interval=1
    )
    return graph, model


def test_a_token_at_several_positions_has_an_id_for_each(made: tuple[Graph, Any]) -> None:
    graph, _ = made
    names = [graph.node_id(node) for node in range(graph.layout.logit_offset, graph.n_nodes)]
    top = graph.cfg.n_layers + 1
    assert names == [f"{top}_5_2", f"{top}_5_4", f"{top}_5_6", f"{top}_6_6"]
    assert graph.earlier_target() == f"{top}_5_2"


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_files_keep_where_targets_stand(made: tuple[Graph, Any], tmp_path: Path, suffix: str) -> None:
    graph, _ = made
    path = tmp_path / f"graph.{suffix}"
    graph.save(path)
    again = Graph.load(path)
    assert again.places == graph.places
    assert again.node_ids() == graph.node_ids()
    assert again.rooted(graph.node_id(graph.n_nodes - 4)).scores() != graph.scores()
    assert again.prune(0.9, 0.99).node_ids() == graph.node_ids()


def test_expansion_reaches_targets_where_they_stand(made: tuple[Graph, ReplacementModel]) -> None:
    graph, model = made
    nodes = set(graph.selected_features.tolist())
    rows = graph.active_features.tolist()
    missing = [tuple(at) for place, at in enumerate(rows) if place not in nodes]
    whole = attribute(
        list(PROMPT), model, attribution_targets=[TokenAt(5, 2), TokenAt(5, 4), TokenAt(5), TokenAt(6)]
    )
    larger = expand(graph, model, missing)
    assert larger.places == graph.places
    for node in range(whole.layout.logit_offset, whole.n_nodes):
        assert same(row(larger, node), row(whole, node))


def test_what_is_about_the_next_token_refuses_others(
    made: tuple[Graph, ReplacementModel], tmp_path: Path
) -> None:
    graph, model = made
    with pytest.raises(UnsuitableValue, match="isn't the next token"):
        Subject(graph, model)
    with pytest.raises(UnsuitableValue, match="is a target at positions 2, 4, 6"):
        why_not(graph, "id:5")
    with pytest.raises(UnsuitableValue, match="can't be compared"):
        why_not(graph, 0, 3)
    assert why_not(graph, 2).answer == graph.n_nodes - 1
    graph.save(tmp_path / "a.safetensors")
    with pytest.raises(Exception, match="several positions"):
        diff_graphs(tmp_path / "a.safetensors", tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"attribution_targets": [TokenAt(5, 7)]}, BadTarget, "outside the prompt of 7 tokens"),
        ({"attribution_targets": [TokenAt(5, 2), ("v", 1.0, torch.ones(24))]}, BadTarget, "can't be mixed"),
        ({"attribution_targets": ["token:id:5@2", "id:5 - id:6"]}, BadTarget, "can't be mixed"),
        ({"attribution_targets": ["id:5"], "completion": [5]}, InvalidValue, "its own targets"),
        ({"completion": []}, BadPrompt, "completion is empty"),
    ],
)
def test_what_cannot_be_a_target_is_refused(
    made: tuple[Graph, ReplacementModel], given: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        attribute(list(PROMPT), made[1], **given)
