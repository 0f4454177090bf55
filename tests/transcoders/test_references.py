from __future__ import annotations

from pathlib import Path

import pytest

from circuit_tracer_cli.errors import BadTranscoders, MissingFile, UnknownReference
from circuit_tracer_cli.transcoders import references
from circuit_tracer_cli.transcoders.known import KNOWN_SETS
from circuit_tracer_cli.transcoders.references import HubReference, LocalReference, resolve


def test_a_folder_may_be_absolute_relative_or_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my set"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for reference in (folder, str(folder), "my set", "./my set", "~/my set", "my set/"):
        assert resolve(reference) == LocalReference(folder, str(folder))


def test_the_embedded_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "_DEMO_DATA", tmp_path)
    with pytest.raises(MissingFile, match="'demo' isn't installed"):
        resolve("demo")
    for kind in ("clt", "plt"):
        (tmp_path / kind).mkdir()
    assert resolve("demo") == LocalReference(tmp_path / "clt", "demo")
    assert resolve("demo-clt") == LocalReference(tmp_path / "clt", "demo-clt")
    assert resolve("demo-plt") == LocalReference(tmp_path / "plt", "demo-plt")


@pytest.mark.parametrize(
    ("reference", "repo", "path", "revision"),
    [
        ("gemma", "mwhanna/gemma-scope-transcoders", "", None),
        ("llama", "mntss/transcoder-Llama-3.2-1B", "", None),
        ("user/repo", "user/repo", "", None),
        ("user/repo/", "user/repo", "", None),
        ("user/repo@v1.0", "user/repo", "", "v1.0"),
        ("user/repo/sub/folder", "user/repo", "sub/folder", None),
        ("user/re-po_1.5/sub/folder@refs/pr/3", "user/re-po_1.5", "sub/folder", "refs/pr/3"),
        ("hf://user/repo", "user/repo", "", None),
        ("hf://user/repo/a/b", "user/repo", "a/b", None),
        ("hf://user/repo/a/b?revision=main", "user/repo", "a/b", "main"),
        ("hf://user/repo/a%2Db@v1", "user/repo", "a-b", "v1"),
    ],
)
def test_places_on_the_hub(reference: str, repo: str, path: str, revision: str | None) -> None:
    assert resolve(reference) == HubReference(repo, path, revision)


def test_every_way_to_write_a_place_has_one_name() -> None:
    for text in ("user/repo/sub@v1", "hf://user/repo/sub?revision=v1", "hf://user/repo/sub@v1"):
        found = resolve(text)
        assert isinstance(found, HubReference)
        assert found.canonical == "user/repo/sub@v1"
        assert found.scan == "user/repo//sub@v1"
        assert resolve(found.canonical) == found
    assert HubReference("user/repo").scan == HubReference("user/repo").canonical == "user/repo"


@pytest.mark.parametrize(
    "reference",
    ["hf://user", "hf://", "hf://user/repo/x?rev=1", "hf://user/repo/../x", "hf://user/repo?revision=",
     "hf://user/repo?revision=a&revision=b", "hf://user/repo@a?revision=b", "hf://user/repo?revision=../x"],
)  # fmt: skip
def test_malformed_uris(reference: str) -> None:
    with pytest.raises(UnknownReference):
        resolve(reference)


@pytest.mark.parametrize(
    "reference",
    [
        "user/repo@",
        "user/repo@a@b",
        "http://host/x",
        "a/../b",
        "user/repo/../../x",
        "./user/repo",
        "user//repo",
    ],
)
def test_what_is_neither_a_folder_nor_a_repository(reference: str) -> None:
    with pytest.raises(UnknownReference, match="there is no transcoder"):
        resolve(reference)


def test_a_folder_comes_before_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(resolve("user/repo"), HubReference)
    (tmp_path / "user" / "repo").mkdir(parents=True)
    assert resolve("user/repo") == LocalReference(tmp_path / "user" / "repo", str(tmp_path / "user" / "repo"))
    with pytest.raises(UnknownReference) as caught:
        resolve("user/rpo")
    assert caught.value.hint == "did you mean user/repo?"
    with pytest.raises(UnknownReference):
        resolve(Path("other/repo"))


def test_known_sets_are_references() -> None:
    assert len({known.reference for known in KNOWN_SETS}) == len(KNOWN_SETS)
    for known in KNOWN_SETS:
        found = resolve(known.reference)
        assert isinstance(found, HubReference)
        assert found.canonical == known.reference
        assert known.alias is None or resolve(known.alias) == found
    sizes = {known.reference: known.parameters for known in KNOWN_SETS}
    assert sizes["mwhanna/gemma-scope-transcoders"] == 2 * 26 * 16384 * 2304
    assert sizes["mntss/clt-llama-3.2-1b-524k"] == (16 + 16 * 17 // 2) * 32768 * 2048
    assert sizes["mntss/transcoder-Llama-3.2-1B"] is None
    assert sizes["ByteDance-Seed/Cross-Layer-TopK-CLT"] == (36 + 36 * 37 // 2) * 32768 * 4096  # 94.2 billion


@pytest.mark.parametrize(
    ("reference", "near"),
    [("dmeo", "demo"), ("demo-ctl", "demo-clt"), ("gema", "gemma"), ("lama", "llama"),
     ("clt-llama-3.2-1b-524k", "mntss/clt-llama-3.2-1b-524k")],
)  # fmt: skip
def test_a_mistyped_name_is_corrected(reference: str, near: str) -> None:
    with pytest.raises(UnknownReference, match="no transcoder set") as caught:
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


def test_a_mistyped_folder_below_a_local_one_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sets" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownReference, match="there is no transcoder folder 'sets/other/layers'") as caught:
        resolve("sets/other/layers")
    assert "hf://sets/other/layers" in (caught.value.hint or "")
    assert isinstance(resolve("elsewhere/other/layers"), HubReference)
