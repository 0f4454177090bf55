"""Weights that wait elsewhere: the same graph, everything back on any exit, no file left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import PROMPT, backend, replacement, transcoders

from circuit_tracer_cli import attribute
from circuit_tracer_cli.attribution import selection
from circuit_tracer_cli.attribution.offload import Offload, on_disk
from circuit_tracer_cli.transcoders.weights import EagerWeights

SOURCE = Path(__file__).resolve().parents[2] / "src"


def parameters(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.model.hf_model.named_parameters()}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(3, 4), (0, 4), ()])
def test_a_tensor_on_the_disk_is_the_same(
    dtype: torch.dtype, shape: tuple[int, ...], temporary: Path
) -> None:
    tensor = torch.randn(shape).to(dtype)
    stored = on_disk(tensor)
    assert torch.equal(stored, tensor)
    assert stored.dtype is dtype
    assert list(temporary.glob("circuit-tracer-*")) == []


@pytest.mark.parametrize("limit", [None, 12])
@pytest.mark.parametrize("place", ["cpu", "disk"])
@pytest.mark.parametrize("case", [("llama", "plt", True), ("gpt2", "clt", False), ("gpt_oss", "plt", False)])
def test_the_graph_is_the_same_and_everything_is_back(
    case: tuple[str, str, bool], place: str, limit: int | None, temporary: Path
) -> None:
    family, kind, skip = case
    model = replacement(family, kind, skip=skip)
    before = parameters(model)
    usual = attribute(list(PROMPT), model, max_feature_nodes=limit)
    other = attribute(list(PROMPT), model, max_feature_nodes=limit, offload=place)
    assert torch.equal(usual.adjacency_matrix, other.adjacency_matrix)
    assert other.metadata["offload"] == place
    after = parameters(model)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    again = attribute(list(PROMPT), model, max_feature_nodes=limit)
    assert torch.equal(usual.adjacency_matrix, again.adjacency_matrix)
    assert list(temporary.glob("circuit-tracer-*")) == []


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_everything_is_back_after_an_exception(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    model = replacement("llama", "clt")
    before, weights = parameters(model), [layer.W_dec.full().clone() for layer in model.transcoders.layers]
    away = []

    def stop(*args: Any, **options: Any) -> Any:
        away.append(sum(p.numel() for p in model.model.parameters_of("mlp")))
        raise error

    monkeypatch.setattr(selection, "feature_rows", stop)
    with pytest.raises(type(error)):
        attribute(list(PROMPT), model, offload="disk")
    assert away == [0]
    after = parameters(model)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    for layer, weight in zip(model.transcoders.layers, weights, strict=True):
        assert torch.equal(layer.W_dec.full(), weight)
    assert model.model.weights.W_U.shape == model.W_U.T.shape
    assert list(temporary.glob("circuit-tracer-*")) == []


def test_each_is_moved_once_and_lazy_ones_not_at_all() -> None:
    model, tiny = backend("llama"), transcoders("plt")
    with Offload("disk") as offload:
        offload.parameters(model.parameters_of("mlp"))
        moved = offload.moved_bytes
        offload.parameters(model.parameters_of("mlp"))
        assert offload.moved_bytes == moved > 0
        offload.transcoders(tiny)
        assert offload.moved_bytes > moved
        rows = tiny.encoder_rows(1, torch.tensor([5, 0, 5]))
    assert offload.moved_bytes == 0
    assert torch.equal(rows, tiny.encoder_rows(1, torch.tensor([5, 0, 5])))


def test_nothing_moves_to_where_it_is() -> None:
    model, tiny = backend("llama"), transcoders("plt")
    for place in ("cpu", "none"):
        with Offload(place) as offload:  # type: ignore[arg-type]
            offload.parameters(model.parameters_of("mlp"))
            offload.transcoders(tiny)
            assert offload.moved_bytes == 0


class OtherDevice(Offload):
    """As on a machine with an accelerator: host memory is another place than the one where weights are."""

    def _moves(self, tensor: torch.Tensor) -> bool:
        return True


def test_host_memory_of_another_device() -> None:
    tiny = transcoders("clt")
    held = [layer.W_enc for layer in tiny.layers]
    assert all(isinstance(weights, EagerWeights) for weights in held)
    before = [weights.full().clone() for weights in held]
    with OtherDevice("cpu") as offload:
        offload.transcoders(tiny)
        assert offload.moved_bytes > 0
    assert all(torch.equal(w.full(), b) for w, b in zip(held, before, strict=True))
    assert all(w.device == tiny.device for w in held)


KILLED = """
import os, signal, torch
from circuit_tracer_cli.attribution.offload import on_disk
kept = on_disk(torch.randn(1000, 100))
print(float(kept.sum()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_no_file(temporary: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TMPDIR": str(temporary)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(temporary.glob("circuit-tracer-*")) == []
