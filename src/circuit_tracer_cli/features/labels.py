"""Short labels from examples and logit effects: counted, not guessed, and deterministic. Imports no torch.

    Dallas · Houston · Galveston …   is active on these words ("…": and on others)
    is, after Dallas · Houston       is active on "is" where one of these words came before
    before Austin                    the next word is this one
    Dallas · Houston → Texas         raises this token

Only activations of at least half the largest count: weak activations often mean something else. A word is characteristic
if it has a large share of these positions, much larger than its share of the text.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from circuit_tracer_cli.features.records import Example, Label

_SPACES = {" ": "space", "\n": "line end", "\t": "tab"}


@functools.lru_cache(maxsize=2**16)
def key_of(token: str) -> str:
    """Return a token's word: its text in lower case, without surrounding spaces."""
    return token.strip().casefold() or token


def shown(token: str) -> str:
    """Return a token as written in labels: without surrounding spaces; whitespace by name."""
    return " ".join(token.split()) or _SPACES.get(token[:1], "space")


class CorpusWords:
    """How often each word occurs in the text of the build.

    Args:
        counts: Tokens with their number of occurrences, each token once.
    """

    def __init__(self, counts: Iterable[tuple[str, int]]) -> None:
        self._counts: Counter[str] = Counter()
        self._classes: Counter[str] = Counter()
        for token, count in counts:
            self._counts[key_of(token)] += count
            self._classes[word_class(token)] += count
        self.total = self._counts.total()

    def count(self, key: str) -> int:
        """Occurrences of a word."""
        return self._counts[key]

    def share(self, key: str) -> float:
        """A word's share of all tokens, at least that of a word that occurs once."""
        return max(self._counts[key], 1) / max(self.total, 1)

    def class_share(self, name: str) -> float:
        """The share of tokens of a class."""
        return self._classes[name] / max(self.total, 1)


def word_class(token: str) -> str:
    """`numbers`, `punctuation`, `capitalised words`, or an empty string."""
    word = token.strip()
    if not word:
        return ""
    if word.isdigit():
        return "numbers"
    if not any(character.isalnum() for character in word):
        return "punctuation"
    return "capitalized words" if word[0].isupper() else ""


def whole_word(token: str, examples: Sequence[Example]) -> str:
    """A token that ends a longer word in most examples as that word, or as `-ing` if the words differ."""
    if not token.isalpha():
        return shown(token)
    words = Counter(
        _up_to(example.tokens, index)
        for example in examples
        for index, other in enumerate(example.tokens[: example.train_token_ind + 1])
        if other == token
    )
    if not words:
        return shown(token)
    word, count = min(words.items(), key=lambda item: (-item[1], item[0]))
    if count >= 0.6 * words.total():
        return shown(word)
    return f"-{shown(token)}"


def _up_to(tokens: Sequence[str], index: int) -> str:
    """The part of a word up to and including a token: tokens are joined to the left until a space."""
    word = tokens[index]
    while index > 0 and word[:1].isalpha() and tokens[index - 1][-1:].isalpha():
        index -= 1
        word = tokens[index] + word
    return word


WIDTH = 40
_STRONG_SHARE = 0.5
_SHARE, _LIFT, _MOST = 0.04, 3.0, 0.5
_COVERED = 0.4
_RELATED, _STANDS_OUT, _ALONE = 0.1, 3.5, 8.0
_MANY = 0.5
_FIRST_SEEN = 4


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence for a label.

    Attributes:
        peaks: A sample of the tokens at which the feature is active, with its activations.
        examples: Distinct texts on which it is active, centered on the token where it is most active.
        promoted: The tokens that it raises most, with effects in standard deviations over the vocabulary.
        active: Number of tokens at which it is active.
    """

    peaks: Sequence[tuple[str, float]]
    examples: Sequence[Example]
    promoted: Sequence[tuple[str, float]]
    active: int

    def strong(self) -> Evidence:
        """The same without weak activations; `active` is estimated."""
        heights = [e.tokens_acts_list[e.train_token_ind] for e in self.examples]
        least = _STRONG_SHARE * max([*heights, *(value for _, value in self.peaks)])
        peaks = [(token, value) for token, value in self.peaks if value >= least]
        examples = [e for e, height in zip(self.examples, heights, strict=True) if height >= least]
        active = round(self.active * len(peaks) / max(1, len(self.peaks)))
        return Evidence(peaks, examples, self.promoted, max(active, len(peaks), 1))

    def centres(self) -> list[str]:
        """The tokens of the peaks and of the examples."""
        return [token for token, _ in self.peaks] + [e.tokens[e.train_token_ind] for e in self.examples]

    def highest(self) -> str | None:
        """The word that most of the strongest examples are centered on; None if they differ."""
        by_height = sorted(self.examples, key=lambda e: -e.tokens_acts_list[e.train_token_ind])
        centres = [key_of(e.tokens[e.train_token_ind]) for e in by_height[:_FIRST_SEEN]]
        word, count = Counter(centres).most_common(1)[0]
        return word if 2 * count > _FIRST_SEEN else None

    def following(self) -> list[str]:
        """The tokens right after the examples' peaks."""
        after = (e.tokens[e.train_token_ind + 1 : e.train_token_ind + 2] for e in self.examples)
        return [token for tokens in after for token in tokens]


@dataclass(frozen=True, slots=True)
class Finding:
    """Characteristic words, most telling first, and the share of the evidence that has one of them."""

    words: tuple[str, ...] = ()
    coverage: float = 0.0
    more: bool = False  # there are others like them
    enough: bool = False  # the words alone tell where the feature is active


def propose(evidence: Evidence, corpus: CorpusWords) -> Label | None:
    """Return a label of at most 40 characters with its provenance and confidence, or None without enough evidence."""
    if not evidence.active or not evidence.examples:
        return None
    strong = evidence.strong()
    peaks = peak_words(strong, corpus)
    named_by_words = bool(peaks.words)
    peaks = peaks if named_by_words else common_class(strong, corpus)
    context = Finding() if peaks.enough else context_words(strong, corpus)
    following = Finding() if peaks.enough else next_words(strong, corpus)
    promoted = promoted_tokens(strong, corpus)
    if not peaks.enough and (context.words or following.words):
        peaks = (
            Finding(peaks.words[:1], peaks.coverage)
            if peaks.coverage >= 0.6 and not peaks.more
            else Finding()
        )
    elif named_by_words:
        peaks = led_by_what_is_seen(peaks, strong)
    if following.coverage > context.coverage and following.words:
        context = Finding() if following.coverage >= 0.8 else context
    named = {"peak tokens": peaks, "context": context, "next tokens": following, "promoted tokens": promoted}
    if not any(finding.words for finding in named.values()):
        named["peak tokens"] = everywhere(evidence, corpus)
    text = compose(*named.values())
    if not text:
        return None
    found = max(finding.coverage for finding in named.values())
    n = len(strong.examples)
    sources = ", ".join(name for name, finding in named.items() if finding.words)
    return Label(text, f"auto: {sources}", round(found * n / (n + 2), 2))


def _characteristic(
    counts: Counter[str], n: int, expected: dict[str, float], *, least: float = _SHARE
) -> list[str]:
    """The keys with a large share of `n` and a much larger one than expected, the most telling first."""
    telling = {}
    for key, count in counts.items():
        share = count / n
        if share >= least and share >= _LIFT * expected[key]:
            telling[key] = share * math.log(share / expected[key])
    return sorted(telling, key=lambda key: (-telling[key], key))


def peak_words(evidence: Evidence, corpus: CorpusWords) -> Finding:
    """The words on which the feature is active."""
    centres = evidence.centres()
    surface = _surfaces(centres)
    counts = Counter(map(key_of, centres))
    n = len(centres)
    chosen = _characteristic(counts, n, {key: corpus.share(key) for key in counts})
    common, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
    if common not in chosen and count >= _MOST * n:
        chosen.insert(0, common)
    coverage = sum(counts[key] for key in chosen) / n
    if coverage < _COVERED:
        return Finding()
    words = tuple(whole_word(surface[key], evidence.examples) for key in chosen)
    precise = coverage * evidence.active >= _MOST * sum(corpus.count(key) for key in chosen)
    return Finding(words, coverage, more=len(chosen) > 3 or coverage < 0.8, enough=precise)


def led_by_what_is_seen(peaks: Finding, evidence: Evidence) -> Finding:
    """The same with the word of the strongest examples first, if it isn't among the first."""
    seen = evidence.highest()
    if seen is None:
        return peaks
    first = whole_word(_surfaces(evidence.centres())[seen], evidence.examples)
    if first in peaks.words[:2]:
        return peaks
    return replace(peaks, words=(first, *(word for word in peaks.words if word != first)))


def context_words(evidence: Evidence, corpus: CorpusWords) -> Finding:
    """Words that often occur before the peak."""
    befores = [e.tokens[: e.train_token_ind] for e in evidence.examples]
    surface = _surfaces(token for before in befores for token in before)
    present = [{key_of(token) for token in before} for before in befores]
    counts = Counter(key for keys in present for key in keys if corpus.count(key))
    n, length = len(befores), max(1.0, sum(map(len, befores)) / len(befores))
    expected = {key: 1 - (1 - min(corpus.share(key), 0.999)) ** length for key in counts}
    best = [key for key in _characteristic(counts, n, expected, least=0.1) if counts[key] > 1][:3]
    coverage = sum(any(key in keys for key in best) for keys in present) / n
    if coverage < _COVERED:
        return Finding()
    return Finding(tuple(whole_word(surface[key], evidence.examples) for key in best), coverage)


def next_words(evidence: Evidence, corpus: CorpusWords) -> Finding:
    """Words that often occur right after the peak."""
    following = evidence.following()
    surface = _surfaces(following)
    counts = Counter(map(key_of, following))
    n = len(evidence.examples)
    best = _characteristic(counts, n, {key: corpus.share(key) for key in counts}, least=0.2)
    best = [key for key in best if counts[key] > 1][:2]
    coverage = sum(counts[key] for key in best) / n
    return (
        Finding(tuple(shown(surface[key]) for key in best), coverage) if coverage >= _COVERED else Finding()
    )


def promoted_tokens(evidence: Evidence, corpus: CorpusWords) -> Finding:
    """Tokens that stand out among those that the feature raises, and are related to its examples or stand out by far."""
    n = len(evidence.examples)
    near = [{key_of(token) for token in example.tokens} for example in evidence.examples]
    following = Counter(map(key_of, evidence.following()))
    length = sum(len(example.tokens) for example in evidence.examples) / n
    words, related = [], 0
    for token, strength in evidence.promoted:
        key = key_of(token)
        present = sum(key in keys for keys in near)
        expected = 1 - (1 - min(corpus.share(key), 0.999)) ** length
        close = following[key] >= _RELATED * n or present >= n * max(_RELATED, _LIFT * expected)
        if any(map(str.isalnum, token)) and strength >= (_STANDS_OUT if close else _ALONE):
            words.append(shown(token))
            related = max(related, following[key], present)
    return Finding(tuple(dict.fromkeys(words)), related / n / 2)


def common_class(evidence: Evidence, corpus: CorpusWords) -> Finding:
    """A name for the kind of token on which the feature is active, if there is one."""
    centres = evidence.centres()
    name, count = Counter(map(word_class, centres)).most_common(1)[0]
    share = count / len(centres)
    return Finding((name,), share) if name and share >= max(0.8, 2 * corpus.class_share(name)) else Finding()


def everywhere(evidence: Evidence, corpus: CorpusWords) -> Finding:
    """The finding that a feature is active on most tokens, if it is."""
    frequency = evidence.active / max(1, corpus.total)
    return Finding((f"{frequency:.0%} of all tokens",), frequency) if frequency >= _MANY else Finding()


def compose(peaks: Finding, context: Finding, following: Finding, promoted: Finding) -> str:
    """One text of at most 40 characters; words are dropped from the end of the longest list until it fits."""
    parts = [
        list(peaks.words[:3]),
        list(context.words[:2]),
        list(following.words[:2]),
        list(promoted.words[:2]),
    ]
    if parts[2] and set(parts[3]) <= set(parts[2]):
        parts[3] = []
    more = peaks.more
    while len(text := _joined(*parts, more=more)) > WIDTH:
        longest = max(range(4), key=lambda part: (len(parts[part]), -part))
        if len(parts[longest]) > 1:
            more = more or longest == 0
            parts[longest].pop()
        elif sum(map(bool, parts)) > 1:
            parts[next(part for part in (3, 1, 2, 0) if parts[part])] = []
        else:
            return text[: WIDTH - 1].rstrip() + "…"
    return text


def _joined(
    peaks: list[str], context: list[str], following: list[str], promoted: list[str], *, more: bool
) -> str:
    pieces = [" · ".join(peaks) + (" …" if more else "")] if peaks else []
    pieces += [f"after {' · '.join(context)}"] if context else []
    pieces += [f"before {' · '.join(following)}"] if following else []
    text = ", ".join(pieces)
    return f"{text} → {', '.join(promoted)}".strip() if promoted else text


def _surfaces(tokens: Iterable[str]) -> dict[str, str]:
    """The most common spelling of each word."""
    return {key_of(token): token for token, _ in reversed(Counter(tokens).most_common())}
