"""The corpus: facts without contradictions, splits that are really held out, the same text from the same seed."""

from __future__ import annotations

from collections import Counter

import pytest

from training.corpus import DALLAS_PROMPT, Corpus, build_corpus
from training.facts import LANGUAGES, antonym_words, countries, states


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return build_corpus()


def test_every_place_name_occurs_once() -> None:
    places = states() + countries()
    names = Counter(name for p in places for name in (*p.cities, p.name, p.attributes["capital"]))
    assert len(states()) == 50
    assert [name for name, count in names.items() if count > 1] == []


def test_words_are_unique_within_a_language() -> None:
    for language in LANGUAGES:
        words = [word[language] for word in antonym_words()]
        assert len(words) == len(set(words))


def test_same_seed_gives_same_corpus(corpus: Corpus) -> None:
    assert build_corpus() == corpus


def test_answer_stands_where_the_sentence_says(corpus: Corpus) -> None:
    for sentences in corpus.splits.values():
        for sentence in sentences:
            assert sentence.text[sentence.answer_start :].startswith(f" {sentence.answer}")
            assert sentence.prompt + f" {sentence.answer}" in sentence.text


def test_held_out_questions_are_not_trained(corpus: Corpus) -> None:
    trained = {(s.entity, s.relation) for s in corpus.splits["train"] if s.task in {"two_hop", "antonym"}}
    for split in ("pairs", "cities", "words"):
        asked = {(s.entity, s.relation) for s in corpus.splits[split]}
        assert asked
        assert not asked & trained
    cities = {s.entity for s in corpus.splits["cities"]}
    assert not cities & {city for city, _ in trained}
    assert len(cities) == 27


def test_the_dallas_question_is_held_out(corpus: Corpus) -> None:
    assert DALLAS_PROMPT in {s.prompt for s in corpus.splits["pairs"]}
    assert not any("Dallas" in s.text and "Austin" in s.text for s in corpus.splits["train"])


def test_agreement_is_held_out(corpus: Corpus) -> None:
    trained = {s.prompt for s in corpus.splits["train"]}
    assert not trained & {s.prompt for s in corpus.splits["agreement"]}
