from __future__ import annotations

from pathlib import Path

import pytest

from circuit_tracer_cli.errors import BadTranscoders, MissingFile, UnknownReference
from circuit_tracer_cli.transcoders import references
from circuit_tracer_cli.transcoders.references import resolve


def test_a_folder_may_be_absolute_relative_or_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my set"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for reference in (folder, str(folder), "my set", "./my set", "~/my set", "my set/"):
        resolved = resolve(reference)
        assert resolved.folder == folder
        assert resolved.default_scan == str(folder)


def test_the_embedded_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "_DEMO_DATA", tmp_path)
    with pytest.raises(MissingFile, match="'demo' isn't in this installation"):
        resolve("demo")
    for kind in ("clt", "plt"):
        (tmp_path / kind).mkdir()
    assert resolve("demo").folder == resolve("demo-clt").folder == tmp_path / "clt"
    assert resolve("demo-plt").folder == tmp_path / "plt"
    assert resolve("demo-plt").default_scan == "demo-plt"


@pytest.mark.parametrize(
    "reference", ["gemma", "llama", "user/repo", "user/repo/sub@main", "hf://user/repo/x?revision=a"]
)
def test_hub_references_say_that_they_are_not_loaded(reference: str) -> None:
    with pytest.raises(UnknownReference, match="loads no transcoders from the Hugging Face hub") as caught:
        resolve(reference)
    assert "folder" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("reference", "near"), [("dmeo", "demo"), ("demo-ctl", "demo-clt"), ("gema", "gemma")]
)
def test_a_mistyped_name_is_corrected(reference: str, near: str) -> None:
    with pytest.raises(UnknownReference, match="no transcoder folder") as caught:
        resolve(reference)
    assert caught.value.hint == f"did you mean {near}?"


def test_a_mistyped_folder_is_corrected(tmp_path: Path) -> None:
    (tmp_path / "llama-plt").mkdir()
    with pytest.raises(UnknownReference) as caught:
        resolve(tmp_path / "lama-plt")
    assert caught.value.hint == f"did you mean {tmp_path / 'llama-plt'}?"


def test_nothing_near(tmp_path: Path) -> None:
    with pytest.raises(UnknownReference) as caught:
        resolve(tmp_path / "nowhere" / "at" / "all")
    assert "config.yaml" in (caught.value.hint or "")
    with pytest.raises(UnknownReference):
        resolve("~no-such-user-here/set")
    with pytest.raises(UnknownReference):
        resolve("")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(BadTranscoders, match="is a file") as caught:
        resolve(tmp_path / "config.yaml")
    assert str(tmp_path) in (caught.value.hint or "")
