from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from circuit_tracer_cli.errors import BadTranscoders, InvalidValue, UnknownFormat
from circuit_tracer_cli.transcoders import loading
from circuit_tracer_cli.transcoders.formats import FORMATS
from circuit_tracer_cli.transcoders.loading import inspect_transcoders, load_transcoders


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def test_a_set_and_its_config(random_set: Callable[..., Any], tmp_path: Path) -> None:
    folder = random_set("clt", "relu").write(tmp_path / "set")
    loaded = load_transcoders(folder)
    assert loaded.config.model_name == "tiny"
    assert loaded.transcoders.scan == str(folder)
    assert loaded.transcoders.feature_input_hook == "hook_resid_mid"
    assert loaded.transcoders.device == torch.device("cpu")
    edit_config(folder, scan="somewhere/else")
    assert load_transcoders(folder).transcoders.scan == "somewhere/else"


@pytest.mark.parametrize(("kind", "wrong"), [("plt", "cross_layer_transcoder"), ("clt", "transcoder_set")])
def test_the_config_must_describe_the_files(
    random_set: Callable[..., Any], tmp_path: Path, kind: str, wrong: str
) -> None:
    folder = random_set(kind, "relu").write(tmp_path)
    edit_config(folder, model_kind=wrong)
    with pytest.raises(BadTranscoders, match=f"its files are standard-{kind}"):
        load_transcoders(folder)


def test_no_weights_and_foreign_weights(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "model_kind: transcoder_set\nfeature_input_hook: a\nfeature_output_hook: b\n"
    )
    with pytest.raises(UnknownFormat, match="it is empty"):
        inspect_transcoders(tmp_path)
    save_file({"encoder.weight": torch.ones(2, 2)}, tmp_path / "layer_0.safetensors")
    (tmp_path / "params.npz").write_bytes(b"")
    with pytest.raises(UnknownFormat, match=r"layer_0\.safetensors, params\.npz"):
        inspect_transcoders(tmp_path)


def test_both_layouts_in_one_folder(random_set: Callable[..., Any], tmp_path: Path) -> None:
    random_set("plt", "relu").write(tmp_path)
    random_set("clt", "relu").write(tmp_path)
    with pytest.raises(BadTranscoders, match="more than one layout: standard-plt and standard-clt"):
        load_transcoders(tmp_path)


def test_the_name_of_the_folder_decides_nothing(random_set: Callable[..., Any], tmp_path: Path) -> None:
    folder = random_set("plt", "jumprelu").write(tmp_path / "gemma-scope-2-clt")
    assert inspect_transcoders(folder).format == "standard-plt"
    assert list(FORMATS)[:2] == ["standard-plt", "standard-clt"]


def test_files_that_the_config_lists(random_set: Callable[..., Any], tmp_path: Path) -> None:
    tiny = random_set("plt", "relu")
    folder = tiny.write(tmp_path / "set")
    names = ["c.safetensors", str(tmp_path / "a.safetensors"), "../b.safetensors"]
    for layer, target in enumerate([folder / "c", tmp_path / "a", tmp_path / "b"]):
        (folder / f"layer_{layer}.safetensors").rename(target.with_suffix(".safetensors"))
    edit_config(folder, transcoders=names)
    transcoders = load_transcoders(folder, dtype=torch.float64).transcoders
    for layer in range(3):
        wanted = tiny.W_enc[layer].float().double()
        assert torch.equal(transcoders.encoder_rows(layer, torch.arange(20)), wanted)
    edit_config(folder, transcoders=["hf://user/repo/layer_0.safetensors"])
    with pytest.raises(BadTranscoders, match="can't list files elsewhere"):
        load_transcoders(folder)


def test_inspecting_reads_no_weights(
    random_set: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN weights aren't seen from the headers; loading sees them."""
    folder = random_set("plt", "relu").write(tmp_path)
    path = folder / "layer_1.safetensors"
    tensors = load_file(path)
    tensors["W_dec"][3, 2] = torch.nan
    save_file(tensors, path)
    assert inspect_transcoders(folder).shape.n_layers == 3
    with pytest.raises(BadTranscoders, match=r"layer_1\.safetensors: tensor 'W_dec' contains NaN"):
        load_transcoders(folder, lazy_decoder=False)
    monkeypatch.setattr(loading, "_SCANNED_BYTES", 0)  # as for decoders that take long to read
    lazy = load_transcoders(folder).transcoders
    with pytest.raises(BadTranscoders, match=r"layer_1\.safetensors: tensor 'W_dec' contains NaN"):
        lazy.decoder_rows(1, torch.tensor([3]))


def test_nan_in_a_lazy_encoder_is_found_when_it_is_used(
    random_set: Callable[..., Any], tmp_path: Path
) -> None:
    folder = random_set("clt", "jumprelu").write(tmp_path)
    path = folder / "W_enc_2.safetensors"
    tensors = load_file(path)
    tensors["W_enc_2"][0, 0] = torch.inf
    save_file(tensors, path)
    lazy = load_transcoders(folder, lazy_encoder=True).transcoders
    lazy.encode_layer(torch.ones(2, 6), 1)
    with pytest.raises(BadTranscoders, match=r"W_enc_2\.safetensors: tensor 'W_enc_2' contains NaN or inf"):
        lazy.encode_layer(torch.ones(2, 6), 2)


def test_weights_are_floating_point(random_set: Callable[..., Any], tmp_path: Path) -> None:
    folder = random_set("plt", "relu").write(tmp_path)
    with pytest.raises(InvalidValue, match="int64"):
        load_transcoders(folder, dtype=torch.int64)


@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_any_stored_dtype_becomes_the_requested_one(
    random_set: Callable[..., Any], tmp_path: Path, stored: torch.dtype
) -> None:
    tiny = random_set("plt", "jumprelu", (0, 1, 2))
    folder = tiny.write(tmp_path, stored)
    assert inspect_transcoders(folder).shape.stored_dtype is stored
    for lazy in (False, True):
        transcoders = load_transcoders(folder, dtype=torch.float32, lazy_decoder=lazy).transcoders
        rows = transcoders.decoder_rows(1, torch.arange(20))
        assert torch.equal(rows, tiny.W_dec[1].to(stored).float())
        assert transcoders.encode_layer(tiny.inputs()[0], 0).dtype is torch.float32
