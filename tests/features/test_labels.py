"""Labels on cases made by hand: what a person would say, in at most 40 characters, and nothing where nothing can be said."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from circuit_tracer_cli.features.labels import (
    WIDTH,
    CorpusWords,
    Evidence,
    Finding,
    compose,
    key_of,
    propose,
    shown,
    whole_word,
    word_class,
)
from circuit_tracer_cli.features.records import Example

CITIES = {
    "Texas": ["Dallas", "Houston", "Galveston"],
    "Ohio": ["Toledo", "Dayton"],
    "Iowa": ["Ames", "Davenport"],
    "Maine": ["Bangor", "Bath"],
    "Utah": ["Provo", "Moab"],
    "Kansas": ["Salina", "Olathe"],
}
CAPITALS = {
    "Texas": "Austin",
    "Ohio": "Columbus",
    "Iowa": "Des Moines",
    "Maine": "Augusta",
    "Utah": "Salt Lake City",
    "Kansas": "Topeka",
}
SENTENCES = [
    f"<bos>|Fact|:| the| {what}| of| the| state| containing| {city}| is| {answer}|.".split("|")
    for state, cities in CITIES.items()
    for city in cities
    for what, answer in (("capital", CAPITALS[state]), ("name", state), ("zip", "many"), ("bird", "owl"))
]
CORPUS = CorpusWords(
    Counter(token for sentence in SENTENCES for token in sentence if token != "<bos>").items()
)


def example(tokens: list[str], at: int, value: float = 1.0) -> Example:
    acts = tuple(value if index == at else 0.0 for index in range(len(tokens)))
    return Example(tuple(tokens), acts, at)


def evidence(
    places: list[Example], promoted: dict[str, float] | None = None, active: int | None = None
) -> Evidence:
    peaks = [(e.tokens[e.train_token_ind], e.tokens_acts_list[e.train_token_ind]) for e in places]
    return Evidence(peaks, places, list((promoted or {}).items()), active or len(places))


def on(words: set[str], value: float = 1.0) -> list[Example]:
    """Examples on which a feature is active on some words."""
    return [
        example(sentence, index, value)
        for sentence in SENTENCES
        for index, token in enumerate(sentence)
        if token.strip() in words
    ]


def label(given: Evidence) -> str:
    proposed = propose(given, CORPUS)
    assert proposed is not None
    assert len(proposed.text) <= WIDTH
    assert 0 < proposed.confidence <= 1
    assert proposed.provenance.startswith("auto: ")
    return proposed.text


def test_words_on_which_it_is_active() -> None:
    assert label(evidence(on({"Dallas"}))) == "Dallas"
    assert label(evidence(on(set(CITIES["Texas"])))) == "Dallas · Galveston · Houston"


def test_a_token_that_it_raises() -> None:
    assert label(evidence(on(set(CITIES["Ohio"])), {" Ohio": 6.0, " owl": 3.0})) == "Dayton · Toledo → Ohio"


def test_a_raised_token_that_has_nothing_to_do_with_it_is_left_out() -> None:
    assert label(evidence(on({"Dallas"}), {" Zeus": 5.0, ".": 9.0})) == "Dallas"
    assert label(evidence(on({"Dallas"}), {" Zeus": 12.0})) == "Dallas → Zeus"


def test_what_came_before_a_common_word() -> None:
    places = [e for e in on({"is"}) if any(f" {city}" in e.tokens for city in CITIES["Texas"])]
    assert label(evidence(places)) == "is, after Dallas, before Austin · Texas"


def test_what_comes_next() -> None:
    places = [e for e in on({"is"}) if " Austin" in e.tokens]
    assert label(evidence(places)).endswith("before Austin")


def test_weak_activations_do_not_count() -> None:
    weak = on({"the"}, 0.3) * 3
    assert label(evidence([*on({"Dallas"}), *weak])) == "Dallas"


def test_what_the_first_examples_show_is_named_first() -> None:
    """Four examples are much stronger than the rest, on a word that the rest outnumber."""
    rare = [example(["<bos>", " Bangor"], 1, 3.0) for _ in range(4)]
    often = on({"Dallas", "Houston"}, 2.0) + on({"Galveston"}, 2.0)
    assert propose(evidence(often + rare), CORPUS).text.startswith("Bangor · ")  # type: ignore[union-attr]
    assert "Bangor" not in propose(evidence(often + rare[:1]), CORPUS).text  # type: ignore[union-attr]


def test_kinds_of_words() -> None:
    rng = random.Random(0)
    tokens = [["a", f" {rng.randrange(10**6)}", " b"] for _ in range(40)]
    assert label(evidence([example(sentence, 1) for sentence in tokens])).startswith("numbers")


def test_nearly_everywhere() -> None:
    rng = random.Random(1)
    places = [example(s, rng.randrange(1, len(s))) for s in SENTENCES * 3]
    proposed = propose(evidence(places, active=CORPUS.total * 9 // 10), CORPUS)
    assert proposed is not None
    assert proposed.text == "90% of all tokens"


def test_nothing_to_say() -> None:
    rng = random.Random(2)
    places = [example(s, rng.randrange(1, len(s))) for s in SENTENCES]
    assert propose(evidence(places), CORPUS) is None
    assert propose(Evidence([], [], [(" x", 20.0)], 0), CORPUS) is None


def test_labels_do_not_depend_on_the_order_of_ties() -> None:
    places = on(set(CITIES["Texas"]))
    shuffled = random.Random(3).sample(places, len(places))
    assert label(evidence(places)) == label(evidence(shuffled))


@pytest.mark.parametrize("length", [1, 9, 20, 60])
def test_every_label_fits(length: int) -> None:
    words = Finding(tuple(c * length for c in "abc"), 1.0, more=True)
    for parts in ((words, words, words, words), (words, Finding(), Finding(), Finding())):
        assert 0 < len(compose(*parts)) <= WIDTH


def test_words_of_several_tokens() -> None:
    spelled = [example(["<bos>", " Gal", "ves", "ton", " is"], 3)] * 3
    assert whole_word("ton", spelled) == "Galveston"
    endings = [example([" sing", "ing"], 1), example([" walk", "ing"], 1), example([" ask", "ing"], 1)]
    assert whole_word("ing", endings) == "-ing"
    assert whole_word(" is", spelled) == "is"


@pytest.mark.parametrize(
    ("token", "key", "text", "name"),
    [
        (" Dallas", "dallas", "Dallas", "capitalized words"),
        ("\n", "\n", "line end", ""),
        (" ", " ", "space", ""),
        (" 42", "42", "42", "numbers"),
        (").", ").", ").", "punctuation"),
        ("é", "é", "é", ""),
    ],
)
def test_tokens_as_words(token: str, key: str, text: str, name: str) -> None:
    assert (key_of(token), shown(token), word_class(token)) == (key, text, name)
