"""The cache's folder follows XDG_CACHE_HOME, and what an earlier version left elsewhere is still found."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit_tracer_cli import cache
from circuit_tracer_cli.files.locations import cache_root, cache_roots, data_folder
from circuit_tracer_cli.transcoders import converted
from circuit_tracer_cli.transcoders.converted import Manifest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CIRCUIT_TRACER_CACHE_DIR", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_named_folder_wins_over_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert cache_root() == home / "xdg" / "circuit_tracer"
    monkeypatch.setenv("CIRCUIT_TRACER_CACHE_DIR", "~/named")
    assert cache_root() == home / "named"
    assert cache_root("~/argument") == home / "argument"


def test_sets_in_the_folder_of_earlier_versions_are_found_and_removed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / ".cache" / "circuit_tracer" / "user" / "repo"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("model_kind: transcoder_set\n")
    converted.write_manifest(folder, Manifest("user/repo", None, "standard-plt", "float32", 0))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert cache_roots() == [home / "xdg" / "circuit_tracer", home / ".cache" / "circuit_tracer"]
    assert cache_roots(home) == [home]
    assert cache.get_cached_path("user/repo") == folder
    assert cache.get_cached_path("user/other") == home / "xdg" / "circuit_tracer" / "user" / "other"
    assert [found.folder for found in cache.cached_sets()] == [folder]
    assert cache.is_cached("user/repo")
    assert cache.empty_cache("user/repo") > 0
    assert cache.cached_sets() == []
    assert not folder.exists()


def test_data_stays_where_an_earlier_version_put_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = home / ".local" / "share" / "circuit-tracer"
    assert data_folder() == usual  # on Linux
    import platformdirs

    library = home / "Library" / "circuit-tracer"
    monkeypatch.setattr(platformdirs, "user_data_path", lambda *names, **options: library)
    assert data_folder() == library
    usual.mkdir(parents=True)
    assert data_folder() == usual
    library.mkdir(parents=True)
    assert data_folder() == library
