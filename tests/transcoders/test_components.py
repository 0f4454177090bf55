from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from circuit_tracer_cli.errors import BadTranscoders, InvalidValue
from circuit_tracer_cli.transcoders.components import (
    ActiveFeatures,
    active_features,
    decoder_vectors,
    reconstruct,
)
from circuit_tracer_cli.transcoders.loading import load_transcoders
from circuit_tracer_cli.transcoders.plt import SingleLayerTranscoder, TranscoderSet


@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_positions_without_any_active_feature_are_reconstructed(
    random_set: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    """The reference cuts off trailing positions where nothing is active."""
    tiny = random_set(kind, "relu", (0,))
    transcoders = load_transcoders(tiny.write(tmp_path), dtype=torch.float64).transcoders
    inputs = tiny.inputs()
    zeroed = range(3, 7)
    active = active_features(transcoders, inputs, zeroed)
    assert int(active.indices[:, 1].max()) == 2
    wanted = tiny.reconstruction(inputs, set(zeroed))
    for found, naive in zip(reconstruct(transcoders, active, inputs), wanted, strict=True):
        assert_close(found, naive, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_a_prompt_without_any_active_feature(
    random_set: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    tiny = random_set(kind, "relu")
    transcoders = load_transcoders(tiny.write(tmp_path)).transcoders
    inputs = tiny.inputs()
    active = active_features(transcoders, inputs, slice(None))
    assert len(active) == 0
    assert active.indices.shape == (0, 3)
    assert active.indices.dtype is torch.int64
    assert list(decoder_vectors(transcoders, active)) == []
    for layer, found in enumerate(reconstruct(transcoders, active, inputs)):
        assert_close(found, tiny.b_dec[layer].float().repeat(7, 1))


def test_entries_of_a_layer_are_found_by_its_slice(random_set: Callable[..., Any], tmp_path: Path) -> None:
    tiny = random_set("clt", "jumprelu")
    transcoders = load_transcoders(tiny.write(tmp_path)).transcoders
    active = active_features(transcoders, tiny.inputs())
    for layer in range(3):
        assert (active.indices[active.of_layer(layer), 0] == layer).all()
    assert active.of_layer(2).stop == len(active)


def test_a_negative_topk_value_is_an_active_feature(random_set: Callable[..., Any], tmp_path: Path) -> None:
    tiny = random_set("plt", "topk", k=18)
    transcoders = load_transcoders(tiny.write(tmp_path)).transcoders
    active = active_features(transcoders, tiny.inputs(), [])
    assert len(active) == 3 * 7 * 18
    assert (active.values < 0).any()


def test_wrong_arguments_are_named(random_set: Callable[..., Any], tmp_path: Path) -> None:
    tiny = random_set("plt", "relu")
    transcoders = load_transcoders(tiny.write(tmp_path)).transcoders
    with pytest.raises(InvalidValue, match="2 feature inputs for a set of 3 layers"):
        active_features(transcoders, tiny.inputs()[:2])
    with pytest.raises(InvalidValue, match="position 7 is outside a prompt of 7 tokens"):
        active_features(transcoders, tiny.inputs(), [7])
    last = active_features(transcoders, tiny.inputs(), [-1])
    assert 6 not in last.indices[:, 1]
    assert 0 in last.indices[:, 1]


def test_activations_that_are_not_finite_are_no_features(
    random_set: Callable[..., Any], tmp_path: Path
) -> None:
    tiny = random_set("plt", "relu")
    transcoders = load_transcoders(tiny.write(tmp_path)).transcoders
    inputs = tiny.inputs()
    inputs[1][4, 0] = torch.nan
    with pytest.raises(BadTranscoders, match="activations of layer 1 are NaN or infinite"):
        active_features(transcoders, inputs)


def test_sixteen_bit_sets_are_summed_in_float32() -> None:
    """A thousand small contributions to a large bias would vanish one by one in bfloat16."""
    n = 1024
    transcoder = SingleLayerTranscoder.from_tensors(
        torch.ones(n, 1), torch.full((n, 1), 2.0**-10), torch.zeros(n), torch.full((1,), 256.0)
    )
    transcoders = TranscoderSet([transcoder], "in", "out").to(dtype=torch.bfloat16)
    inputs = [torch.ones(2, 1)]
    outputs = reconstruct(transcoders, active_features(transcoders, inputs), inputs)
    assert outputs[0].dtype is torch.float32
    assert outputs[0].tolist() == [[256.0], [257.0]]


@pytest.mark.parametrize("case", ["gemma2-plt-jumprelu-full", "llama-plt-relu-full"])
def test_rows_agree_with_the_reference(golden: Path, case: str) -> None:
    setup = load_file(golden / "cases" / case / "setup.safetensors")
    expected = load_file(golden / "cases" / case / "expected.safetensors")
    folder = golden / "transcoders" / case.removesuffix("-full")
    transcoders = load_transcoders(folder, lazy_encoder=True).transcoders
    indices = expected["active_features"]
    counts = indices[:, 0].bincount(minlength=transcoders.n_layers)
    active = ActiveFeatures(
        indices, expected["activation_values"], tuple([0, *torch.cumsum(counts, 0).tolist()])
    )

    encoders = [
        transcoders.encoder_rows(layer, indices[active.of_layer(layer), 2])
        for layer in range(transcoders.n_layers)
    ]
    assert torch.equal(torch.cat(encoders), setup["encoder_vecs"])
    decoders = torch.empty_like(setup["decoder_vecs"])
    for block in decoder_vectors(transcoders, active):
        decoders[block.entries] = block.vectors()[:, 0] * active.values[block.entries, None]
    assert torch.equal(decoders, setup["decoder_vecs"])
    assert torch.equal(setup["decoder_locations"], indices[:, :2].T)
