"""Cross-layer TopK sets: the features with the largest activation times decoder norm over all layers jointly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tests.transcoders.conftest import N_POS, RandomSet
from torch import Tensor

from circuit_tracer_cli.errors import BadTranscoders, InvalidValue
from circuit_tracer_cli.transcoders.components import active_features, reconstruct
from circuit_tracer_cli.transcoders.loading import inspect_transcoders, load_transcoders

K = 7


def write(folder: Path, *, norms: bool = True, **changes: Any) -> RandomSet:
    """A set of a few kB without biases, in float64 so that the choice can be compared exactly."""
    tiny = RandomSet("clt", "relu")
    folder.mkdir(parents=True, exist_ok=True)
    for layer in range(tiny.n_layers):
        encoder = {f"W_enc_{layer}": tiny.W_enc[layer].contiguous()}
        decoder = {f"W_dec_{layer}": tiny.W_dec[layer].contiguous()}
        if norms:
            decoder[f"W_dec_norm_{layer}"] = tiny.W_dec[layer].square().sum((1, 2)).sqrt()
        save_file(encoder, folder / f"W_enc_{layer}.safetensors")
        save_file(decoder, folder / f"W_dec_{layer}.safetensors")
    config = {**tiny.config(), "activation": "cross_layer_topk", "k": K} | changes
    (folder / "config.yaml").write_text(
        yaml.safe_dump({key: v for key, v in config.items() if v is not None})
    )
    return tiny


def naive(tiny: RandomSet, inputs: list[Tensor]) -> Tensor:
    """Activations `(layer, pos, feature)` by sorting all scores of a position."""
    acts = torch.stack([(x.double() @ W.T).clamp(min=0) for x, W in zip(inputs, tiny.W_enc, strict=True)])
    norms = torch.stack([W.flatten(1).norm(dim=1) for W in tiny.W_dec])
    kept = torch.zeros_like(acts)
    for pos in range(N_POS):
        scores = (acts[:, pos] * norms).flatten()
        for place in sorted(range(len(scores)), key=lambda i: -float(scores[i]))[:K]:
            layer, feature = divmod(place, acts.shape[2])
            kept[layer, pos, feature] = acts[layer, pos, feature]
    return kept


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
def test_the_choice_equals_sorting_all_scores(norms: bool, lazy: bool, tmp_path: Path) -> None:
    tiny = write(tmp_path, norms=norms)
    inputs = [x.double() for x in tiny.inputs()]
    loaded = load_transcoders(tmp_path, dtype=torch.float64, lazy_encoder=lazy, lazy_decoder=lazy).transcoders
    active, want = active_features(loaded, inputs), naive(tiny, inputs)
    want[:, 0] = 0
    found = torch.zeros_like(want)
    found[tuple(active.indices.T)] = active.values
    assert torch.allclose(found, want, rtol=1e-12, atol=0)
    assert (found != 0).sum(dim=(0, 2)).tolist() == [0, *[K] * (N_POS - 1)]
    assert loaded.expected_l0 == K / 3
    for layer, output in enumerate(reconstruct(loaded, active, inputs)):
        terms = [want[source] @ tiny.W_dec[source][:, layer - source] for source in range(layer + 1)]
        assert torch.allclose(output, sum(terms, torch.zeros(N_POS, 6).double()), rtol=1e-10, atol=1e-12)


def test_outlier_tokens_have_no_features(tmp_path: Path) -> None:
    tiny = write(tmp_path)
    loaded = load_transcoders(tmp_path, dtype=torch.float64).transcoders
    for factor, active_there in ((30.0, False), (3.0, True)):
        inputs = [x.double() for x in tiny.inputs()]
        for x in inputs:
            x /= x.norm(dim=1, keepdim=True)
        inputs[1][4] *= factor
        found = active_features(loaded, inputs).indices
        assert bool((found[:, 1] == 4).any()) == active_there
        assert bool((found[:, 1] == 3).any())


def test_one_layer_alone_is_refused(tmp_path: Path) -> None:
    tiny = write(tmp_path)
    loaded = load_transcoders(tmp_path).transcoders
    with pytest.raises(InvalidValue, match="over all layers at once"):
        loaded.encode_layer(tiny.inputs()[0], 0)


def test_what_is_stored_must_be_the_norm_over_the_written_layers(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "W_dec_1.safetensors"
    tensors = load_file(path)
    tensors["W_dec_norm_1"] = tensors["W_dec_1"][:, 0].norm(dim=1)
    save_file(tensors, path)
    assert inspect_transcoders(tmp_path).shape.activations == ("cross_layer_topk",) * 3
    with pytest.raises(BadTranscoders, match="'W_dec_norm_1' isn't the norm of the decoders"):
        load_transcoders(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": None}, "cross_layer_topk needs k"),
        ({"activation": None, "k": None}, "lacks the tensor 'b_enc_0'"),
        ({"activation": "topk"}, "isn't defined for a cross-layer transcoder"),
    ],
)
def test_faults_are_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    write(tmp_path, **changes)
    with pytest.raises(BadTranscoders, match=said):
        inspect_transcoders(tmp_path)


def test_a_saved_set_chooses_the_same_features(tmp_path: Path) -> None:
    tiny = write(tmp_path / "a")
    loaded: Any = load_transcoders(tmp_path / "a", dtype=torch.float64).transcoders
    loaded.to_safetensors(tmp_path / "b")
    (tmp_path / "b" / "config.yaml").write_text((tmp_path / "a" / "config.yaml").read_text())
    inputs = [x.double() for x in tiny.inputs()]
    first, again = (
        active_features(one, inputs)
        for one in (loaded, load_transcoders(tmp_path / "b", dtype=torch.float64).transcoders)
    )
    assert torch.equal(first.indices, again.indices)
