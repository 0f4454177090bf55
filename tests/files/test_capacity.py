from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from circuit_tracer_cli.files.capacity import free_disk, free_memory, size_in_words, total_memory


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (150 * 2**20, "150 MiB"),
        (2**33, "8.0 GiB"),
        (3 * 2**40, "3.0 TiB"),
        (5000 * 2**40, "5000 TiB"),
    ],
)
def test_sizes_are_said_in_powers_of_1024(n_bytes: int, words: str) -> None:
    assert size_in_words(n_bytes) == words


def test_free_memory_is_part_of_all_memory() -> None:
    assert 1 << 20 < free_memory() < total_memory()


def test_free_room_is_known_for_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "not" / "yet") > 0


def test_what_torch_keeps_for_later_is_free_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 600)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    assert free_memory(torch.device("cuda", 1)) == 1400


@pytest.mark.parametrize(("recommended", "free"), [(10**6, 5400), (4000, 3200)])
def test_the_gpu_of_a_mac_has_what_the_host_has_and_metal_recommends(
    monkeypatch: pytest.MonkeyPatch, recommended: int, free: int
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 5000}))
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 800)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 1200)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: recommended)
    assert free_memory(torch.device("mps")) == free
