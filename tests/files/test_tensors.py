from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from circuit_tracer_cli.errors import BadTranscoders, MissingFile
from circuit_tracer_cli.files.tensors import TensorFile

TENSORS = {
    "W": torch.arange(24.0).reshape(6, 2, 2),
    "b": torch.arange(4.0).bfloat16(),
    "k": torch.tensor(7),
    "none": torch.empty(0, 3),
}


def raw_file(path: Path, header: Any, data: bytes = b"", pad: bytes = b"") -> Path:
    text = (header if isinstance(header, bytes) else json.dumps(header).encode()) + pad
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_reads_what_safetensors_writes(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "t.safetensors")
    file = TensorFile(tmp_path / "t.safetensors")
    assert file.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert file.view(name).dtype is tensor.dtype
        assert torch.equal(file.view(name), tensor)
        assert torch.equal(file.private(name), tensor)
    assert torch.equal(file.rows("W", 2, 5), TENSORS["W"][2:5])
    assert torch.equal(file.gather("W", torch.tensor([5, 0, 0])), TENSORS["W"][[5, 0, 0]])
    file.release("W")
    assert torch.equal(file.view("W"), TENSORS["W"])


def test_what_is_written_to_a_private_view_does_not_reach_the_file(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "t.safetensors")
    file = TensorFile(tmp_path / "t.safetensors")
    written = file.private("W").zero_()
    assert written.count_nonzero() == 0
    assert torch.equal(file.view("W"), TENSORS["W"])
    assert torch.equal(TensorFile(tmp_path / "t.safetensors").view("W"), TENSORS["W"])


def test_misaligned_data_is_read_correctly(tmp_path: Path) -> None:
    values = torch.arange(6.0).reshape(3, 2)
    for pad in range(8):
        header = {"W": entry(shape=(3, 2), offsets=(0, 24))}
        path = tmp_path / f"{pad}.safetensors"
        file = TensorFile(raw_file(path, header, values.numpy().tobytes(), b" " * pad))
        assert torch.equal(file.view("W"), values)
        assert torch.equal(file.private("W"), values)
        assert torch.equal(file.rows("W", 1, 3), values[1:])
        assert torch.equal(file.gather("W", torch.tensor([2, 1])), values[[2, 1]])


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"[", b"", "isn't JSON"),
        (b"[" * 100_000, b"", "isn't JSON"),
        (b"\xff\xfe", b"", "isn't JSON"),
        (b"[]", b"", "isn't a JSON object"),
        (b'{"W": {}, "W": {}}', b"", "two entries 'W'"),
        ({"W": 3}, b"", "'W' is incomplete"),
        ({"W": {"dtype": "F32"}}, b"", "'W' is incomplete"),
        ({"W": entry(dtype="F4")}, bytes(8), "unsupported dtype 'F4'"),
        ({"W": entry(shape=(-2,))}, bytes(8), "impossible shape"),
        ({"W": entry(shape=(2.0,))}, bytes(8), "impossible shape"),
        ({"W": entry(shape=(True,), offsets=(0, 4))}, bytes(8), "impossible shape"),
        ({"W": entry(shape=(2**63,))}, bytes(8), "impossible shape"),
        ({"W": entry(shape=(2**40, 2**40))}, bytes(8), "should take"),
        ({"W": entry(shape=(1,) * 9)}, bytes(8), "impossible shape"),
        ({"W": entry(offsets=(0, 8, 16))}, bytes(16), "impossible shape"),
        ({"W": entry(offsets=(8, 0))}, bytes(16), "should take 8 bytes"),
        ({"W": entry()}, bytes(7), "'W' ends at byte"),
        ({"W": entry(offsets=(2**50, 2**50 + 8))}, bytes(8), "'W' ends at byte"),
        ({"V": entry(), "W": entry(offsets=(4, 12))}, bytes(12), "'W' overlaps"),
    ],
)
def test_a_wrong_header_is_refused_by_name(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    path = raw_file(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(BadTranscoders, match=message) as caught:
        TensorFile(path)
    assert "bad.safetensors" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "content", [b"", b"1234567", (2**62).to_bytes(8, "little"), b"\x10" + bytes(7) + b"{}"]
)
def test_a_stump_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stump").write_bytes(content)
    with pytest.raises(BadTranscoders, match=r"truncated|empty|not a safetensors file"):
        TensorFile(tmp_path / "stump")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="doesn't exist"):
        TensorFile(tmp_path / "nowhere")
    with pytest.raises(MissingFile, match="is a folder"):
        TensorFile(tmp_path)


@settings(derandomize=True, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_ends_in_one_error_or_in_tensors_within_the_file(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(save({"W": TENSORS["W"], "b": TENSORS["b"]}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 160))] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzzed"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    message, tensors = "fuzzed, but harmless", {}
    try:
        file = TensorFile(path)
        tensors = file.tensors
    except BadTranscoders as error:
        message = error.message
    assert "fuzzed" in message
    for name, stored in tensors.items():
        assert file.view(name).numel() * stored.dtype.itemsize == stored.nbytes <= path.stat().st_size
