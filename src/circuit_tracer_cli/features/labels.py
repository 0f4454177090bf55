"""Short labels from examples and logit effects: counted, not guessed, and the same every time. Imports no torch.

    Dallas · Houston · Galveston …     is active on these words ("…": and on others like them)
    is, after Dallas · Houston         is active on "is" where one of these words came before
    Dallas · Houston → Texas           and raises this token

A word is characteristic if it has a large share of the feature's activations and a larger one than of the text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from circuit_tracer_cli.features.records import Example, Label
from circuit_tracer_cli.features.words import CorpusWords, key_of, shown, whole_word, word_class

WIDTH = 40
_SHARE, _LIFT, _MOST = 0.04, 3.0, 0.5
_COVERED = 0.4
_STRONG, _WEAK = 5.5, 3.5
_ALWAYS = 0.5


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a label is made from.

    Attributes:
        peaks: A sample of the tokens at which the feature is active, with its activation there.
        examples: Texts on which it is active, each once.
        promoted: The tokens that it raises most, with the effect in standard deviations over the vocabulary.
        active: At how many tokens it is active.
    """

    peaks: Sequence[tuple[str, float]]
    examples: Sequence[Example]
    promoted: Sequence[tuple[str, float]]
    active: int


@dataclass(frozen=True, slots=True)
class Finding:
    """Words that say something, the most telling first, and the share of the evidence that has one of them."""

    words: tuple[str, ...] = ()
    coverage: float = 0.0
    more: bool = False  # there are others like them
    enough: bool = True  # the words alone tell where the feature is active


def propose(evidence: Evidence, corpus: CorpusWords) -> Label | None:
    """A label of at most 40 characters with its provenance and confidence, or None if nothing can be said."""
    if not evidence.active or not evidence.examples:
        return None
    peaks = peak_words(evidence, corpus)
    context = Finding() if peaks.enough and peaks.words else context_words(evidence, corpus)
    promoted = promoted_tokens(evidence)
    if not peaks.words and not context.words:
        peaks = common_class(evidence, corpus)
    text = compose(peaks, context, promoted)
    if not text:
        return None
    sources = [
        name
        for name, finding in (("peak tokens", peaks), ("context", context), ("promoted tokens", promoted))
        if finding.words
    ]
    coverage = max(peaks.coverage * (1.0 if peaks.enough else 0.5), context.coverage)
    n = len(evidence.examples)
    confidence = (coverage or promoted.coverage) * n / (n + 2)
    return Label(text, "auto: " + ", ".join(sources), round(min(1.0, confidence), 2))


def peak_words(evidence: Evidence, corpus: CorpusWords) -> Finding:
    """The words on which the feature is active."""
    counts: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    surface: dict[str, Counter[str]] = {}
    for token, activation in evidence.peaks:
        key = key_of(token)
        counts[key] += 1
        weights[key] += max(activation, 0.0)  # type: ignore[assignment]
        surface.setdefault(key, Counter())[token] += 1
    total, n = sum(weights.values()), sum(counts.values())
    if total <= 0:
        return Finding()
    accepted = []
    for key, weight in sorted(weights.items(), key=lambda item: (-item[1], item[0])):
        lift = counts[key] / n / corpus.share(key)
        if weight / total >= _SHARE and (lift >= _LIFT or weight / total >= _MOST):
            accepted.append(key)
    coverage = sum(weights[key] for key in accepted) / total
    if coverage < _COVERED:
        return Finding()
    words = tuple(whole_word(surface[key].most_common(1)[0][0], evidence.examples) for key in accepted)
    seen = sum(counts[key] for key in accepted) / n * evidence.active
    precise = seen >= _MOST * sum(corpus.count(key) for key in accepted)
    return Finding(words, coverage, more=len(accepted) > 3 or coverage < 0.8, enough=precise)


def context_words(evidence: Evidence, corpus: CorpusWords) -> Finding:
    """Words that often come somewhere before the peak."""
    befores: list[set[str]] = []
    surface: dict[str, str] = {}
    length = 0
    for example in evidence.examples:
        keys = {key_of(token): token for token in example.tokens[: example.train_token_ind]}
        surface |= {key: token for key, token in keys.items() if key not in surface}
        befores.append({key for key in keys if corpus.count(key)})
        length += example.train_token_ind
    n = len(befores)
    present = Counter(key for before in befores for key in before)
    scores = {}
    for key, count in present.items():
        share, expected = count / n, 1 - (1 - min(corpus.share(key), 0.999)) ** max(length / n, 1.0)
        if count >= 2 and share >= 0.1 and share >= _LIFT * expected:
            scores[key] = share * math.log(share / expected)
    best = sorted(scores, key=lambda key: (-scores[key], key))[:3]
    coverage = sum(any(key in before for key in best) for before in befores) / n
    if coverage < _COVERED:
        return Finding()
    return Finding(tuple(whole_word(surface[key], evidence.examples) for key in best), coverage)


def promoted_tokens(evidence: Evidence) -> Finding:
    """The tokens that stand out among those that the feature raises, or that do come next in its examples."""
    if not evidence.promoted:
        return Finding()
    following = [
        key_of(example.tokens[example.train_token_ind + 1])
        for example in evidence.examples
        if example.train_token_ind + 1 < len(example.tokens)
    ]
    strongest = evidence.promoted[0][1]
    chosen = [
        token for token, strength in evidence.promoted if strength >= 0.6 * strongest and token.strip()
    ][:3]
    keys = {key_of(token) for token in chosen}
    hits = sum(key in keys for key in following) / max(1, len(following))
    if not chosen or strongest < (_WEAK if hits >= 0.3 else _STRONG):
        return Finding()
    return Finding(tuple(dict.fromkeys(shown(token) for token in chosen)), max(hits, 0.3))


def common_class(evidence: Evidence, corpus: CorpusWords) -> Finding:
    """A name for the kind of token or place where the feature is active, if there is one."""
    n = len(evidence.peaks)
    classes = Counter(word_class(token) for token, _ in evidence.peaks)
    name, count = classes.most_common(1)[0]
    if name and count >= 0.8 * n and count / n >= 2 * corpus.class_share(name):
        return Finding((name,), count / n)
    frequency = evidence.active / max(1, corpus.total)
    return Finding((f"{frequency:.0%} of all tokens",), frequency) if frequency >= _ALWAYS else Finding()


def compose(peaks: Finding, context: Finding, promoted: Finding) -> str:
    """One text of at most 40 characters; words are left out from the end of the longest list until it fits."""
    parts = [list(peaks.words[:3]), list(context.words[:2]), list(promoted.words[:2])]
    more = peaks.more
    while True:
        text = _joined(*parts, more=more)
        if len(text) <= WIDTH:
            return text
        longest = max(range(3), key=lambda part: (len(parts[part]), part))
        if len(parts[longest]) > 1:
            parts[longest].pop()
            more = more or longest == 0
        elif parts[0] and (parts[1] or parts[2]):
            parts[1 if parts[1] else 2] = []
        elif parts[1] and parts[2]:
            parts[2] = []
        else:
            return text[: WIDTH - 1].rstrip() + "…"


def _joined(peaks: list[str], context: list[str], promoted: list[str], *, more: bool) -> str:
    text = " · ".join(peaks) + (" …" if peaks and more else "")
    if context:
        text = f"{text}, after {' · '.join(context)}" if text else f"after {' · '.join(context)}"
    if promoted:
        text = f"{text} → {', '.join(promoted)}" if text else f"→ {', '.join(promoted)}"
    return text
