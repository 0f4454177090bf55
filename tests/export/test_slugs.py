from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.export.slugs import MAX_SLUG_BYTES, check_slug, clean_slug, invent_slug

DALLAS = "<bos>Fact: the capital of the state containing Dallas is"


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


@pytest.mark.parametrize(
    ("prompt", "slug"),
    [
        ("The capital of Texas is", "the-capital-of-texas-is"),
        (DALLAS, "fact-the-capital-of-the-state-containing-dallas-is"),
        ("36+59=", "36-59"),
        ("a\n\nb", "a-b"),
    ],
)
def test_words_become_a_name(prompt: str, slug: str) -> None:
    assert invent_slug(prompt) == slug


def test_long_prompts_stay_apart() -> None:
    start = "the same long beginning of a prompt that goes on and on and on, until it ends with "
    names = {invent_slug(start + end) for end in ("Dallas", "Oakland")}
    assert len(names) == 2
    assert max(map(len, names)) <= 65


def test_prompts_without_latin_letters_stay_apart() -> None:
    names = {invent_slug(prompt) for prompt in ("北京", "東京", "!!!", "???")}
    assert len(names) == 4
    assert all(name.startswith("graph-") for name in names)


@given(st.text(min_size=1))
def test_every_prompt_gets_a_usable_name(prompt: str) -> None:
    assert check_slug(invent_slug(prompt)) == invent_slug(prompt)
