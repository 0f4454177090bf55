"""Layouts that others publish: each means the same numbers as the arithmetic of its specification."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.transcoders.conftest import RandomSet
from tests.transcoders.layouts import LAYOUTS, write
from torch.testing import assert_close

from circuit_tracer_cli.errors import BadTranscoders, CircuitTracerError, MissingFile
from circuit_tracer_cli.transcoders import weights as rows
from circuit_tracer_cli.transcoders.activations import JumpReLU
from circuit_tracer_cli.transcoders.components import active_features, reconstruct
from circuit_tracer_cli.transcoders.loading import inspect_transcoders, load_transcoders

LAZY = list(itertools.product((False, True), (False, True)))


def make(layout: str, *, skip: bool = True) -> RandomSet:
    kind, activation, can_skip = LAYOUTS[layout]
    return RandomSet(kind, activation, (0, 1, 2) if skip and can_skip else ())


@pytest.fixture(params=list(LAYOUTS))
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("lazy", LAZY)
def test_means_what_the_specification_says(layout: str, tmp_path: Path, lazy: tuple[bool, bool]) -> None:
    tiny = make(layout)
    folder = write(tiny, layout, tmp_path / "set", torch.float64)
    loaded = load_transcoders(
        folder, dtype=torch.float64, lazy_encoder=lazy[0], lazy_decoder=lazy[1]
    ).transcoders
    features = torch.tensor([19, 0, 7, 7, 3])
    inputs = tiny.inputs()
    for layer, x in enumerate(inputs):
        assert_close(loaded.encode_layer(x, layer), tiny.activations(x, layer), rtol=1e-12, atol=1e-12)
        preacts = loaded.encode_layer(x, layer, apply_activation_function=False)
        assert_close(preacts, tiny.preactivations(x, layer), rtol=1e-12, atol=1e-12)
        assert torch.equal(loaded.encoder_rows(layer, features), tiny.W_enc[layer][features])
        assert torch.equal(loaded.decoder_rows(layer, features), tiny.W_dec[layer][features])
        assert torch.equal(loaded.bias(layer), tiny.b_dec[layer])
        skip = loaded.skip_matrix(layer)
        assert (skip is None) == (layer not in tiny.W_skip)
        if skip is not None:
            assert_close(x.double() @ skip, tiny.skip(x, layer))
    active = active_features(loaded, inputs)
    for layer, found in enumerate(reconstruct(loaded, active, inputs)):
        assert_close(found, tiny.reconstruction(inputs, {0})[layer], rtol=1e-12, atol=1e-12)


def test_lazy_equals_eager_bit_for_bit(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_BLOCK_ELEMENTS", 40)
    tiny = make(layout)
    folder, inputs = write(tiny, layout, tmp_path / "set"), tiny.inputs()
    results = []
    for lazy in LAZY:
        loaded = load_transcoders(folder, dtype=torch.bfloat16, lazy_encoder=lazy[0], lazy_decoder=lazy[1])
        active = active_features(loaded.transcoders, inputs)
        outputs = torch.stack(reconstruct(loaded.transcoders, active, inputs))
        results.append((active.indices, active.values, outputs))
    for result in results[1:]:
        for found, first in zip(result, results[0], strict=True):
            assert torch.equal(found, first)


@pytest.mark.parametrize("skip", [False, True])
def test_shapes_are_known_from_the_headers(layout: str, tmp_path: Path, skip: bool) -> None:
    tiny = make(layout, skip=skip)
    seen = inspect_transcoders(write(tiny, layout, tmp_path / "set"))
    assert seen.format == layout
    assert seen.config.model_name == "tiny"
    shape = seen.shape
    assert (shape.kind, shape.n_layers, shape.d_model, shape.d_transcoder) == (tiny.kind, 3, 6, 20)
    assert shape.activations == (tiny.activation,) * 3
    assert shape.skip_layers == tiny.skip_layers
    assert shape.stored_dtype is torch.float32
    assert shape.encoder_bytes == tuple(4 * matrix.numel() for matrix in tiny.W_enc)
    assert shape.decoder_bytes == tuple(4 * matrix.numel() for matrix in tiny.W_dec)


@pytest.mark.parametrize(
    ("layout", "read", "written"),
    [("saelens", "ln2.hook_normalized", "hook_mlp_out"), ("sparsify", "mlp.hook_in", "mlp.hook_out")],
)
def test_hooks_come_from_what_the_trainer_wrote(layout: str, read: str, written: str, tmp_path: Path) -> None:
    config = inspect_transcoders(write(make(layout), layout, tmp_path / "set")).config
    assert (config.feature_input_hook, config.feature_output_hook) == (read, written)
    assert config.scan == str(tmp_path / "set")


def test_a_saelens_threshold_below_zero_is_a_relu(tmp_path: Path) -> None:
    folder = write(make("saelens"), "saelens", tmp_path / "set")
    path = folder / "layer_1" / "sae_weights.safetensors"
    save_file(load_file(path) | {"threshold": torch.full((20,), -3.0)}, path)
    loaded: Any = load_transcoders(folder).transcoders
    assert isinstance(loaded[1].activation, JumpReLU)
    assert (loaded.encode_layer(torch.randn(5, 6), 1) >= 0).all()


def test_a_square_saelens_transcoder_is_told_by_its_cfg(tmp_path: Path) -> None:
    folder = write(make("saelens", skip=False), "saelens", tmp_path / "set")
    encoder = torch.arange(36.0).view(6, 6)
    for layer in range(3):
        edit_cfg(f"layer_{layer}", d_sae=6)(folder)
        zeros = dict.fromkeys(("b_enc", "b_dec", "threshold"), torch.zeros(6))
        tensors = {"W_enc": encoder, "W_dec": encoder + 1, **{key: z.clone() for key, z in zeros.items()}}
        save_file(tensors, folder / f"layer_{layer}" / "sae_weights.safetensors")
    assert inspect_transcoders(folder).format == "saelens"
    rows_of = load_transcoders(folder).transcoders.encoder_rows(0, torch.arange(6))
    assert torch.equal(rows_of, encoder.T)


def edit_cfg(inside: str, **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / inside / "cfg.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def change(name: str, **tensors: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        stored = {k: v for k, v in (load_file(folder / name) | tensors).items() if v is not None}
        save_file(stored, folder / name)

    return edit


def hooks(layer: int, model: str) -> dict[str, str]:
    read, written = f"blocks.{layer}.ln2.hook_normalized", f"blocks.{layer}.hook_mlp_out"
    return {"hook_name": read, "hook_name_out": written, "model_name": model}


FAULTS: list[tuple[str, Callable[[Path], None], str]] = [
    ("saelens", edit_cfg("layer_1", architecture="jumprelu"), "sparse autoencoder .SAE., not a transcoder"),
    ("saelens", edit_cfg("layer_1", normalize_activations="layer_norm"), "sets normalize_activations: layer_norm, which"),
    ("saelens", edit_cfg("layer_1", metadata={"hook_name": "blocks.1.hook_resid_mid"}), "doesn't name the hooks"),
    ("saelens", edit_cfg("layer_1", metadata=hooks(0, "tiny")), "has layer 0 twice"),
    ("saelens", edit_cfg("layer_2", metadata=hooks(2, "other")), "differ in hooks"),
    ("saelens", change("layer_1/sae_weights.safetensors", scaling_factor=torch.ones(20)), "unknown tensor 'scaling_factor'"),
    ("saelens", change("layer_1/sae_weights.safetensors", W_skip=torch.ones(6, 5)), r"'W_skip' has shape \(6, 5\)"),
    ("saelens", lambda folder: (folder / "layer_1" / "cfg.json").write_text("{"), "isn't valid JSON"),
    ("saelens", lambda folder: (folder / "layer_1" / "cfg.json").unlink(), "layer_1 has no cfg.json"),
    ("sparsify", edit_cfg("layers.1.mlp", transcode=False), "autoencoder .SAE., not a transcoder"),
    ("sparsify", edit_cfg("layers.1.mlp", activation="groupmax"), "only the activation topk"),
    ("sparsify", edit_cfg("layers.1.mlp", k=5), "differ in hooks, activation"),
    ("sparsify", lambda folder: (folder / "layers.1.mlp").rename(folder / "layers.1.attn"), "only transcoders of an MLP"),
    ("sparsify", change("layers.2.mlp/sae.safetensors", b_dec=None), "lacks the tensor 'b_dec'"),
    ("gemma-scope-2-plt", change("params_1.safetensors", w_enc=torch.ones(6, 21)), "'w_enc' has 21 features"),
    ("gemma-scope-2-plt", change("params_1.safetensors", w_dec=torch.ones(6, 20)), r"'w_dec' has shape \(6, 20\)"),
    ("gemma-scope-2-clt", change("params_1.safetensors", w_dec=torch.ones(20, 2, 6)), r"'w_dec' has shape \(20, 2, 6\)"),
    ("gemma-scope-2-clt", change("params_1.safetensors", threshold=torch.ones(20, dtype=torch.int8)), "'threshold' is int8"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "damage", "said"), FAULTS, ids=[said[:30] for _, _, said in FAULTS])
def test_faults_are_named(layout: str, damage: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    folder = write(make(layout), layout, tmp_path / "set")
    damage(folder)
    for read in (inspect_transcoders, load_transcoders):
        with pytest.raises(BadTranscoders, match=said):
            read(folder)


def npz_set(folder: Path, **changes: Any) -> Path:
    """A GemmaScope set whose first layer is written again with changed arrays."""
    write(make("gemma-scope"), "gemma-scope", folder)
    path = folder / "layer_0" / "width_16k" / "average_l0_0" / "params.npz"
    with np.load(path) as stored:
        arrays = {**stored, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"W_enc": np.asfortranarray(np.ones((6, 20), "f4"))}, "can't be read in place"),
        ({"W_enc": np.array([{}], dtype=object)}, "dtype that can't be read in place|no readable header"),
        ({"b_enc": np.ones(20, ">f4")}, "can't be read in place"),
        ({"b_enc": None}, "lacks the tensor 'b_enc'"),
        ({"W_dec": np.ones((20, 5), "f4")}, r"'W_dec' has shape \(20, 5\)"),
        ({"b_dec": np.full(6, np.nan, "f4")}, "'b_dec' contains NaN"),
    ],
)
def test_npz_faults(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    npz_set(tmp_path / "set", **changes)
    with pytest.raises(BadTranscoders, match=said):
        load_transcoders(tmp_path / "set")


def test_a_compressed_npz_file_and_none(tmp_path: Path) -> None:
    path = npz_set(tmp_path / "set")
    with np.load(path) as stored:
        np.savez_compressed(path, **stored)
    with pytest.raises(BadTranscoders, match="is compressed") as caught:
        load_transcoders(tmp_path / "set")
    assert "numpy.savez" in (caught.value.hint or "")
    path.write_bytes(b"no archive")
    with pytest.raises(BadTranscoders, match=r"params\.npz is truncated or not an npz file"):
        inspect_transcoders(tmp_path / "set")
    path.unlink()
    with pytest.raises(MissingFile):
        inspect_transcoders(tmp_path / "set")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10**6), value=st.integers(0, 255), cut=st.integers(0, 400))
@example(position=128, value=0, cut=0)  # a NUL in the header's literal, which ends in numpy's tokenizer
def test_a_damaged_npz_file_loads_or_ends_in_one_of_our_errors(
    tmp_path: Path, position: int, value: int, cut: int
) -> None:
    folder = tmp_path / "set"
    path = folder / "layer_0" / "width_16k" / "average_l0_0" / "params.npz"
    if not (tmp_path / "whole").exists():
        (tmp_path / "whole").write_bytes(npz_set(folder).read_bytes())
    body = bytearray((tmp_path / "whole").read_bytes())
    body[position % len(body)] = value
    path.write_bytes(bytes(body[: len(body) - cut]))
    with suppress(CircuitTracerError):
        assert load_transcoders(folder).transcoders.n_layers == 3


def test_an_npz_header_that_claims_too_much(tmp_path: Path) -> None:
    path = npz_set(tmp_path / "set")
    body = path.read_bytes().replace(b"'shape': (20, 6), ", b"'shape': (2**9,), ", 1)
    path.write_bytes(body)
    with pytest.raises(BadTranscoders, match="no readable header"):
        inspect_transcoders(tmp_path / "set")
    path.write_bytes(
        path.read_bytes()[:-22] + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 2**31, 0, 0)
    )
    with pytest.raises(BadTranscoders, match="not an npz file"):
        inspect_transcoders(tmp_path / "set")


def test_the_config_may_name_files_of_any_layout(tmp_path: Path) -> None:
    """A `config.yaml` beside layers that a trainer wrote overrules what their cfg.json says."""
    tiny = make("sparsify")
    folder = write(tiny, "sparsify", tmp_path / "set")
    listed = [f"layers.{layer}.mlp/sae.safetensors" for layer in range(3)]
    values = tiny.config() | {"transcoders": listed, "activation": "topk", "k": 3}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    seen = inspect_transcoders(folder)
    assert (seen.format, seen.shape.activations) == ("sparsify", ("topk",) * 3)
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny.config() | {"transcoders": listed}))
    with pytest.raises(BadTranscoders, match=r"neither config\.yaml nor .* says k"):
        inspect_transcoders(folder)
