"""Compact forms on the disk: what is found again, what is derived anew, and what a damaged cache does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circuit_tracer_cli.server import compact
from circuit_tracer_cli.server.bodies import Body, body_of
from circuit_tracer_cli.server.compact_cache import CompactCache, compact_folder
from circuit_tracer_cli.server.features import feature_codes

from .builders import make_graph, write_graph


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The entity tags of what was derived from scratch."""
    tags: list[str] = []
    original = compact.compact_graph

    def counted(body: Any) -> bytes | None:
        tags.append(body.etag)
        return original(body)

    monkeypatch.setattr(compact, "compact_graph", counted)
    return tags


def make_cache(tmp_path: Path, **options: Any) -> CompactCache:
    return CompactCache(tmp_path / "forms", **{"keep_from": 0, **options})


def reader(path: Path) -> Callable[[], Body]:
    return lambda: body_of(path.read_bytes())


def unread() -> Body:
    raise AssertionError("the graph file was read")


def test_another_server_finds_the_form_without_reading_the_graph(tmp_path: Path, derived: list[str]) -> None:
    path = write_graph(tmp_path)
    first = make_cache(tmp_path).read(path, reader(path))
    assert make_cache(tmp_path).read(path, unread) == first
    assert len(derived) == 1
    assert [file.suffix for file in (tmp_path / "forms").iterdir()] == [".ctgb"]


def test_annotations_change_the_header_whoever_wrote_them(tmp_path: Path, derived: list[str]) -> None:
    path = write_graph(tmp_path)
    make_cache(tmp_path).read(path, reader(path))
    write_graph(tmp_path, pinnedIds=["1_7_0"])
    renewed = make_cache(tmp_path).read(path, reader(path))
    assert renewed is not None
    assert renewed.content == compact.compact_graph(body_of(path.read_bytes()))
    assert len(derived) == 2  # the second is the comparison's own
    assert make_cache(tmp_path).read(path, unread) == renewed


@pytest.mark.parametrize("key", ["nodes", "links"])
def test_other_nodes_or_links_are_derived_anew(tmp_path: Path, derived: list[str], key: str) -> None:
    path = write_graph(tmp_path)
    cache = make_cache(tmp_path)
    cache.read(path, reader(path))
    graph = make_graph()
    graph[key][0]["weight" if key == "links" else "influence"] = 0.7
    path.write_text(json.dumps(graph, indent=2))
    changed = cache.read(path, reader(path))
    assert changed is not None
    assert len(derived) == 2
    assert changed.content == compact.compact_graph(body_of(path.read_bytes()))


def test_annotations_may_stand_anywhere_in_a_small_file(tmp_path: Path, derived: list[str]) -> None:
    graph = make_graph()
    path = tmp_path / "late.json"
    cache = make_cache(tmp_path)
    for pins in ([], ["1_7_0"]):
        late = {key: graph[key] for key in ("nodes", "metadata", "links")}
        path.write_text(json.dumps({**late, "qParams": {"pinnedIds": pins}}))
        form = cache.read(path, reader(path))
        assert form is not None
        assert form.content == compact.compact_graph(body_of(path.read_bytes()))
    assert len(derived) == 3  # once by the cache, twice for comparison


@pytest.mark.parametrize("damage", [b"", b"no line", b"[]\n", b'{"form": 0}\n', b"\xff\xfe\n", None], ids=str)
def test_a_damaged_cache_costs_a_derivation_alone(
    tmp_path: Path, derived: list[str], damage: bytes | None
) -> None:
    path = write_graph(tmp_path)
    first = make_cache(tmp_path).read(path, reader(path))
    (kept,) = (tmp_path / "forms").iterdir()
    kept.write_bytes(kept.read_bytes()[:-9] if damage is None else damage)
    assert make_cache(tmp_path).read(path, reader(path)) == first
    assert len(derived) == 2
    assert make_cache(tmp_path).read(path, unread) == first


def test_small_forms_and_files_that_have_none_stay_in_memory(tmp_path: Path) -> None:
    path = write_graph(tmp_path)
    cache = make_cache(tmp_path, keep_from=1 << 20)
    assert cache.read(path, reader(path)) is not None
    path.write_text('{"metadata": {}, "qParams": {}, "nodes": [1], "links": []}')
    assert cache.read(path, reader(path)) is None
    assert cache.read(path, unread) is None
    assert not (tmp_path / "forms").exists()


def test_a_folder_that_cant_be_written_is_no_obstacle(tmp_path: Path) -> None:
    path = write_graph(tmp_path)
    (tmp_path / "forms").write_text("a file")
    assert make_cache(tmp_path).read(path, reader(path)) is not None


def test_the_oldest_make_room(tmp_path: Path) -> None:
    paths = [write_graph(tmp_path, slug) for slug in ("a", "b", "c")]
    size = len(compact.compact_graph(body_of(paths[0].read_bytes())) or b"")
    cache = make_cache(tmp_path, max_disk=3 * size, max_bytes=1)
    for age, path in enumerate(paths):
        cache.read(path, reader(path))
        (new,) = (file for file in (tmp_path / "forms").iterdir() if file.stat().st_mtime > len(paths))
        os.utime(new, (age, age))
    left = make_cache(tmp_path, max_disk=3 * size)
    assert left.read(paths[2], unread) is not None
    assert left.read(paths[1], unread) is not None
    with pytest.raises(AssertionError, match="was read"):
        left.read(paths[0], unread)


def test_codes_come_from_the_form_as_from_the_json(tmp_path: Path) -> None:
    graph = make_graph()
    for kind, code in (("mlp reconstruction error", 5), ("per layer transcoder", 77), ("", 3), ("logit", 8)):
        graph["nodes"].append(
            {**graph["nodes"][0], "node_id": f"x{code}", "feature_type": kind, "feature": code}
        )
    graph["nodes"].append({**graph["nodes"][0], "node_id": "none", "feature": None})
    content = json.dumps(graph).encode()
    form = compact.compact_graph(body_of(content))
    assert form is not None
    assert compact.features_in(form) == feature_codes(content) == {43, 77, 3}


def test_the_folder_is_the_cache_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CIRCUIT_TRACER_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert compact_folder() == Path("/cache/circuit_tracer/compact")
    monkeypatch.setenv("CIRCUIT_TRACER_CACHE_DIR", "/elsewhere")
    assert compact_folder() == Path("/elsewhere/compact")
