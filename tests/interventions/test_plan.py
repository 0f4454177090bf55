"""Plans as JSON, and supernodes as edits."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.errors import BadIntervention
from circuit_tracer_cli.interventions.plan import Plan, plan_from_json
from circuit_tracer_cli.interventions.spec import Intervention, Scaled, as_interventions, supernode_edits
from tests.interventions.test_spec import positions, values

edits = st.builds(Intervention, st.integers(0, 99), positions, st.integers(0, 10**6), values)
plans = st.builds(
    Plan,
    prompt=st.none() | st.text(),
    transcoder_set=st.none() | st.text(),
    model=st.none() | st.text(),
    edits=st.lists(edits, max_size=4).map(tuple),
    constrained_layers=st.none() | st.tuples(st.integers(0, 9), st.none() | st.integers(0, 9)),
    freeze_attention=st.booleans(),
)


def fields(plan: Plan) -> tuple[Any, ...]:
    shown = tuple(map(str, plan.edits))
    return plan.prompt, plan.transcoder_set, plan.model, shown, plan.constrained_layers, plan.freeze_attention


@given(plans)
def test_a_plan_round_trips(plan: Plan) -> None:
    assert fields(plan_from_json(plan.to_json())) == fields(plan)


def test_tensors_in_edits_round_trip() -> None:
    given_edits = as_interventions(
        [
            (1, torch.tensor([0, 2]), torch.tensor([3, 4]), torch.tensor([1.0, 2.0])),
            (0, slice(2, None), torch.tensor([3, 4]), Scaled(-2.0)),
            (0, -1, torch.tensor([5]), 0.0),
        ]
    )
    plan = Plan(edits=given_edits)
    assert fields(plan_from_json(plan.to_json())) == fields(plan)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"format": "other"}, "the file is not a plan"),
        ({"format_version": 2}, "format_version 2"),
        ({"edit": []}, "unknown key 'edit'"),
        ({"prompt": 5}, "plan's prompt must be text"),
        ({"edits": "3/4@1=2"}, "edits must be a list"),
        ({"edits": [7]}, "edit #0"),
        ({"edits": ["3/4@1=2", "3/4@1"]}, "3/4@1"),
        ({"edits": [{"layer": 1, "position": {"slice": [1]}, "feature": 1, "value": 1}]}, "edit #0"),
        ({"edits": [{"layer": 1, "position": 1, "feature": 1, "value": "y"}]}, "value 'y'"),
        ({"constrained_layers": [1]}, "constrained_layers"),
        ({"constrained_layers": ["a", 2]}, "constrained_layers"),
        ({"freeze_attention": 1}, "freeze_attention"),
    ],
)
def test_a_bad_plan_names_its_faulty_part(change: dict[str, Any], part: str) -> None:
    values = json.loads(Plan(prompt="x").to_json())
    with pytest.raises(BadIntervention) as caught:
        plan_from_json(json.dumps({**values, **change}))
    assert part in caught.value.message


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00", b"\xff\xfe"])
def test_what_is_no_json_is_no_plan(content: str | bytes) -> None:
    with pytest.raises(BadIntervention, match="plan"):
        plan_from_json(content)


SUPERNODES = [
    ["Texas", "3_17_9", "4_2_10"],
    ["tokens", "E_5_9", "4_-1_9"],
    ["Texas", "4_2_10", "0_1_1", "E_7_1"],
]


@pytest.mark.parametrize(
    ("factor", "value"), [("-1", "x-1.0"), ("x2", "x2.0"), ("off", "off"), ("0.5", "x0.5")]
)
def test_a_supernodes_features_get_the_factor(factor: str, value: str) -> None:
    found, others = supernode_edits(SUPERNODES, "Texas", factor)
    assert [str(edit) for edit in found] == [f"3/17@9={value}", f"4/2@10={value}", f"0/1@1={value}"]
    assert others == ("E_7_1",)


@pytest.mark.parametrize(
    ("name", "factor", "part"),
    [
        ("Ohio", "off", "no supernode 'Ohio'"),
        ("tokens", "off", "no feature"),
        ("Texas", "much", "factor 'much'"),
    ],
)
def test_supernodes_that_cannot_be_edited(name: str, factor: str, part: str) -> None:
    with pytest.raises(BadIntervention, match=part):
        supernode_edits(SUPERNODES, name, factor)


def test_an_unknown_supernode_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadIntervention) as caught:
        supernode_edits(SUPERNODES, "Ohio", "off")
    assert caught.value.hint == "it has 'Texas', 'tokens'"
