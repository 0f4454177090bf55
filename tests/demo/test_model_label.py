"""Names of models for files that others read."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit_tracer_cli.demo import model_dir, model_label


def test_folders_are_named_by_their_last_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert model_label(str(tmp_path / "runs" / "mine")) == "mine"
    assert model_label("runs/mine") == "mine"
    assert model_label(str(model_dir())) == "demo"


@pytest.mark.parametrize("elsewhere", ["/home/somebody/secret/llama-ft", "~/models/llama-ft", "../llama-ft"])
def test_a_folder_of_another_machine_too(elsewhere: str) -> None:
    assert model_label(elsewhere) == "llama-ft"


def test_a_model_of_the_hub_keeps_its_whole_name() -> None:
    assert model_label("google/gemma-2-2b") == "google/gemma-2-2b"
