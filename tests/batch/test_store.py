"""The folder of a batch."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from circuit_tracer_cli.backends.model_source import ModelSource
from circuit_tracer_cli.batch.content import content_ids, folder_id
from circuit_tracer_cli.batch.plan import BatchSettings, PlannedBatch
from circuit_tracer_cli.batch.store import (
    ATTEMPTS,
    FRESH,
    Failure,
    Item,
    Store,
    read_items,
    read_settings,
    result_key,
    write_batch,
)
from circuit_tracer_cli.errors import BadGraphFile, MissingFile, UnsuitableValue
from circuit_tracer_cli.many.prompts import groups_of
from circuit_tracer_cli.request import TraceRequest

if TYPE_CHECKING:
    from circuit_tracer_cli.prepare import Setup


def item(key: str, **record: object) -> Item:
    return Item(key, {"prompt": f"prompt {key}", "slug": key, **record})


def failure(key: str, *, final: bool = False) -> Failure:
    return Failure(key, f"prompt {key}", "it broke", "mend it", "RuntimeError", final)


def finish(store: Store, key: str) -> None:
    path = store.result(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_a_key_depends_on_every_fact_and_on_no_order() -> None:
    facts = {"tokens": [1, 2], "dtype": "float32"}
    assert result_key(facts) == result_key(dict(reversed(facts.items())))
    assert result_key(facts) != result_key({**facts, "tokens": [2, 1]})


def test_a_batch_can_grow_but_not_change(tmp_path: Path) -> None:
    settings = {"dtype": "float32"}
    write_batch(tmp_path, settings, [item("a")])
    assert [one.key for one in write_batch(tmp_path, settings, [item("a"), item("b")])] == ["a", "b"]
    assert read_items(tmp_path) == [item("a"), item("b")]
    assert read_settings(tmp_path) == settings
    with pytest.raises(UnsuitableValue, match="dtype 'float32', not 'bfloat16'"):
        write_batch(tmp_path, {"dtype": "bfloat16"}, [])


def test_status_counts_prompts(tmp_path: Path) -> None:
    store, items = Store(tmp_path), [item(key) for key in "abcde"]
    finish(store, "a")
    store.record_failure(failure("b"))
    with store.working_on("c"):
        status = store.status([*items, item("a")])
    assert status.retried == 1
    assert (status.total, status.done, status.failed, status.running, status.waiting) == (6, 2, 1, 1, 2)
    assert status.to_dict()["failures"] == [{"prompt": "prompt b", "error": "it broke", "hint": "mend it"}]
    assert store.status(items).running == 0


def test_a_sign_of_life_of_a_killed_worker_goes_stale(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = tmp_path / "running" / "a"
    path.parent.mkdir()
    path.touch()
    old = time.time() - FRESH - 1
    os.utime(path, (old, old))
    assert store.status([item("a")]).waiting == 1
    store.sweep()
    assert not path.exists()


def test_failures_that_may_pass_are_tried_a_few_times(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for _ in range(ATTEMPTS):
        assert not store.is_settled("a")
        store.record_failure(failure("a"))
    assert store.is_settled("a")
    store.record_failure(failure("b", final=True))
    assert store.is_settled("b")
    store.forget_failure("b")
    assert not store.is_settled("b")


def test_a_damaged_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="does not contain a batch"):
        read_settings(tmp_path)
    (tmp_path / "batch.jsonl").write_text('{"prompt": "a"}\n')
    with pytest.raises(BadGraphFile, match="line 1"):
        read_items(tmp_path)


def test_groups_come_from_a_column(tmp_path: Path) -> None:
    items = [item("a", group="x"), item("b", group="y"), item("c")]
    write_batch(tmp_path, {}, items)
    assert groups_of(tmp_path, "group") == {"a": "x", "b": "y"}
    with pytest.raises(UnsuitableValue, match="gives 3 groups"):
        groups_of(tmp_path, "slug")
    with pytest.raises(MissingFile, match=r"no batch\.jsonl"):
        groups_of(tmp_path / "..", "group")


def test_content_is_known_by_its_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.bin").write_bytes(bytes(range(256)) * 40_000)
    assert folder_id(tmp_path / "one") == folder_id(tmp_path / "two")
    with (tmp_path / "two" / "a.bin").open("r+b") as stream:
        stream.write(b"x")
    assert folder_id(tmp_path / "one") != folder_id(tmp_path / "two")


def test_content_is_looked_up_offline_where_the_batch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from circuit_tracer_cli.batch import content
    from circuit_tracer_cli.hub import is_offline

    asked: list[bool] = []
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(content, "commit_of", lambda name, revision: str(asked.append(is_offline())))
    described = SimpleNamespace(commit="abc", format="standard", config=SimpleNamespace(scan="set"))
    setup = cast("Setup", SimpleNamespace(described=described, model=ModelSource("user/model")))
    for offline in (True, False):
        content_ids(setup, offline=offline)
    assert asked == [True, False]


def test_the_list_is_gone_through_once_for_all_slugs(tmp_path: Path) -> None:
    passes = []

    class Counted(list[Item]):
        def __iter__(self) -> Iterator[Item]:
            passes.append(1)
            return super().__iter__()

    items = Counted(item(key, slug=slug) for key, slug in (("a", "s1"), ("b", "s2"), ("a", "s3")))
    batch = PlannedBatch(Store(tmp_path), BatchSettings(TraceRequest(), "raw", None, None, 1, {}), items)
    assert batch.missing_slugs("a") == ["s1", "s3"]
    assert batch.missing_slugs("b") == ["s2"]
    assert len(passes) == 1
