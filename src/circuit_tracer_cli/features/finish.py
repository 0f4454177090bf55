"""Turn a layer's tally into records: examples with texts, statistics, labels, and the tokens that features raise and lower.

Logit effects are those of the sum of the feature's decoder rows over all layers that it writes to (one for a per-layer set):
through the gain of a post-MLP norm, if there is one, then the final norm's gain (centered for a LayerNorm) and the
unembedding. Norm scales depend on the text and are left out, as are attention and later MLPs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuit_tracer_cli.backends.base import NormWeights
from circuit_tracer_cli.features.labels import CorpusWords, Evidence, propose
from circuit_tracer_cli.features.records import Example, ExampleGroup, FeatureRecord
from circuit_tracer_cli.features.settings import BuildSettings
from circuit_tracer_cli.features.tally import LayerTally, Reservoir
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.tokens import TokenTexts

_BLOCK_ELEMENTS = 2**24


@dataclass(frozen=True, slots=True)
class LogitEffects:
    """The strongest tokens of some features, strongest first."""

    top: NDArray[np.int64]  # (feature, k) token ids
    bottom: NDArray[np.int64]  # (feature, k)
    strength: NDArray[
        np.float32
    ]  # (feature, k): the effects on `top`, in standard deviations over the vocabulary
    weakness: NDArray[np.float32]  # (feature, k): the same on `bottom`


def logit_effects(model: ReplacementModel, layer: int, k: int) -> Iterator[LogitEffects]:
    """The effects of all features of a layer, in blocks. Yields nothing if the model has no linear weights."""
    weights = model.model.weights
    if weights is None or k == 0:
        return
    W_U = weights.W_U[: len(model.tokenizer)]
    k = min(k, len(W_U))
    n_features = model.transcoders.d_transcoder
    block = max(1, _BLOCK_ELEMENTS // len(W_U))
    for start in range(0, n_features, block):
        features = torch.arange(start, min(start + block, n_features), device=model.transcoders.device)
        yield strongest_effects(directions(model, layer, features), W_U, k)


def directions(model: ReplacementModel, layer: int, features: Tensor) -> Tensor:
    """What features `(n)` add to the unembedding's input, up to norm scales: `(n, d_model)` float32."""
    transcoders, weights = model.transcoders, model.model.weights
    assert weights is not None
    rows = transcoders.decoder_rows(layer, features).float()
    out = torch.zeros(len(features), transcoders.d_model, device=rows.device)
    for slot, written in enumerate(transcoders.written_layers(layer)):
        post = weights.layers[written].ln2_post if model.points.write == "mlp" else None
        out += rows[:, slot] if post is None else _through(post, rows[:, slot])
    return _through(weights.ln_final, out)


def _through(norm: NormWeights, vectors: Tensor) -> Tensor:
    centred = vectors - vectors.mean(-1, keepdim=True) if norm.kind == "layer" else vectors
    return centred * norm.gain.to(vectors)


def strongest_effects(vectors: Tensor, W_U: Tensor, k: int) -> LogitEffects:
    """Return the tokens that directions `(n, d_model)` raise and lower most through `W_U (vocab, d_model)`."""
    effects = (vectors.to(W_U) @ W_U.T).float()
    top, bottom = effects.topk(k), effects.topk(k, largest=False)
    spread = effects.std(-1, correction=0, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    mean = effects.mean(-1, keepdim=True)
    strength, weakness = (top.values - mean) / spread, (bottom.values - mean) / spread
    parts = (top.indices, bottom.indices, strength, weakness)
    return LogitEffects(*(part.cpu().numpy() for part in parts))


_BINS = 40
_PERCENTILES = np.arange(1, 101)


@dataclass(frozen=True, slots=True)
class Corpus:
    """The text that was read: its tokens, the starts of its sequences, and its word frequencies."""

    tokens: NDArray[np.int32]  # (token)
    starts: NDArray[np.int64]  # (sequence)
    counted: int  # tokens at which features can be active
    texts: TokenTexts
    words: CorpusWords

    def example(self, at: int, window: NDArray[np.float32], left: int, *, repeated: bool) -> Example:
        """The example whose peak is token `at`; `window` begins `left` tokens before it and can extend beyond the sequence."""
        sequence = int(np.searchsorted(self.starts, at, side="right"))
        begin = int(self.starts[sequence - 1])
        end = int(self.starts[sequence]) if sequence < len(self.starts) else len(self.tokens)
        first, last = max(begin, at - left), min(end, at - left + len(window))
        acts = window[first - (at - left) : last - (at - left)]
        return Example(
            tokens=tuple(self.texts.of(self.tokens[first:last].tolist())),
            tokens_acts_list=tuple(rounded(act) if act else 0.0 for act in acts.tolist()),
            train_token_ind=at - first,
            is_repeated_datapoint=repeated,
        )


def rounded(value: float, digits: int = 4) -> float:
    """A number to four significant digits, enough for the viewer."""
    return float(f"{value:.{digits}g}")


class RecordMaker:
    """Makes the records of one layer."""

    def __init__(self, tally: LayerTally, corpus: Corpus, transcoder_id: str) -> None:
        self.tally = tally
        self.corpus = corpus
        self.transcoder_id = transcoder_id
        self.settings: BuildSettings = tally.settings

    def records(self, effects: Iterator[LogitEffects]) -> Iterator[FeatureRecord]:
        """All records in the order of the features; `effects` has those of all features, or is empty."""
        feature = 0
        for block in effects:
            for row in range(len(block.top)):
                yield self.record(feature, block, row)
                feature += 1
        for rest in range(feature, len(self.tally.active)):
            yield self.record(rest, None, 0)

    def record(self, feature: int, effects: LogitEffects | None, row: int) -> FeatureRecord:
        """One feature's record, without examples and statistics if it was never active."""
        texts = self.corpus.texts
        top = [] if effects is None else texts.of(effects.top[row].tolist())
        bottom = [] if effects is None else texts.of(effects.bottom[row].tolist())
        active = int(self.tally.active[feature])
        if active == 0:
            return FeatureRecord(
                transcoder_id=self.transcoder_id,
                index=feature,
                top_logits=tuple(top),
                bottom_logits=tuple(bottom),
            )
        groups = self.groups(feature)
        strength = [] if effects is None else effects.strength[row].tolist()
        evidence = Evidence(
            peaks=self._peaks(feature),
            examples=[e for group in groups for e in group.examples if not e.is_repeated_datapoint],
            promoted=list(zip(top, strength, strict=True)),
            active=active,
        )
        always = active >= self.corpus.counted
        low, high = float(self.tally.low[feature]), float(self.tally.high[feature])
        act_min, act_max = low if always else min(low, 0.0), high if always else max(high, 0.0)
        values = np.sort(self.tally.values.payload["value"][feature][self.tally.values.entries(feature)])
        return FeatureRecord(
            transcoder_id=self.transcoder_id,
            index=feature,
            examples_quantiles=groups,
            top_logits=tuple(top),
            bottom_logits=tuple(bottom),
            act_min=rounded(act_min, 6),
            act_max=rounded(act_max, 6),
            quantile_values=tuple(rounded(float(v)) for v in np.percentile(values, _PERCENTILES)),
            histogram=_histogram(values, (act_min, act_max), active),
            activation_frequency=rounded(active / max(1, self.corpus.counted), 6),
            label=propose(evidence, self.corpus.words),
        )

    def groups(self, feature: int) -> tuple[ExampleGroup, ...]:
        """The top examples, and the sampled ones in equally large groups from high to low activation.

        A sampled example that is also a top one is marked as repeated. If all are, there are no samples.
        """
        top, sample, n = self.tally.top, self.tally.sample, self.settings.quantiles
        best = top.entries(feature)
        groups = [ExampleGroup("Top activations", self._examples(top, feature, best, set()))]
        slots = sample.entries(feature)
        assert top.identity is not None
        assert sample.identity is not None
        shown = {int(identity) for identity in top.identity[feature, best]}
        if not n or all(int(identity) in shown for identity in sample.identity[feature, slots]):
            return tuple(groups)
        heights = sample.payload["value"][feature, slots]
        ordered = slots[np.lexsort((sample.at[feature, slots], -heights))]
        for rank, part in enumerate(np.array_split(ordered, n)):
            if len(part):
                name = f"Percentile {100 * (n - rank - 1) // n}–{100 * (n - rank) // n}"
                groups.append(ExampleGroup(name, self._examples(sample, feature, part, shown)))
        return tuple(groups)

    def _examples(
        self, reservoir: Reservoir, feature: int, slots: NDArray[np.intp], shown: set[int]
    ) -> tuple[Example, ...]:
        assert reservoir.identity is not None
        out = []
        for slot in slots:
            height = float(reservoir.payload["value"][feature, slot])
            window = reservoir.payload["window"][feature, slot].astype(np.float32) * height
            repeated = int(reservoir.identity[feature, slot]) in shown
            at = int(reservoir.at[feature, slot])
            out.append(self.corpus.example(at, window, self.settings.left, repeated=repeated))
        return tuple(out)

    def _peaks(self, feature: int) -> list[tuple[str, float]]:
        values = self.tally.values
        slots = values.entries(feature)
        tokens = self.corpus.texts.of(values.payload["token"][feature, slots].tolist())
        return list(zip(tokens, values.payload["value"][feature, slots].tolist(), strict=True))


def _histogram(values: NDArray[np.float32], bounds: tuple[float, float], active: int) -> tuple[int, ...]:
    """Counts of all activations in even steps, estimated from the sample if there are more."""
    low, high = bounds
    counts, _ = np.histogram(values, _BINS, (low, high if high > low else low + 1.0))
    return tuple(round(int(count) * active / len(values)) for count in counts)
