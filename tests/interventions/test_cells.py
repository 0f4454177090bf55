"""Edits resolved to cells, against torch's own indexing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from circuit_tracer_cli.errors import BadIntervention
from circuit_tracer_cli.interventions.cells import at_generated, conflicts, resolve
from circuit_tracer_cli.interventions.spec import as_interventions
from tests.builders import transcoders

N_POS = 5
TRANSCODERS = transcoders("plt")


@pytest.mark.parametrize(
    "edits",
    [
        [(0, 1, 2, 3.0)],
        [(0, -1, 2, 3.0), (0, 4, 2, 5.0)],
        [(0, slice(1, 4), 2, 3.0), (0, 2, 2, -1.0), (0, slice(None, None, 2), 7, 1.0)],
        [(0, slice(2, None), torch.tensor([1, 5, 9]), 3.0)],
        [(0, slice(1, 3), torch.tensor([1, 5]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))],
        [(0, torch.tensor([0, 3]), torch.tensor([1, 5]), torch.tensor([7.0, 8.0]))],
        [(0, torch.tensor([[0], [3]]), torch.tensor([1, 5]), 2.0)],
        [(0, torch.tensor([1, 2]), 4, torch.tensor([7.0, 8.0]))],
        [(0, 3, torch.tensor([4, 4]), 6.0)],
    ],
)
def test_cells_are_those_of_indexing(edits: list[tuple[Any, ...]]) -> None:
    expected = torch.full((N_POS, TRANSCODERS.d_transcoder), torch.nan, dtype=torch.float64)
    for _, position, feature, value in edits:
        expected[position, feature] = torch.as_tensor(value, dtype=torch.float64)
    cells = resolve(as_interventions(edits), N_POS, TRANSCODERS)[0]
    got = torch.full_like(expected, torch.nan)
    got[cells.positions, cells.features] = cells.values
    torch.testing.assert_close(got, expected, equal_nan=True, atol=0, rtol=0)
    assert len(cells.positions) == int((~expected.isnan()).sum())


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        ((3, 0, 0, 1.0), "layer 3 doesn't exist"),
        ((-1, 0, 0, 1.0), "layer -1 doesn't exist"),
        ((0, 5, 0, 1.0), "position 5 is outside the 5 tokens"),
        ((0, -6, 0, 1.0), "position -6"),
        ((0, torch.tensor([0, 9]), 0, 1.0), "position 9"),
        ((0, slice(7, 9), 0, 1.0), "the slice contains none of the 5 positions"),
        ((0, 0, 36, 1.0), "feature 36 doesn't exist"),
        ((0, 0, -1, 1.0), "feature -1 doesn't exist"),
        (
            (0, torch.tensor([0, 1]), torch.tensor([0, 1, 2]), 1.0),
            "the numbers of positions and features differ",
        ),
        ((0, slice(0, 2), 0, torch.ones(3)), "value of shape (3,)"),
    ],
)
def test_what_does_not_fit_is_named(edit: tuple[Any, ...], part: str) -> None:
    with pytest.raises(BadIntervention) as caught:
        resolve(as_interventions([edit]), N_POS, TRANSCODERS)
    assert part in caught.value.message


def test_an_open_end_may_begin_after_the_prompt() -> None:
    assert resolve(as_interventions([(0, slice(N_POS, None), 0, 1.0)]), N_POS, TRANSCODERS) == {}


def test_generated_positions_of_an_open_end() -> None:
    edits = as_interventions(["0/1@1:=2", "0/2@1:3=2", "0/3@7:=2", "0/4@-2::2=2", "0/5@3=2"])
    found = {
        position: [edit.feature for edit in at_generated(edits, position, N_POS)] for position in (5, 6, 7)
    }
    assert found == {5: [1, 4], 6: [1], 7: [1, 3, 4]}


def test_conflicts_are_different_values_for_one_cell() -> None:
    agreeing = as_interventions(["0/1@1=2", "0/1@0:3=2", "1/1@1=3", "0/2@1=x2"])
    assert conflicts(agreeing, N_POS, TRANSCODERS) is None
    clash = conflicts(as_interventions(["0/1@-1=2", "0/1@2:=x2"]), N_POS, TRANSCODERS)
    assert clash is not None
    assert [str(edit) for edit in clash] == ["0/1@-1=2.0", "0/1@2:=x2.0"]
