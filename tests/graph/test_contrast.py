"""Why one target and not another: lists that add up, and what the graph predicts without some features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from circuit_tracer_cli.attention.constants import origins
from circuit_tracer_cli.attention.prompt import freeze
from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.errors import UnsuitableValue
from circuit_tracer_cli.graph.contrast import LISTS, changes_without, target_number, total_effects, why_not
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.paths import strongest_paths
from circuit_tracer_cli.types import LogitTarget
from tests.builders import PROMPT, replacement
from tests.graph.builders import random_graph


@pytest.fixture(scope="module")
def raw() -> Graph:
    return random_graph(seed=4, n_layers=3, n_pos=3, n_features=3, n_logits=3)


def test_the_lists_and_the_rest_add_up_to_the_difference(raw: Graph) -> None:
    found = why_not(raw, 1, 0, n=1000)
    p = raw.logit_probabilities
    assert found.difference == pytest.approx(math.log(p[0] / p[1]), abs=1e-6)
    a, x = raw.adjacency_matrix[raw.layout.logit_offset : raw.layout.logit_offset + 2].double().numpy()
    assert sum(found.sums.values()) == pytest.approx(float((a - x).sum()))
    assert sum(found.sums.values()) + found.rest == pytest.approx(found.difference)
    total = np.zeros(raw.n_nodes)
    for name in LISTS:
        assert found.sums[name] == pytest.approx(sum(push.value for push in found.lists[name]))
        assert found.counts[name] == len(found.lists[name])
        for push in found.lists[name]:
            total[push.node] += push.value
            assert (push.answer, push.other) == (a[push.node], x[push.node])
    assert total == pytest.approx(a - x)


def test_each_list_holds_what_its_name_says(raw: Graph) -> None:
    lists = why_not(raw, 1, 0, n=1000).lists
    assert all(push.answer > 0 and push.other > 0 for push in lists["both"])
    assert all(push.answer > 0 and push.other <= 0 and push.value > 0 for push in lists["answer_only"])
    assert all(push.other < 0 and push.value > 0 for push in lists["other_down"])
    assert all(push.answer <= 0 and push.other > 0 and push.value < 0 for push in lists["other_only"])
    assert all(push.answer < 0 and push.value < 0 for push in lists["answer_down"])
    sizes = [abs(push.value) for push in lists["other_down"]]
    assert sizes == sorted(sizes, reverse=True)
    for push in lists["both"]:
        if push.node < raw.layout.n_features:
            assert push.path == strongest_paths(raw, 1, target=push.node)[0]


@pytest.mark.parametrize(("family", "kind"), [("llama", "plt"), ("gpt2", "clt")])
def test_the_rest_is_what_biases_add_in_the_model(family: str, kind: str) -> None:
    model = replacement(family, kind, "relu", kind == "plt")
    graph = attribute(list(PROMPT), model, max_n_logits=4, desired_logit_prob=1.0)
    found = why_not(graph, 3, 0)
    prompt = freeze(graph, model)
    targets = prompt.targets([found.answer, found.other])
    directions = prompt.engine.directions(targets)
    constants = origins(prompt, prompt.engine.n_layers).constants.sum(0)[-1]
    wanted = float((directions[0] - directions[1]) @ constants.to(directions))
    bias = prompt.engine.weights.ln_final.bias
    if bias is not None:
        wanted += float((targets.vectors[0] - targets.vectors[1]) @ bias.to(targets.vectors))
    logits = prompt.frozen.logits.double()
    ids = [graph.logit_targets[n].vocab_idx for n in (0, 3)]
    assert found.left_out == 0
    assert found.difference == pytest.approx(float(logits[ids[0]] - logits[ids[1]]), abs=1e-5)
    assert found.rest == pytest.approx(wanted, abs=1e-4)


def test_total_effects_are_what_single_removals_change(raw: Graph) -> None:
    first = raw.layout.logit_offset
    effects = total_effects(raw, first, first + 1)
    for node in (0, 5, 11, 20, 26):
        assert changes_without(raw, [node], first, first + 1) == pytest.approx([0, -effects[node]])
    matrix = raw.adjacency_matrix.double().numpy()
    wanted = []
    for off in ([], [14], [14, 3], [14, 3, 20]):
        change = np.zeros(raw.n_nodes)
        for node in range(raw.layout.n_features):
            change[node] = -1 if node in off else matrix[node] @ change / float(raw.activation_values[node])
        wanted.append((matrix[first] - matrix[first + 1]) @ change)
    assert changes_without(raw, [14, 3, 20], first, first + 1) == pytest.approx(wanted)


def test_targets_are_found_by_their_text_or_id(raw: Graph) -> None:
    assert [target_number(raw, name) for name in (" token1", "token1", "id:21", 1)] == [1, 1, 1, 1]
    for wrong in ("token9", "id:99", 7, -1):
        with pytest.raises(UnsuitableValue, match="not a target of the graph"):
            target_number(raw, wrong)
    direction = raw.replace(logit_targets=[LogitTarget("A - B", raw.cfg.d_vocab), *raw.logit_targets[1:]])
    with pytest.raises(UnsuitableValue, match=r"A - B.* isn.t a token"):
        target_number(direction, "A - B")


def test_the_answer_is_the_most_likely_other_target(raw: Graph) -> None:
    graph = raw.replace(logit_probabilities=torch.tensor([0.1, 0.6, 0.3]))
    first = raw.layout.logit_offset
    assert why_not(graph, 0).answer == first + 1
    assert why_not(graph, 1).answer == first + 2
    assert why_not(graph, 1).difference < 0


def test_questions_that_a_graph_cannot_answer_are_refused(raw: Graph) -> None:
    with pytest.raises(UnsuitableValue, match="whole rows"):
        why_not(raw.prune(), 1)
    with pytest.raises(UnsuitableValue, match="the same"):
        why_not(raw, 1, 1)
    with pytest.raises(UnsuitableValue, match="one target"):
        why_not(random_graph(n_logits=1), 0)
    with pytest.raises(UnsuitableValue, match="probability 0"):
        why_not(raw.replace(logit_probabilities=torch.tensor([0.5, 0.0, 0.5])), 1)
    with pytest.raises(UnsuitableValue, match="one of its nodes"):
        why_not(raw.rooted(raw.layout.logit_offset), 1)
