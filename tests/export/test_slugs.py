from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.export.slugs import MAX_SLUG_BYTES, check_slug, clean_slug


@pytest.mark.parametrize(
    "slug", ["a", "dallas-austin", "v1.2_b", "Zürich", "東京", "-a", "a--b", "_x", "x" * MAX_SLUG_BYTES]
)
def test_good(slug: str) -> None:
    assert check_slug(slug) == slug


@pytest.mark.parametrize(
    ("slug", "cleaned"),
    [
        ("a b", "a-b"),
        ("../../etc/passwd", "etc-passwd"),
        ("a/b", "a-b"),
        ("a\\b", "a-b"),
        (".hidden", "hidden"),
        ("..", "my-graph"),
        ("", "my-graph"),
        ("graph-metadata", "graph-metadata-1"),
        ("a\0b", "a-b"),
        ("a%2fb?", "a-2fb"),
        ("line\nbreak", "line-break"),
    ],
)
def test_bad_ones_come_with_a_better_one(slug: str, cleaned: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        check_slug(slug)
    assert caught.value.hint == f"--slug {cleaned}"
    assert "\n" not in caught.value.message


@given(st.text())
def test_cleaned_is_usable(text: str) -> None:
    cleaned = clean_slug(text)
    assert not cleaned or check_slug(cleaned) == cleaned
