"""Damaged sets of both standard layouts: every fault is found before a weight is read, and names file and tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from circuit_tracer_cli.errors import BadTranscoders, CircuitTracerError, MissingFile
from circuit_tracer_cli.transcoders.activations import JumpReLU, TopK
from circuit_tracer_cli.transcoders.loading import inspect_transcoders, load_transcoders

Edit = Callable[[Path], object]


def change(name: str, **tensors: Tensor | None) -> Edit:
    """An edit of one file: tensors are replaced, added, or (None) taken out; `.` in a name is written `__`."""

    def edit(folder: Path) -> None:
        stored = load_file(folder / name)
        for key, tensor in tensors.items():
            key = key.replace("__", ".")
            stored.pop(key, None)
            if tensor is not None:
                stored[key] = tensor
        save_file(stored, folder / name)

    return edit


def remove(name: str) -> Edit:
    return lambda folder: (folder / name).unlink()


def copy(name: str, to: str) -> Edit:
    return lambda folder: (folder / to).write_bytes((folder / name).read_bytes())


def cut(name: str) -> Edit:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-10])


def configure(**values: Any) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))

    return edit


PLT_FAULTS: dict[str, tuple[str, Edit, str]] = {
    "twice": ("relu", copy("layer_1.safetensors", "layer_01.safetensors"), "has layer 1 twice"),
    "cut": ("relu", cut("layer_2.safetensors"), r"layer_2\.safetensors is truncated: tensor '\w+'"),
    "no b_enc": ("relu", change("layer_1.safetensors", b_enc=None), r"layer_1\.safetensors lacks .*'b_enc'"),
    "no W_dec": ("relu", change("layer_0.safetensors", W_dec=None), r"layer_0\.safetensors lacks .*'W_dec'"),
    "unknown": (
        "relu",
        change("layer_0.safetensors", W_gate=torch.ones(2)),
        r"layer_0\.safetensors has an unknown tensor 'W_gate'",
    ),
    "integer": (
        "relu",
        change("layer_1.safetensors", b_dec=torch.zeros(6, dtype=torch.int32)),
        r"layer_1\.safetensors: tensor 'b_dec' is int32, not floating point",
    ),
    "vector encoder": (
        "relu",
        change("layer_0.safetensors", W_enc=torch.ones(20)),
        r"'W_enc' has shape \(20,\)",
    ),
    "no features": (
        "relu",
        change("layer_0.safetensors", W_enc=torch.ones(0, 6)),
        r"'W_enc' has shape \(0, 6\)",
    ),
    "decoder": (
        "relu",
        change("layer_1.safetensors", W_dec=torch.ones(6, 20)),
        r"layer_1\.safetensors: tensor 'W_dec' has shape \(6, 20\) instead of \(20, 6\)",
    ),
    "bias": ("relu", change("layer_2.safetensors", b_enc=torch.ones(19)), r"'b_enc' has shape \(19,\)"),
    "layers differ": (
        "relu",
        change("layer_2.safetensors", W_enc=torch.ones(21, 6)),
        r"layer_2\.safetensors: 'W_enc' has 21 features of width 6, but the first layer has 20 of width 6",
    ),
    "skip": ("relu", change("layer_1.safetensors", W_skip=torch.ones(6, 5)), r"'W_skip' has shape \(6, 5\)"),
    "threshold": (
        "jumprelu",
        change("layer_1.safetensors", activation_function__threshold=torch.ones(3)),
        r"'activation_function.threshold' has shape \(3,\) instead of \(20,\)",
    ),
    "relu with thresholds": ("jumprelu", configure(activation="relu"), "has thresholds"),
    "jumprelu without": ("relu", configure(activation="jumprelu"), "lacks the tensor 'activation_function"),
    "topk without k": ("relu", configure(activation="topk"), "neither config.yaml nor .* says k"),
    "k too large": ("topk", configure(k=21), "k = 21 doesn't fit 20 features"),
    "stored k": (
        "relu",
        change("layer_0.safetensors", k=torch.tensor([1, 2])),
        "tensor 'k' isn't a single number",
    ),
    "stored half k": ("relu", change("layer_0.safetensors", k=torch.tensor(2.5)), "'k' isn't a whole number"),
    "stored k of 0": ("relu", change("layer_0.safetensors", k=torch.tensor(0)), "k = 0 doesn't fit"),
}
CLT_FAULTS: dict[str, tuple[str, Edit, str]] = {
    "encoder missing": ("relu", remove("W_enc_1.safetensors"), r"lacks W_enc_1\.safetensors"),
    "decoder missing": ("relu", remove("W_dec_0.safetensors"), r"lacks W_dec_0\.safetensors"),
    "last encoder missing": ("relu", remove("W_enc_2.safetensors"), r"lacks W_enc_2\.safetensors"),
    "twice": ("relu", copy("W_dec_1.safetensors", "W_dec_001.safetensors"), "has layer 1 twice"),
    "cut": ("relu", cut("W_dec_1.safetensors"), r"W_dec_1\.safetensors is truncated: tensor 'W_dec_1'"),
    "layers swapped": (
        "relu",
        copy("W_enc_1.safetensors", "W_enc_2.safetensors"),
        r"W_enc_2\.safetensors lacks the tensor 'W_enc_2'",
    ),
    "unknown": (
        "relu",
        change("W_enc_0.safetensors", W_gate=torch.ones(2)),
        r"W_enc_0\.safetensors has an unknown tensor 'W_gate'",
    ),
    "slots": (
        "relu",
        change("W_dec_1.safetensors", W_dec_1=torch.ones(20, 3, 6)),
        r"W_dec_1\.safetensors: tensor 'W_dec_1' has shape \(20, 3, 6\) instead of \(20, 2, 6\)",
    ),
    "integer": (
        "relu",
        change("W_dec_2.safetensors", W_dec_2=torch.ones(20, 1, 6, dtype=torch.int8)),
        "'W_dec_2' is int8",
    ),
    "features": (
        "relu",
        change("W_enc_1.safetensors", W_enc_1=torch.ones(21, 6)),
        r"'W_enc_1' has shape \(21, 6\) instead of \(20, 6\)",
    ),
    "threshold": (
        "jumprelu",
        change("W_enc_1.safetensors", threshold_1=torch.ones(3)),
        r"'threshold_1' has shape \(3,\) instead of \(20,\)",
    ),
    "some thresholds": (
        "jumprelu",
        change("W_enc_1.safetensors", threshold_1=None),
        "some layers of the set have thresholds",
    ),
    "topk": ("relu", configure(activation="topk", k=3), "topk isn't defined for a cross-layer"),
}
FAULTS = [
    pytest.param(kind, *fault, id=f"{kind} {name}")
    for kind, faults in (("plt", PLT_FAULTS), ("clt", CLT_FAULTS))
    for name, fault in faults.items()
]


@pytest.mark.parametrize(("kind", "activation", "edit", "message"), FAULTS)
def test_a_damaged_set_is_refused_from_its_headers(
    random_set: Callable[..., Any], tmp_path: Path, kind: str, activation: str, edit: Edit, message: str
) -> None:
    folder = random_set(kind, activation).write(tmp_path)
    edit(folder)
    for read in (inspect_transcoders, load_transcoders):
        with pytest.raises(BadTranscoders, match=message) as caught:
            read(folder)
        assert "\n" not in caught.value.message


def test_a_listed_file_that_is_not_there(random_set: Callable[..., Any], tmp_path: Path) -> None:
    folder = random_set("plt", "relu").write(tmp_path)
    configure(transcoders=["layer_0.safetensors", "nowhere.safetensors"])(folder)
    with pytest.raises(MissingFile, match=r"nowhere\.safetensors doesn't exist"):
        load_transcoders(folder)


def test_k_in_the_file_makes_a_topk_set(random_set: Callable[..., Any], tmp_path: Path) -> None:
    folder = random_set("plt", "relu").write(tmp_path)
    for layer in range(3):
        change(f"layer_{layer}.safetensors", k=torch.tensor(5))(folder)
    assert inspect_transcoders(folder).shape.activations == ("topk",) * 3
    transcoders: Any = load_transcoders(folder).transcoders
    assert [layer.activation for layer in transcoders] == [TopK(5)] * 3
    configure(activation="topk_relu", k=5)(folder)
    assert [layer.activation.name for layer in load_transcoders(folder).transcoders] == ["topk_relu"] * 3  # type: ignore[attr-defined]
    configure(activation="topk", k=2)(folder)
    with pytest.raises(BadTranscoders, match="has k = 5"):
        load_transcoders(folder)


def test_per_layer_files_may_differ_in_their_activation(
    random_set: Callable[..., Any], tmp_path: Path
) -> None:
    folder = random_set("plt", "jumprelu").write(tmp_path)
    change("layer_1.safetensors", activation_function__threshold=None)(folder)
    assert inspect_transcoders(folder).shape.activations == ("jumprelu", "relu", "jumprelu")


@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_thresholds_with_a_leading_axis_and_infinite_ones(
    random_set: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    folder = random_set(kind, "jumprelu").write(tmp_path)
    threshold = torch.full((1, 20), torch.inf)
    if kind == "plt":
        change("layer_1.safetensors", activation_function__threshold=threshold)(folder)
    else:
        change("W_enc_1.safetensors", threshold_1=threshold)(folder)
    transcoders: Any = load_transcoders(folder).transcoders
    assert isinstance(transcoders[1].activation, JumpReLU)
    assert transcoders.encode_layer(torch.ones(2, 6), 1).count_nonzero() == 0


@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_a_threshold_of_nan_is_damage(random_set: Callable[..., Any], tmp_path: Path, kind: str) -> None:
    folder = random_set(kind, "jumprelu").write(tmp_path)
    threshold = torch.full((20,), torch.nan)
    if kind == "plt":
        change("layer_1.safetensors", activation_function__threshold=threshold)(folder)
    else:
        change("W_enc_1.safetensors", threshold_1=threshold)(folder)
    with pytest.raises(BadTranscoders, match="contains NaN"):
        load_transcoders(folder)


@settings(derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_fuzzed_file_ends_in_one_of_our_errors_or_loads(
    random_set: Callable[..., Any], tmp_path: Path, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["plt", "clt"]))
    folder = random_set(kind, "jumprelu", (1,)).write(tmp_path / kind)
    path = data.draw(st.sampled_from(sorted(folder.glob("*.safetensors"))))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, min(600, len(content) - 1)))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    message = "loads"
    try:
        transcoders = load_transcoders(folder, lazy_encoder=True).transcoders
        transcoders.encode_layer(torch.ones(2, 6), 1)
    except CircuitTracerError as error:
        message = error.message
    assert message
    assert "\n" not in message
