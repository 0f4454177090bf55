"""Feature examples of the demo's cross-layer transcoder, from the demo's own corpus."""

from __future__ import annotations

import random
from pathlib import Path

from circuit_tracer_cli.demo.corpus import SEED, Corpus
from circuit_tracer_cli.features.build import build_features
from circuit_tracer_cli.features.settings import BuildSettings
from circuit_tracer_cli.replacement import ReplacementModel

SETTINGS = BuildSettings(context=12, examples=4, quantiles=1, logits=6)
"""Small: all demo files together have to stay under 20 MB in the wheel."""

DOCUMENTS = 12_000


def shuffled_texts(corpus: Corpus) -> list[str]:
    """Every distinct text of every split, in an order that doesn't depend on its task."""
    texts = sorted(set(corpus.texts()))
    random.Random(SEED).shuffle(texts)
    return texts


def build_examples(corpus: Corpus, data: Path) -> None:
    """Write `data/clt/features`."""
    model = ReplacementModel.from_pretrained(str(data / "model"), str(data / "clt"), device="cpu")
    build_features(
        model, shuffled_texts(corpus), data / "clt" / "features", SETTINGS, max_documents=DOCUMENTS
    )
