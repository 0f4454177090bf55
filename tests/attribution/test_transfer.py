"""Rows are waited for after the next block has been begun, where there is something to wait for."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from tests.builders import PROMPT, replacement
from torch import Tensor

from circuit_tracer_cli import attribute
from circuit_tracer_cli.attribution import linear, transfer
from circuit_tracer_cli.attribution import rows as rows_module
from circuit_tracer_cli.attribution.transfer import OnTheWay, arrived, sent_to_host


def blocks(log: list[str], ready: bool) -> Iterator[tuple[int, OnTheWay]]:
    """Three blocks that write down when they are begun and waited for."""

    def waited(number: int) -> Tensor:
        log.append(f"wait {number}")
        return torch.tensor([number])

    for number in range(3):
        log.append(f"begin {number}")
        yield number, OnTheWay(lambda number=number: waited(number), ready)


def test_the_next_block_is_begun_before_rows_are_waited_for() -> None:
    log: list[str] = []
    got = [(number, int(rows)) for number, rows in arrived(blocks(log, ready=False))]
    assert got == [(0, 0), (1, 1), (2, 2)]
    assert log == ["begin 0", "begin 1", "wait 0", "begin 2", "wait 1", "wait 2"]


def test_rows_that_are_there_are_not_held_back() -> None:
    log: list[str] = []
    assert next(arrived(blocks(log, ready=True)))[0] == 0
    assert log == ["begin 0", "wait 0"]


def test_on_a_cpu_they_are_there_at_once() -> None:
    rows = torch.ones(2, 3, dtype=torch.float64)
    sent = sent_to_host(rows)
    assert sent.ready
    assert sent.wait().dtype == torch.float32
    assert torch.equal(sent.wait(), rows.float())


def test_indices_of_a_block_are_sent_once_whatever_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    blocks: list[int] = []

    def counted(indices: Tensor, device: torch.device) -> Tensor:
        sent.append(len(indices))
        return indices.to(device)

    usual = linear.LinearEngine.rows

    def rows(self: linear.LinearEngine, targets: linear.Targets) -> Tensor:
        blocks.append(len(targets))
        return usual(self, targets)

    monkeypatch.setattr(linear, "sent_to_device", counted)
    monkeypatch.setattr(linear.LinearEngine, "rows", rows)
    attribute(list(PROMPT), replacement("llama", "plt", n_features=36), compute_block=200, labels=False)
    # Which targets; the order of those of layer 0. Their positions are on a CPU already, elsewhere they are a third.
    assert len(sent) <= 2 * len(blocks)


class Pinned:
    """What pinned memory is asked for, without a GPU."""

    def __init__(self, available: int) -> None:
        self.available, self.asked = available, 0

    def empty(self, count: int, *, dtype: torch.dtype, pin_memory: bool) -> Tensor:
        assert pin_memory
        self.asked += 1
        if self.asked > self.available:
            raise RuntimeError("CUDA error: out of memory")
        return torch.zeros(count, dtype=dtype)


def test_pinned_memory_is_used_again_and_may_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = Pinned(2)
    monkeypatch.setattr(transfer, "_buffers", [])
    monkeypatch.setattr(transfer, "torch", SimpleNamespace(empty=pinned.empty, float32=torch.float32))
    first = transfer._pinned(10)
    assert first is not None
    transfer._buffers.append(first)
    assert transfer._pinned(8) is first
    assert pinned.asked == 1
    larger = transfer._pinned(20)
    assert larger is not None
    assert len(larger) == 20
    assert transfer._pinned(1) is None


@pytest.mark.parametrize("limit", [None, 12])
def test_the_graph_is_the_same(monkeypatch: pytest.MonkeyPatch, limit: int | None) -> None:
    model = replacement("llama", "clt", n_features=36)
    usual = attribute(list(PROMPT), model, max_feature_nodes=limit, batch_size=2, update_interval=2)
    monkeypatch.setattr(rows_module, "sent_to_host", lambda rows: OnTheWay(rows.float, False))
    late = attribute(list(PROMPT), model, max_feature_nodes=limit, batch_size=2, update_interval=2)
    assert torch.equal(late.adjacency_matrix, usual.adjacency_matrix)
    assert torch.equal(late.selected_features, usual.selected_features)
