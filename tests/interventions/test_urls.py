"""Addresses of viewers."""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.interventions.urls import decode_url_features, extract_supernode_features


def test_the_example_of_the_reference() -> None:
    url = 'http://x/?supernodes=[["capital","15_4494_4","6_4662_4"]]&pinnedIds=27_22605_10,E_26865_9'
    expected = ({"capital": [(15, 4, 4494), (6, 4, 4662)]}, [(27, 10, 22605), (-1, 9, 26865)])
    assert decode_url_features(url) == expected
    assert decode_url_features(quote(url, safe=":/?=&")) == expected
    assert extract_supernode_features(url) == expected[0]


@given(st.lists(st.text(min_size=1), max_size=4, unique=True))
def test_names_may_hold_any_character(names: list[str]) -> None:
    names = [name for name in names if name.encode("utf-8", "ignore").decode() == name]
    supernodes = json.dumps([[name, "1_2_3"] for name in names], ensure_ascii=False)
    url = "http://127.0.0.1:8041/index.html?" + urlencode({"slug": "a b", "supernodes": supernodes})
    assert decode_url_features(url) == ({name: [(1, 3, 2)] for name in names}, [])


def test_names_that_occur_again_are_numbered() -> None:
    url = 'http://x/?supernodes=[["a","1_1_1"],["a"],["a (2)","2_2_2"],["a","E_5_9","4_-1_2"]]'
    supernodes, pinned = decode_url_features(url)
    assert supernodes == {"a": [(1, 1, 1)], "a (2)": [], "a (2) (2)": [(2, 2, 2)], "a (3)": [(-1, 9, 5)]}
    assert pinned == []


def test_other_ids_are_left_out() -> None:
    assert decode_url_features("http://x/?pinnedIds=4_-1_2,,a_b_c,1_2,7_8_9_2,3_4_5") == ({}, [(3, 5, 4)])
    assert decode_url_features("http://x/") == ({}, [])


@pytest.mark.parametrize("text", ["[", "5", '{"a": 1}', "[[]]", '["a"]'])
def test_broken_supernodes_are_named(text: str) -> None:
    with pytest.raises(InvalidValue, match="supernodes"):
        decode_url_features(f"http://x/?supernodes={quote(text)}")
