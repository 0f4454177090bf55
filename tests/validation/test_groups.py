"""What the graph predicts for a group that is turned off, and what the model does."""

from __future__ import annotations

import numpy as np
import pytest

from circuit_tracer_cli import ReplacementModel, attribute, group_nodes
from circuit_tracer_cli.validation.groups import measure_groups, predicted_change
from tests.graph.test_grouping import random_circuit


def test_ablations_follow_the_prediction() -> None:
    model = ReplacementModel.from_pretrained("demo", "demo", backend="transformers")
    graph = attribute("The capital of the state containing Dallas is", model)
    found = measure_groups(graph, model, group_nodes(graph, 0.6))
    texas = found.groups[0].numbers
    assert texas["predicted"] == pytest.approx(-9.5, abs=0.5)
    assert texas["measured"] == pytest.approx(-13.1, abs=0.5)
    assert all(
        (group.numbers["measured"] or 0) < 0 and (group.numbers["predicted"] or 0) < 0
        for group in found.groups
    )


def test_a_prediction_adds_up_all_paths_but_those_through_what_is_off() -> None:
    circuit = random_circuit(2)
    acts = [2.0 if kind == "feature" else 0.0 for kind in circuit.kinds]
    target = circuit.kinds.index("logit")
    first, second = circuit.members[0], circuit.members[-1]
    step = circuit.A / np.where(np.array(acts) > 0, acts, 1)[:, None]
    step[[first, second]] = 0
    features = circuit.members
    inner = np.linalg.inv(np.eye(len(features)) - step[np.ix_(features, features)])
    change = np.zeros(len(acts))
    change[features] = inner[:, [0, len(features) - 1]].sum(1) * -1
    expected = float(circuit.A[target] @ change)
    assert predicted_change(circuit, np.array(acts), [first, second], target) == pytest.approx(expected)
