"""Which tokens a feature raises and lowers directly: its decoder through the unembedding.

The direction is the sum of the feature's decoder rows over all layers that it writes to (one for a per-layer set), each
through the gain of the post-MLP norm where it is written before one, then through the final norm's gain (centred for a
LayerNorm) and the unembedding. Norm scales depend on the text and are left out; so are attention and later MLPs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circuit_tracer_cli.backends.base import NormWeights
from circuit_tracer_cli.replacement import ReplacementModel

_BLOCK_ELEMENTS = 2**24


@dataclass(frozen=True, slots=True)
class LogitEffects:
    """The strongest tokens of some features, strongest first."""

    top: NDArray[np.int64]  # (feature, k) token ids
    bottom: NDArray[np.int64]  # (feature, k)
    strength: NDArray[
        np.float32
    ]  # (feature, k): the effects on `top`, in standard deviations over the vocabulary


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
        yield _strongest(directions(model, layer, features), W_U, k)


def directions(model: ReplacementModel, layer: int, features: Tensor) -> Tensor:
    """What features `(n)` add to the input of the unembedding, up to norm scales: `(n, d_model)` float32."""
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


def _strongest(vectors: Tensor, W_U: Tensor, k: int) -> LogitEffects:
    effects = (vectors.to(W_U) @ W_U.T).float()
    top, bottom = effects.topk(k), effects.topk(k, largest=False)
    spread = effects.std(-1, correction=0, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    strength = (top.values - effects.mean(-1, keepdim=True)) / spread
    return LogitEffects(top.indices.cpu().numpy(), bottom.indices.cpu().numpy(), strength.cpu().numpy())
