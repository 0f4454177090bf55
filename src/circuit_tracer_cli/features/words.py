"""Tokens as the words that a reader sees, and how common they are. Imports no torch."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence

from circuit_tracer_cli.features.records import Example

_SPACES = {" ": "space", "\n": "line end", "\t": "tab"}


@functools.lru_cache(maxsize=2**16)
def key_of(token: str) -> str:
    """What makes two tokens the same word: the text without spaces around it and without case."""
    return token.strip().casefold() or token


def shown(token: str) -> str:
    """A token in a label: without spaces around it, white space by its name."""
    return " ".join(token.split()) or _SPACES.get(token[:1], "space")


class CorpusWords:
    """How often each word occurs in the text that features were looked at on.

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
        """A word's share of all tokens, not below that of a word which occurs once."""
        return max(self._counts[key], 1) / max(self.total, 1)

    def class_share(self, name: str) -> float:
        """The share of tokens of a class."""
        return self._classes[name] / max(self.total, 1)


def word_class(token: str) -> str:
    """`numbers`, `punctuation`, `capitalised words`, or nothing."""
    word = token.strip()
    if not word:
        return ""
    if word.isdigit():
        return "numbers"
    if not any(character.isalnum() for character in word):
        return "punctuation"
    return "capitalised words" if word[0].isupper() else ""


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
    """The part of a word up to and including a token: tokens are joined leftwards as long as no space parts them."""
    word = tokens[index]
    while index > 0 and word[:1].isalpha() and tokens[index - 1][-1:].isalpha():
        index -= 1
        word = tokens[index] + word
    return word
