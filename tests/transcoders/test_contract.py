"""What every layout must do, whatever the activation, the skip connections, and where the weights lie."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from circuit_tracer_cli.transcoders import components
from circuit_tracer_cli.transcoders import weights as rows
from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.components import active_features, decoder_vectors, reconstruct
from circuit_tracer_cli.transcoders.loading import inspect_transcoders, load_transcoders

SETS = [
    pytest.param(kind, activation, skip, id=f"{kind}-{activation}-{label}")
    for kind, activations in (("plt", ("relu", "jumprelu", "topk")), ("clt", ("relu", "jumprelu")))
    for activation in activations
    for label, skip in (("noskip", ()), ("skip", (0, 1, 2)), ("mixed", (1,)))
]
LAZY = list(itertools.product((False, True), (False, True)))
pytestmark = pytest.mark.parametrize(("kind", "activation", "skip"), SETS)


@pytest.fixture
def tiny(random_set: Callable[..., Any], kind: str, activation: str, skip: tuple[int, ...]) -> Any:
    return random_set(kind, activation, skip)


@pytest.fixture
def folder(tiny: Any, tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "set")


def load(folder: Path, lazy: tuple[bool, bool], dtype: torch.dtype = torch.float32) -> Transcoders:
    return load_transcoders(folder, dtype=dtype, lazy_encoder=lazy[0], lazy_decoder=lazy[1]).transcoders


@pytest.mark.parametrize("lazy", LAZY)
def test_encode_rows_bias_and_skip(tiny: Any, folder: Path, lazy: tuple[bool, bool]) -> None:
    transcoders = load(folder, lazy, torch.float64)
    features = torch.tensor([19, 0, 7, 7, 3])
    for layer, x in enumerate(tiny.inputs()):
        acts = transcoders.encode_layer(x, layer)
        assert acts.dtype is torch.float64
        assert_close(acts, tiny.activations(x, layer), rtol=1e-12, atol=1e-12)
        preacts = transcoders.encode_layer(x, layer, apply_activation_function=False)
        assert_close(preacts, tiny.preactivations(x, layer), rtol=1e-12, atol=1e-12)
        assert torch.equal(transcoders.encoder_rows(layer, features), tiny.W_enc[layer][features])
        assert torch.equal(transcoders.decoder_rows(layer, features), tiny.W_dec[layer][features])
        assert len(transcoders.written_layers(layer)) == tiny.written(layer)
        assert torch.equal(transcoders.bias(layer), tiny.b_dec[layer])
        skip = transcoders.skip_matrix(layer)
        assert (skip is None) == (layer not in tiny.W_skip)
        if skip is not None:
            assert_close(x.double() @ skip, tiny.skip(x, layer))
    assert transcoders.has_skip == bool(tiny.W_skip)


@pytest.mark.parametrize("zeroed", [slice(0, 1), slice(0, 4), [0, 5], range(0)], ids=str)
def test_components_equal_the_naive_computation(tiny: Any, folder: Path, zeroed: Any) -> None:
    transcoders = load(folder, (True, True), torch.float64)
    inputs = tiny.inputs()
    positions = set(range(len(inputs[0]))[zeroed]) if isinstance(zeroed, slice) else set(zeroed)
    dense = torch.stack([tiny.activations(x, layer) for layer, x in enumerate(inputs)])
    dense[:, list(positions)] = 0

    active = active_features(transcoders, inputs, zeroed)
    assert torch.equal(active.indices, dense.nonzero())
    assert_close(active.values, dense[dense != 0], rtol=1e-12, atol=1e-12)
    for layer, found in enumerate(reconstruct(transcoders, active, inputs)):
        assert_close(found, tiny.reconstruction(inputs, positions)[layer], rtol=1e-12, atol=1e-12)


def test_lazy_results_are_the_same_bit_for_bit(
    tiny: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_BLOCK_ELEMENTS", 40)
    inputs = tiny.inputs()
    results = []
    for lazy in LAZY:
        transcoders = load(folder, lazy, torch.bfloat16)
        active = active_features(transcoders, inputs)
        results.append((active.indices, active.values, torch.stack(reconstruct(transcoders, active, inputs))))
    for result in results[1:]:
        for found, first in zip(result, results[0], strict=True):
            assert torch.equal(found, first)
    assert results[0][1].dtype is torch.bfloat16
    assert results[0][2].dtype is torch.float32


def test_small_blocks_change_nothing(tiny: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transcoders = load(folder, (True, True), torch.float64)
    inputs = tiny.inputs()
    whole = active_features(transcoders, inputs)
    outputs = reconstruct(transcoders, whole, inputs)
    monkeypatch.setattr(components, "_DENSE_ELEMENTS", 45)
    blockwise = active_features(transcoders, inputs)
    assert torch.equal(blockwise.indices, whole.indices)
    assert_close(blockwise.values, whole.values, rtol=1e-12, atol=1e-12)
    assert_close(reconstruct(transcoders, whole, inputs), outputs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("max_bytes", [1, 500, 2**28])
def test_decoder_blocks_cover_every_entry_once_and_read_every_row_once(
    tiny: Any, folder: Path, max_bytes: int
) -> None:
    transcoders = load(folder, (False, True), torch.float64)
    active = active_features(transcoders, tiny.inputs())
    seen = []
    rows_read = 0
    for block in decoder_vectors(transcoders, active, max_bytes):
        assert (block.entries[1:] > block.entries[:-1]).all()
        layer, _, feature = active.indices[block.entries].unbind(1)
        assert (layer == block.layer).all()
        assert torch.equal(block.vectors(), tiny.W_dec[block.layer][feature])
        seen.append(block.entries)
        rows_read += len(block.rows)
    assert torch.cat(seen).sort().values.tolist() == list(range(len(active)))
    assert rows_read == len(active.indices[:, [0, 2]].unique(dim=0))


def test_shapes_are_known_from_the_headers(tiny: Any, folder: Path) -> None:
    shape = inspect_transcoders(folder).shape
    transcoders = load(folder, (True, True))
    assert (shape.kind, shape.n_layers) == (transcoders.kind, transcoders.n_layers)
    assert (shape.d_model, shape.d_transcoder) == (transcoders.d_model, transcoders.d_transcoder)
    assert shape.activations == (tiny.activation,) * tiny.n_layers
    assert shape.skip_layers == tiny.skip_layers
    assert shape.encoder_bytes == tuple(4 * matrix.numel() for matrix in tiny.W_enc)
    assert shape.decoder_bytes == tuple(4 * matrix.numel() for matrix in tiny.W_dec)


def test_saving_and_loading_again_gives_the_same_set(tiny: Any, folder: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    saved.mkdir()
    config = (folder / "config.yaml").read_text()
    # Without the config's activation, the files alone must say what they are.
    without = "\n".join(line for line in config.splitlines() if not line.startswith(("activation", "k:")))
    (saved / "config.yaml").write_text(without)
    load(folder, (True, True)).to_safetensors(saved)  # type: ignore[attr-defined]
    assert {path.name for path in saved.iterdir()} == {path.name for path in folder.iterdir()}
    first, second = load(folder, (False, False)), load(saved, (False, False))
    for layer, x in enumerate(tiny.inputs()):
        assert torch.equal(first.encode_layer(x, layer), second.encode_layer(x, layer))
    inputs = tiny.inputs()
    active = active_features(first, inputs)
    assert torch.equal(
        torch.stack(reconstruct(first, active, inputs)), torch.stack(reconstruct(second, active, inputs))
    )


def test_the_dense_path_agrees(tiny: Any, folder: Path) -> None:
    x = torch.stack(tiny.inputs())
    for lazy in LAZY:
        transcoders: Any = load(folder, lazy, torch.float64)
        wanted = torch.stack(tiny.reconstruction(tiny.inputs(), set()))
        assert_close(transcoders.forward(x), wanted, rtol=1e-12, atol=1e-12)


def test_moving_casts_everything_in_place(tiny: Any, folder: Path) -> None:
    transcoders: Any = load(folder, (False, True))
    assert transcoders.to(dtype=torch.float64) is transcoders
    assert transcoders.dtype is torch.float64
    x = tiny.inputs()[0]
    assert_close(transcoders.encode_layer(x, 0), tiny.activations(x, 0), rtol=1e-12, atol=1e-12)
    assert transcoders.decoder_rows(0, torch.tensor([1])).dtype is torch.float64
