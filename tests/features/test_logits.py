"""Promoted tokens equal a dense product of decoder, gains and unembedding, for every family with something special."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuit_tracer_cli.features.finish import logit_effects
from circuit_tracer_cli.replacement import ReplacementModel
from tests.builders import replacement


def dense_effects(model: ReplacementModel, layer: int) -> torch.Tensor:
    """`(feature, vocab)`, from the modules' own parameters in float64."""
    weights = model.model.weights
    assert weights is not None
    everything = torch.arange(model.transcoders.d_transcoder)
    rows = model.transcoders.decoder_rows(layer, everything).double()
    written = list(model.transcoders.written_layers(layer))
    total = torch.zeros(len(everything), model.transcoders.d_model, dtype=torch.float64)
    for slot, target in enumerate(written):
        post = weights.layers[target].ln2_post
        through = model.points.write == "mlp" and post is not None
        total += rows[:, slot] * post.gain.double() if through and post is not None else rows[:, slot]
    if weights.ln_final.kind == "layer":
        total = total - total.mean(-1, keepdim=True)
    return (total * weights.ln_final.gain.double()) @ weights.W_U.double().T


@pytest.mark.parametrize("kind", ["plt", "clt"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_effects_equal_a_dense_product(family: str, kind: str) -> None:
    model = replacement(family, kind)
    for layer in range(model.transcoders.n_layers):
        expected = dense_effects(model, layer)
        blocks = list(logit_effects(model, layer, 5))
        top = np.concatenate([block.top for block in blocks])
        bottom = np.concatenate([block.bottom for block in blocks])
        strength = np.concatenate([block.strength for block in blocks])
        reached = expected.gather(1, torch.from_numpy(top))
        torch.testing.assert_close(reached, expected.topk(5).values, rtol=1e-4, atol=1e-5)
        reached = expected.gather(1, torch.from_numpy(bottom))
        torch.testing.assert_close(reached, expected.topk(5, largest=False).values, rtol=1e-4, atol=1e-5)
        spread = (expected - expected.mean(1, keepdim=True)) / expected.std(1, correction=0, keepdim=True)
        np.testing.assert_allclose(strength, spread.topk(5).values, rtol=1e-4, atol=1e-5)


def test_cross_layer_features_are_summed_over_the_layers_they_write_to() -> None:
    model = replacement("llama", "clt")
    own_layer = model.transcoders.decoder_rows(0, torch.arange(model.transcoders.d_transcoder))[:, 0]
    weights = model.model.weights
    assert weights is not None
    alone = (own_layer * weights.ln_final.gain) @ weights.W_U.T
    block = next(iter(logit_effects(model, 0, 1)))
    assert (torch.from_numpy(block.top)[:, 0] != alone.argmax(1)).any()


def test_none_are_asked_for() -> None:
    assert list(logit_effects(replacement("llama", "plt"), 0, 0)) == []
