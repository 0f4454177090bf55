"""The golden Llama with both kinds of transcoders, a little text, and what its features do there, computed densely."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from circuit_tracer_cli.replacement import ReplacementModel
from tests.cases import one_of

GOLDEN = Path(__file__).resolve().parents[2] / ".." / "shared" / "golden"
KINDS = ("llama-plt-relu", "llama-clt-relu")
WORDS = (
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "Dallas",
    "is",
    "in",
    "Texas",
    "capital",
)


def make_texts(count: int, seed: int = 0) -> list[str]:
    """Sentences of random words; some come twice."""
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 6))) + "." for _ in range(count - count // 8)]
    return texts + rng.choices(texts, k=count // 8)


@dataclass(frozen=True)
class Peak:
    """The largest activation of one feature in one text."""

    value: float
    context: tuple[int, ...]  # the tokens up to the peak that an example shows
    text: int
    position: int


@dataclass(frozen=True)
class Dense:
    """All activations of one layer, text by text."""

    tokens: list[list[int]]
    acts: list[torch.Tensor]  # per text (pos, feature), special positions zeroed

    def values(self, feature: int) -> list[float]:
        """The activations of a feature where it is active."""
        return [v for acts in self.acts for v in acts[:, feature].tolist() if v != 0]

    def peaks(self, feature: int, left: int) -> list[Peak]:
        """Its peaks from high to low, every context once."""
        best: dict[tuple[int, ...], Peak] = {}
        for text, (tokens, acts) in enumerate(zip(self.tokens, self.acts, strict=True)):
            value, position = acts[:, feature].max(0)
            if value <= 0:
                continue
            context = tuple(tokens[max(0, int(position) - left) : int(position) + 1])
            if context not in best or float(value) > best[context].value:
                best[context] = Peak(float(value), context, text, int(position))
        return sorted(best.values(), key=lambda peak: -peak.value)


@pytest.fixture(scope="session", params=one_of(*reversed(KINDS)))
def model(request: pytest.FixtureRequest) -> ReplacementModel:
    if not GOLDEN.exists():
        pytest.skip("the golden data isn't beside this checkout")
    torch.set_num_threads(1)
    folder = GOLDEN / "transcoders" / request.param
    return ReplacementModel.from_pretrained(str(GOLDEN / "models" / "llama"), str(folder), device="cpu")


@pytest.fixture(scope="session")
def dense(model: ReplacementModel) -> Callable[[tuple[str, ...]], list[Dense]]:
    """Per layer what the features do on some texts, one text at a time and without any of the builder's code."""

    @functools.cache
    def compute(texts: tuple[str, ...]) -> list[Dense]:
        layers = [Dense([], []) for _ in range(model.transcoders.n_layers)]
        for text in texts:
            tokens = model.tokenize(text)
            for layer, frozen in enumerate(model.frozen_pass(tokens.ids).layers):
                acts = model.transcoders.encode_layer(frozen.feature_input, layer)
                acts[list(tokens.zero_positions)] = 0
                layers[layer].tokens.append(tokens.ids.tolist())
                layers[layer].acts.append(acts)
        return layers

    return compute
