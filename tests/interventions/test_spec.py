"""Edits as text, tuples and records."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.errors import BadIntervention
from circuit_tracer_cli.interventions.spec import Intervention, Scaled, as_interventions, parse_intervention

numbers = st.floats(allow_nan=False, allow_infinity=False)
ends = st.none() | st.integers(-99, 99)
positions = (
    st.integers(-99, 99) | st.builds(slice, ends, ends) | st.builds(slice, ends, ends, st.integers(1, 9))
)
values = numbers | st.builds(Scaled, numbers)


def fields(edit: Intervention) -> tuple[Any, ...]:
    return edit.layer, edit.position, edit.feature, edit.value


@given(st.integers(0, 99), positions, st.integers(0, 10**6), values)
def test_text_form_round_trips(layer: int, position: Any, feature: int, value: Any) -> None:
    edit = Intervention(layer, position, feature, value)
    assert fields(parse_intervention(str(edit))) == fields(edit)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3/120@-1=x2", (3, -1, 120, Scaled(2.0))),
        ("3/120@2:5=off", (3, slice(2, 5), 120, 0.0)),
        ("3/120@6:=4.5", (3, slice(6, None), 120, 4.5)),
        (" 0/0 @ 1 = x-1 ", (0, 1, 0, Scaled(-1.0))),
        ("20/341@::2=1e2", (20, slice(None, None, 2), 341, 100.0)),
    ],
)
def test_text_is_read(text: str, expected: tuple[Any, ...]) -> None:
    assert fields(parse_intervention(text)) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("3/120=x2", "LAYER/FEATURE@POS=VALUE"),
        ("", "LAYER/FEATURE@POS=VALUE"),
        ("a/120@1=2", "layer 'a'"),
        ("-1/120@1=2", "layer '-1'"),
        ("3/1.5@1=2", "feature '1.5'"),
        ("3/120@one=2", "position 'one'"),
        ("3/120@1:2:3:4=2", "position '1:2:3:4'"),
        ("3/120@1:5:0=2", "step"),
        ("3/120@1=", "value ''"),
        ("3/120@1=two", "value 'two'"),
        ("3/120@1=nan", "value 'nan'"),
        ("3/120@1=xinf", "value 'xinf'"),
    ],
)
def test_a_bad_text_names_its_faulty_part(text: str, part: str) -> None:
    with pytest.raises(BadIntervention, match=None) as caught:
        parse_intervention(text)
    assert part in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        ((0, 1, 2), "not (layer, position, feature, value)"),
        (7, "not (layer, position, feature, value)"),
        ((0.5, 1, 2, 3.0), "layer"),
        ((torch.tensor([0, 1]), 1, 2, 3.0), "layer"),
        ((True, 1, 2, 3.0), "layer"),
        ((0, None, 2, 3.0), "position"),
        ((0, slice(0.5, 2), 2, 3.0), "position"),
        ((0, 1, "two", 3.0), "feature"),
        ((0, 1, 2.0, 3.0), "feature"),
        ((0, 1, 2, math.nan), "value is not finite"),
        ((0, 1, 2, torch.tensor([1.0, math.inf])), "value is not finite"),
        ((0, 1, 2, Scaled(math.inf)), "value is not finite"),
        ((0, 1, 2, None), "value is not a number"),
    ],
)
def test_a_bad_tuple_names_its_place_and_part(edit: Any, part: str) -> None:
    with pytest.raises(BadIntervention) as caught:
        as_interventions([(0, 0, 0, 0.0), edit])
    assert "#1" in caught.value.message
    assert part in caught.value.message


@pytest.mark.parametrize("edits", ["3/120@1=2", 5, Intervention(0, 0, 0, 0.0)])
def test_a_single_edit_is_no_list(edits: Any) -> None:
    with pytest.raises(BadIntervention, match="list"):
        as_interventions(edits)


def test_numbers_may_be_tensors_without_axes() -> None:
    (edit,) = as_interventions([(torch.tensor(1), torch.tensor(2), torch.tensor(3), torch.tensor(4.0))])
    assert fields(edit) == (1, 2, 3, 4.0)


def test_only_a_slice_without_an_end_is_open_ended() -> None:
    found = [edit.open_ended for edit in as_interventions(["0/0@1=1", "0/0@1:3=1", "0/0@1:=1", "0/0@:=1"])]
    assert found == [False, False, True, True]
