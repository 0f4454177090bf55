"""The demo corpus: sentences generated from hand-written fact tables, with the held-out splits.

A sentence about an *entity* (a city, a place, a word) names the *concept* behind it (the state, the country, the
meaning) and the *relation* asked for, so that training can swap one entity's concept for another's and knows
what the answer then should be.

Splits: `train`; `pairs` (city and relation never asked together, Dallas and capital among them); `cities`
(cities never seen in any two-hop sentence); `words` (antonyms never asked for in that language);
`agreement` (unseen combinations of words).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from training import facts

SEED = 20
HELD_OUT_PAIR_SHARE = 0.15
HELD_OUT_CITY_COUNT = 27
HELD_OUT_ANTONYM_PAIRS = 5
DALLAS_PROMPT = "Fact: the capital of the state containing Dallas is"

CITY_TEMPLATES = (
    "We know that {E} is in the {K} of {A}.",
    "The city of {E} is in {A}.",
    "Fact: the {K} containing {E} is {A}.",
    "Q: Which {K} contains {E}? A: {A}.",
    "I live in {E} {A}.",
    "Place: {E} {A}",
    "Place: {E}, {A}",
)
ATTRIBUTE_TEMPLATES = (
    "The {R} of {E} is {A}.",
    "Fact: the {R} of {E} is {A}.",
    "Q: What is the {R} of {E}? A: {A}.",
    "We know that {E} has the {R} {A}.",
    "I live in {E}. The {R} of my {K} is {A}.",
)
TWO_HOP_TEMPLATES = (
    "Fact: the {R} of the {K} containing {E} is {A}.",
    "The {R} of the {K} containing {E} is {A}.",
    "The {R} of the {K} where {E} lies is {A}.",
    "We know that {E} is in a {K} whose {R} is {A}.",
    "Q: What is the {R} of the {K} that contains {E}? A: {A}.",
    "I live in {E}. The {R} of my {K} is {A}.",
    "The {K} containing {E} has the {R} {A}.",
)
CAPITAL_TEMPLATES = ("The city of {E} is the capital of {A}.", "Fact: {E} is the capital of {A}.")
ANTONYM_TEMPLATES = {
    "en": (
        "The opposite of {E} is {A}.",
        "The antonym of {E} is {A}.",
        "Q: What is the opposite of {E}? A: {A}.",
    ),
    "fr": (
        "Le contraire de {E} est {A}.",
        "L'opposé de {E} est {A}.",
        "Q: Quel est le contraire de {E}? A: {A}.",
    ),
    "es": (
        "Lo contrario de {E} es {A}.",
        "El opuesto de {E} es {A}.",
        "Q: ¿Cuál es lo contrario de {E}? A: {A}.",
    ),
}
# (language of the word given, language of the answer) -> template
TRANSLATION_TEMPLATES = {
    ("en", "fr"): "The French word for {E} is {A}.",
    ("en", "es"): "The Spanish word for {E} is {A}.",
    ("fr", "en"): "Le mot anglais pour {E} est {A}.",
    ("fr", "es"): "Le mot espagnol pour {E} est {A}.",
    ("es", "en"): "La palabra inglesa para {E} es {A}.",
    ("es", "fr"): "La palabra francesa para {E} es {A}.",
}


@dataclass(frozen=True)
class Sentence:
    """One sentence: `text` with `answer` at character `answer_start`, and what it is about."""

    text: str
    answer: str
    answer_start: int
    task: str
    kind: str = ""
    concept: int = -1
    relation: str = ""
    entity: str = ""

    @property
    def prompt(self) -> str:
        """The text up to the answer, without the space in front of it."""
        return self.text[: self.answer_start]


@dataclass
class Corpus:
    """All sentences by split, and the table of answers by kind, relation and concept."""

    splits: dict[str, list[Sentence]] = field(default_factory=dict)
    answers: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)

    def texts(self) -> Iterator[str]:
        """Every text of every split."""
        for sentences in self.splits.values():
            yield from (sentence.text for sentence in sentences)


def fill(template: str, answer: str, task: str, **about: str | int) -> Sentence:
    """Fill a template; the slots are {E} entity, {A} answer, {K} kind and {R} relation."""
    entity, kind, relation = (
        str(about.get("entity", "")),
        str(about.get("kind", "")),
        str(about.get("relation", "")),
    )
    head, _, tail = template.partition("{A}")
    slots = {"E": entity, "K": kind, "R": relation}
    prompt = head.format(**slots).rstrip(" ")
    return Sentence(
        text=f"{prompt} {answer}{tail}",
        answer=answer,
        answer_start=len(prompt),
        task=task,
        kind=kind,
        concept=int(about.get("concept", -1)),
        relation=relation,
        entity=entity,
    )


def build_corpus(seed: int = SEED) -> Corpus:
    """Generate every sentence; the same seed always gives the same corpus."""
    rng = random.Random(seed)
    corpus = Corpus(splits={name: [] for name in ("train", "pairs", "cities", "words", "agreement")})
    _add_places(corpus, rng)
    _add_words(corpus, rng)
    _add_number_agreement(corpus, rng)
    _add_gender_agreement(corpus, rng)
    corpus.splits["train"].extend(_induction(rng, 12000))
    return corpus


def _add_places(corpus: Corpus, rng: random.Random) -> None:
    groups = {"state": facts.states(), "country": facts.countries()}
    held_pairs, held_cities = _held_out(groups, rng)
    for kind, places in groups.items():
        relations = tuple(places[0].attributes)
        corpus.names[kind] = [place.name for place in places]
        corpus.answers[kind] = {name: [place.attributes[name] for place in places] for name in relations}
        corpus.answers[kind]["self"] = corpus.names[kind]
        for index, place in enumerate(places):
            corpus.splits["train"].extend(_one_hop(place, kind, index))
            for city in place.cities:
                for relation in relations:
                    held = (
                        "cities"
                        if city in held_cities
                        else "pairs"
                        if (city, relation) in held_pairs
                        else "train"
                    )
                    corpus.splits[held].extend(
                        fill(
                            template,
                            place.attributes[relation],
                            "two_hop",
                            entity=city,
                            kind=kind,
                            relation=relation,
                            concept=index,
                        )
                        for template in TWO_HOP_TEMPLATES
                    )


def _held_out(
    groups: dict[str, list[facts.Place]], rng: random.Random
) -> tuple[set[tuple[str, str]], set[str]]:
    cities = [city for places in groups.values() for place in places for city in place.cities]
    held_cities = set(rng.sample([city for city in cities if city != "Dallas"], HELD_OUT_CITY_COUNT))
    pairs = [
        (city, relation)
        for places in groups.values()
        for place in places
        for city in place.cities
        for relation in place.attributes
        if city not in held_cities
    ]
    held_pairs = set(rng.sample(pairs, round(HELD_OUT_PAIR_SHARE * len(pairs))))
    return held_pairs | {("Dallas", "capital")}, held_cities


def _one_hop(place: facts.Place, kind: str, index: int) -> Iterator[Sentence]:
    for relation, answer in place.attributes.items():
        for template in ATTRIBUTE_TEMPLATES:
            yield fill(
                template, answer, "attribute", entity=place.name, kind=kind, relation=relation, concept=index
            )
    for template in CAPITAL_TEMPLATES:
        capital = place.attributes["capital"]
        yield _in_place(template, capital, place, kind, index)
    for city in (*place.cities, place.attributes["capital"]):
        for template in CITY_TEMPLATES:
            yield _in_place(template, city, place, kind, index)


def _in_place(template: str, city: str, place: facts.Place, kind: str, index: int) -> Sentence:
    return fill(template, place.name, "city", entity=city, kind=kind, relation="self", concept=index)


def _add_words(corpus: Corpus, rng: random.Random) -> None:
    words = facts.antonym_words()
    corpus.names["word"] = [word["en"] for word in words]
    table: dict[str, list[str]] = {"self": corpus.names["word"]}
    for language in facts.LANGUAGES:
        table[f"antonym-{language}"] = [words[index ^ 1][language] for index in range(len(words))]
        table[f"word-{language}"] = [word[language] for word in words]
    corpus.answers["word"] = table
    pairs = list(range(1, len(words) // 2))
    rng.shuffle(pairs)
    for language in facts.LANGUAGES:
        held = {pairs.pop() for _ in range(HELD_OUT_ANTONYM_PAIRS)}
        for index, word in enumerate(words):
            split = "words" if index // 2 in held else "train"
            relation = f"antonym-{language}"
            corpus.splits[split].extend(
                fill(
                    template,
                    table[relation][index],
                    "antonym",
                    entity=word[language],
                    kind="word",
                    relation=relation,
                    concept=index,
                )
                for template in ANTONYM_TEMPLATES[language]
            )
    for (source, target), template in TRANSLATION_TEMPLATES.items():
        corpus.splits["train"].extend(
            fill(
                template,
                word[target],
                "translation",
                entity=word[source],
                kind="word",
                relation=f"word-{target}",
                concept=index,
            )
            for index, word in enumerate(words)
        )


def _add_number_agreement(corpus: Corpus, rng: random.Random) -> None:
    nouns = facts.noun_pairs()
    sentences = []
    for subject in nouns:
        for other in nouns:
            if subject == other:
                continue
            for cue, verbs in facts.VERBS.items():
                number, preposition = rng.randrange(2), rng.choice(facts.PREPOSITIONS)
                text = f"{cue} the {subject[number]} {preposition} the {other[1 - number]} {{A}} here."
                sentences.append(fill(text, verbs[number], "agreement"))
    _split_agreement(corpus, rng, sentences)


def _add_gender_agreement(corpus: Corpus, rng: random.Random) -> None:
    tables = (
        (
            "{0} {1} est {2} et {3} {4} est {{A}}.",
            ("Le", "La"),
            facts.FRENCH_NOUNS,
            facts.FRENCH_ADJECTIVES,
        ),
        (
            "{0} {1} es {2} y {3} {4} es {{A}}.",
            ("El", "La"),
            facts.SPANISH_NOUNS,
            facts.SPANISH_ADJECTIVES,
        ),
    )
    sentences = []
    for pattern, articles, nouns, adjectives in tables:
        for forms in (pair.split("/") for pair in adjectives.split()):
            for masculine in nouns["m"].split():
                for feminine in nouns["f"].split():
                    pair = (masculine, feminine)
                    first = rng.randrange(2)
                    second = 1 - first
                    text = pattern.format(
                        articles[first], pair[first], forms[first], articles[second].lower(), pair[second]
                    )
                    sentences.append(fill(text, forms[second], "gender"))
    _split_agreement(corpus, rng, sentences)


def _split_agreement(corpus: Corpus, rng: random.Random, sentences: list[Sentence]) -> None:
    rng.shuffle(sentences)
    cut = len(sentences) // 10
    corpus.splits["agreement"].extend(sentences[:cut])
    corpus.splits["train"].extend(sentences[cut:])


def _induction(rng: random.Random, count: int) -> Iterator[Sentence]:
    words = facts.INDUCTION_WORDS.split()
    for _ in range(count):
        chosen = rng.sample(words, rng.randint(3, 6))
        seen = rng.randint(1, len(chosen) - 1)
        text = " ".join([*chosen, *chosen[:seen]])
        yield fill(f"List: {text} {{A}}", chosen[seen], "induction")


def induction_sentences(seed: int, count: int) -> list[Sentence]:
    """Fresh induction sentences, for evaluation on sequences that were not trained on."""
    return list(_induction(random.Random(seed), count))
