"""Running out of memory: blocks are halved until they fit, and the graph stays the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.builders import PROMPT, replacement
from tests.cases import some
from tests.pretended import Ledger, on_pretended, pretended
from torch import Tensor

from circuit_tracer_cli import attribute
from circuit_tracer_cli.attribution.linear import LinearEngine, Targets
from circuit_tracer_cli.attribution.rows import BlockSize, is_out_of_memory, rows_in_parts
from circuit_tracer_cli.types import SilentProgress

FAILURES: list[Callable[[], BaseException]] = [
    MemoryError,
    lambda: torch.OutOfMemoryError("CUDA out of memory"),
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
]
SAID = [
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "MPS backend out of memory (MPS allocated: 7.64 GiB, other allocations: 1 GiB). Tried to allocate 33 GiB",
    "Invalid buffer size: 33.92 GiB",
    "HIP error: hipErrorOutOfMemory",
    "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
]
OTHERS = [
    "shapes don't agree",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
    "CUDA error: device-side assert triggered",
]


class Small:
    """An engine with room for so many rows times positions."""

    def __init__(self, room: int, failure: Callable[[], BaseException] = MemoryError) -> None:
        self.room, self.failure, self.calls, self.given_back = room, failure, 0, 0

    def rows(self, targets: Targets) -> Tensor:
        self.calls += 1
        if len(targets) * (int(targets.positions.max()) + 1) > self.room:
            raise self.failure()
        return targets.vectors[:, :1] + targets.positions[:, None]

    def give_back_memory(self) -> None:
        self.given_back += 1


def targets(n: int, position: int = 3) -> Targets:
    vectors = torch.arange(n, dtype=torch.float32)[:, None].expand(n, 2)
    return Targets(torch.full((n,), 1), torch.full((n,), position), vectors)


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("room", [4, 9, 100])
def test_all_rows_come_in_their_order(failure: Callable[[], BaseException], room: int) -> None:
    given, size = targets(21), BlockSize(1000)
    order = torch.arange(20, -1, -1)
    engine = Small(room, failure)
    parts = list(rows_in_parts(engine, given, order, size))
    assert engine.given_back == size.halvings
    assert torch.equal(torch.cat([index for index, _ in parts]), order)
    assert torch.equal(torch.cat([rows.wait() for _, rows in parts])[:, 0], order.float() + 3)
    assert (size.halvings == 0) == (room == 100)
    assert size.work == 1000 if room == 100 else size.work < 84


def test_what_did_not_fit_is_not_tried_again() -> None:
    engine, size = Small(16), BlockSize(1000)
    list(rows_in_parts(engine, targets(16), torch.arange(16), size))
    before = engine.calls
    list(rows_in_parts(engine, targets(16), torch.arange(16), size))
    assert engine.calls - before == 4


def test_a_single_row_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(MemoryError):
        list(rows_in_parts(Small(3), targets(4), torch.arange(4), BlockSize(1000)))


@pytest.mark.parametrize("said", SAID)
def test_too_little_memory_is_known_by_what_libraries_say(said: str) -> None:
    assert is_out_of_memory(RuntimeError(said))
    assert not is_out_of_memory(ValueError(said))


@pytest.mark.parametrize("said", OTHERS)
def test_other_faults_are_not_taken_for_too_little_memory(said: str) -> None:
    assert not is_out_of_memory(RuntimeError(said))


def test_other_errors_pass() -> None:
    engine = Small(1, lambda: RuntimeError("shapes don't agree"))
    with pytest.raises(RuntimeError, match="shapes"):
        list(rows_in_parts(engine, targets(4), torch.arange(4), BlockSize(1000)))
    assert engine.calls == 1


@pytest.mark.parametrize("limit", [None, 12])
def test_the_graph_does_not_depend_on_it(monkeypatch: pytest.MonkeyPatch, limit: int | None) -> None:
    model = replacement("llama", "clt", n_features=36)
    settings: dict[str, Any] = {"max_feature_nodes": limit, "batch_size": 2, "update_interval": 2}
    usual = attribute(list(PROMPT), model, **settings)
    original = LinearEngine.rows
    failed = []

    def starving(self: LinearEngine, given: Targets) -> Tensor:
        if len(given) > 3:
            failed.append(len(given))
            raise torch.OutOfMemoryError("out of memory")
        return original(self, given)

    monkeypatch.setattr(LinearEngine, "rows", starving)
    starved = attribute(list(PROMPT), model, **settings)
    assert failed
    assert torch.equal(starved.selected_features, usual.selected_features)
    torch.testing.assert_close(starved.adjacency_matrix, usual.adjacency_matrix, atol=1e-6, rtol=1e-5)
    assert starved.metadata["compute_block"] < usual.metadata["compute_block"]


class LimitedRows(SilentProgress):
    """Counts what rows take of a device, and limits it to a share of that."""

    def __init__(self, ledger: Ledger, room: int | None) -> None:
        self.ledger, self.room, self.before = ledger, room, 0

    def phase(self, name: str, total: int | None = None) -> None:
        if name == "logit rows":
            self.before = self.ledger.peak = self.ledger.held
            self.ledger.limit = None if self.room is None else self.before + self.room
        if name == "packaging":
            self.ledger.limit = None


@pytest.mark.parametrize("kind", some(["clt", "plt"], 2))
def test_every_share_of_the_memory_gives_the_same_graph(kind: str) -> None:
    prompt, settings = [0, *range(2, 10)], {"max_feature_nodes": 60, "labels": False}
    with pretended():
        subject = on_pretended(torch.device("cpu", 1), "llama", kind)
        with Ledger() as ledger:
            progress = LimitedRows(ledger, None)
            usual = attribute(prompt, subject, progress=progress, **settings)
            need = ledger.peak - progress.before
            for share in (0.6, 0.2, 0.05):
                failures = ledger.failures
                graph = attribute(
                    prompt, subject, progress=LimitedRows(ledger, int(share * need)), **settings
                )
                assert ledger.failures > failures
                assert torch.equal(graph.selected_features, usual.selected_features)
                torch.testing.assert_close(
                    graph.adjacency_matrix, usual.adjacency_matrix, atol=1e-6, rtol=1e-5
                )
