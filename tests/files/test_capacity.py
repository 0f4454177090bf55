from __future__ import annotations

from pathlib import Path

import pytest

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
