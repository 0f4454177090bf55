"""Which position of one prompt is which of another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.errors import CircuitTracerError, InvalidValue
from circuit_tracer_cli.many.align import align, key_parts, match_tokens, node_keys
from circuit_tracer_cli.many.facts import facts_of_graph
from tests.graph.builders import config, random_graph


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("abc", "abc", [(0, 0), (1, 1), (2, 2)]),
        ("abxd", "abyd", [(0, 0), (1, 1), (2, 2), (3, 3)]),  # a word in place of another
        ("abxyd", "abzd", [(0, 0), (1, 1), (2, None), (3, 2), (4, 3)]),  # paired from its end
        ("abd", "abzd", [(0, 0), (1, 1), (None, 2), (2, 3)]),
        ("a", "b", [(0, 0)]),  # the last position is the same slot whatever stands there
        ("xab", "b", [(0, None), (1, None), (2, 0)]),
    ],
)
def test_tokens_are_matched(a: str, b: str, expected: list[tuple[int | None, int | None]]) -> None:
    first, second = match_tokens(list(a), list(b))
    where = [{int(slot): place for place, slot in enumerate(slots)} for slots in (first, second)]
    assert [(where[0].get(slot), where[1].get(slot)) for slot in range(len(expected))] == expected


def longest_common(a: str, b: str) -> int:
    """By trying all subsequences."""
    subsequences = ("".join(c) for n in range(len(a), -1, -1) for c in itertools.combinations(a, n))
    return next(len(s) for s in subsequences if all(c in it for it in [iter(b)] for c in s))


@given(st.text("ab", min_size=1, max_size=6), st.text("ab", min_size=1, max_size=6))
def test_no_longer_match_exists(a: str, b: str) -> None:
    first, second = match_tokens(list(a), list(b))
    assert (np.diff(first) > 0).all()
    assert (np.diff(second) > 0).all()
    assert first[-1] == second[-1] == max(first.max(), second.max())
    place = {int(slot): token for slot, token in zip(second, b, strict=True)}
    equal = sum(place.get(int(slot)) == token for slot, token in zip(first[:-1], a, strict=False))
    assert equal >= longest_common(a[:-1], b[:-1])


def test_keys_hold_all_that_tells_nodes_apart() -> None:
    facts = facts_of_graph(random_graph(n_layers=3, n_pos=4), "a")
    keys = node_keys(facts, np.arange(4))
    assert len(np.unique(keys)) == len(keys)
    parts = key_parts(keys)
    chosen = facts.kind != 3
    assert np.array_equal(parts.kind, facts.kind)
    assert np.array_equal(parts.slot, facts.position)
    assert np.array_equal(parts.layer[chosen], facts.layer[chosen])
    assert np.array_equal(parts.feature, facts.feature)


def test_what_suits_is_chosen() -> None:
    one = facts_of_graph(random_graph(n_pos=3), "one")
    other = facts_of_graph(random_graph(n_pos=4), "other")
    assert align([one, one]).level == "exact"
    assert align([one, other]).level == "slots"
    assert align([one, other, one]).level == "bag"
    assert align([one, other], "end").slots[0].tolist() == [1, 2, 3]


def test_template_slots_cover_several_tokens() -> None:
    graphs = [
        facts_of_graph(random_graph(n_pos=len(slots), metadata={"slots": slots}), "g")
        for slots in (["0", "city", "city", "2"], ["0", "city", "2"])
    ]
    alignment = align(graphs)
    assert alignment.level == "slots"
    assert [slots.tolist() for slots in alignment.slots] == [[0, 1, 1, 2], [0, 1, 2]]


def test_other_sets_are_compared_by_place_and_other_models_not_at_all() -> None:
    one = facts_of_graph(random_graph(), "one")
    other = facts_of_graph(random_graph(scan="else/where"), "other")
    assert align([one, other]).match == "place"
    deeper = facts_of_graph(random_graph(n_layers=3, cfg=config(3)), "deeper")
    with pytest.raises(CircuitTracerError, match="has 2 layers"):
        align([one, deeper])


def test_unequal_prompts_have_no_exact_alignment() -> None:
    one, other = (facts_of_graph(random_graph(n_pos=n), "g") for n in (3, 4))
    with pytest.raises(InvalidValue, match="different tokens"):
        align([one, other], "exact")
