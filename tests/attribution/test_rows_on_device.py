"""Rows that stay on the device that computed them: summed, ranked and packed there, and only edges go to the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tests.pretended import Ledger, on_pretended, pretended

from circuit_tracer_cli import Graph, attribute
from circuit_tracer_cli.attribution import ranking
from circuit_tracer_cli.attribution import rows as rows_module
from circuit_tracer_cli.attribution.linear import LinearEngine, Targets
from circuit_tracer_cli.attribution.ranking import RowShelf
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.types import SilentProgress

PROMPT = [0, *range(2, 16)]
CAPPED: dict[str, Any] = {"max_feature_nodes": 60, "batch_size": 10, "update_interval": 2}
DEVICE = torch.device("cpu", 1)


@dataclass
class Subject:
    """A model on a pretended device, and what its graphs are when rows go to the host."""

    model: ReplacementModel
    whole: Graph
    capped: Graph


@pytest.fixture(scope="module", params=["plt", pytest.param("clt", marks=pytest.mark.long)])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    with pretended():
        model = on_pretended(DEVICE, "llama", request.param)
        yield Subject(model, trace(model), trace(model, **CAPPED))


def trace(model: ReplacementModel, progress: SilentProgress | None = None, **settings: Any) -> Graph:
    return attribute(PROMPT, model, labels=False, progress=progress or SilentProgress(), **settings)


@pytest.fixture(autouse=True)
def stay(monkeypatch: pytest.MonkeyPatch, subject: Subject) -> None:
    monkeypatch.setattr(rows_module, "keeps_rows", lambda device: device.index is not None)


def same(graph: Graph, want: Graph) -> None:
    assert torch.equal(graph.selected_features, want.selected_features)
    torch.testing.assert_close(graph.adjacency_matrix, want.adjacency_matrix, atol=1e-6, rtol=1e-5)


class Marked(SilentProgress):
    """Counts from the first feature row on."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def phase(self, name: str, total: int | None = None) -> None:
        if name == "feature rows":
            self.ledger.to_host.clear()


def small(graph: Graph) -> int:
    """Bytes of what grows with features and nodes alone: which features are active, what each row has, what is chosen."""
    return 64 * len(graph.active_features) + 8 * graph.n_nodes


def test_the_graph_is_the_same_and_only_its_edges_go_to_the_host(subject: Subject) -> None:
    with Ledger() as ledger:
        graph = trace(subject.model, Marked(ledger))
        assert 0 < sum(ledger.to_host) - 8 * graph.edges.nnz <= small(graph)
    same(graph, subject.whole)


def test_a_capped_graph_is_the_same_and_its_rows_never_leave_as_a_whole(subject: Subject) -> None:
    with Ledger() as ledger:
        graph = trace(subject.model, Marked(ledger), **CAPPED)
        assert 0 < sum(ledger.to_host) - 8 * graph.edges.nnz <= small(graph)
    same(graph, subject.capped)


@pytest.mark.parametrize(("there", "here"), [(0, 10**9), (120_000, 10**9), (0, 60_000), (120_000, 0)])
def test_rows_beyond_the_device_go_to_the_host_and_then_to_files(
    monkeypatch: pytest.MonkeyPatch, subject: Subject, there: int, here: int
) -> None:
    kept: set[tuple[bool, bool]] = set()
    usual = RowShelf.keep

    def keep(self: RowShelf, block: ranking.RowBlock) -> ranking.RowBlock:
        found = usual(self, block)
        kept.add((ranking.on_host(found.rows), found.release is not ranking.nothing))
        return found

    monkeypatch.setattr(RowShelf, "keep", keep)
    monkeypatch.setattr(
        ranking, "free_memory", lambda device=None: 3 * (here if device is None else there) + 1
    )
    same(trace(subject.model, **CAPPED), subject.capped)
    in_memory, on_device, in_file = (True, False), (False, False), (True, True)
    assert (on_device in kept) == (there > 0)
    assert (in_file in kept) == (here < 10**9)
    assert (in_memory in kept) == (here > 0)


def test_no_block_waits_for_the_device_or_sends_more_than_indices(
    monkeypatch: pytest.MonkeyPatch, subject: Subject
) -> None:
    blocks: list[tuple[int, int, int, int]] = []
    usual = LinearEngine.rows
    with Ledger() as ledger:

        def rows(self: LinearEngine, targets: Targets) -> torch.Tensor:
            before = ledger.kernels, ledger.waits, len(ledger.to_host), len(ledger.to_device)
            found = usual(self, targets)
            after = ledger.kernels, ledger.waits, len(ledger.to_host), len(ledger.to_device)
            kernels, waits, received, sent = (b - a for a, b in zip(before, after, strict=True))
            blocks.append((kernels, waits, received, sent))
            return found

        monkeypatch.setattr(LinearEngine, "rows", rows)
        trace(subject.model, compute_block=1500)
    assert len(blocks) > 3
    assert all(waits == received == 0 for _, waits, received, _ in blocks)
    assert max(sent for *_, sent in blocks) <= 2  # positions, and the order of the targets at layer 0
    assert max(kernels for kernels, *_ in blocks) < 60 * subject.model.cfg.n_layers


def test_rows_make_room_for_the_engine(monkeypatch: pytest.MonkeyPatch, subject: Subject) -> None:
    calls, usual, spill, spilled = [0], LinearEngine.rows, RowShelf.spill, []

    def rows(self: LinearEngine, targets: Targets) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. (made up)")
        return usual(self, targets)

    def told(self: RowShelf) -> bool:
        spilled.append(spill(self))
        return spilled[-1]

    monkeypatch.setattr(LinearEngine, "rows", rows)
    monkeypatch.setattr(RowShelf, "spill", told)
    graph = trace(subject.model, **CAPPED)
    assert spilled == [True]
    assert graph.metadata["compute_block"] == subject.capped.metadata["compute_block"]  # nothing was halved
    same(graph, subject.capped)
