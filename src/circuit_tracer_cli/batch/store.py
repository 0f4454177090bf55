"""The folder of a batch: what is to be done, what is done, what failed. Safe for any number of writers and for being killed.

batch.json          settings, fixed when the batch is made
batch.jsonl         one line per prompt
objects/ab/KEY…     the graphs, each under a hash of everything that changes its numbers; existing means done
graphs/             graph files of the viewer, by slug
tables/             Parquet tables
errors/KEY.json     why a prompt failed
running/KEY         touched by whoever works on it, for the display alone
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from circuit_tracer_cli.errors import (
    BadGraphFile,
    CircuitTracerError,
    MissingFile,
    OutputError,
    UnsuitableValue,
)
from circuit_tracer_cli.files.atomic import output_error, write_bytes
from circuit_tracer_cli.files.inputs import read_file
from circuit_tracer_cli.files.locks import locked_file
from circuit_tracer_cli.many.prompts import GRAPH, LIST_NAME, SETTINGS_NAME, read_lines

Keep = Literal["raw", "pruned", "tables"]
KEEPS: tuple[Keep, ...] = ("raw", "pruned", "tables")

ATTEMPTS = 3
"""Times that a prompt is tried before a failure that may pass counts as final."""
ANOTHER_FOLDER = "make the batch again in another folder"
FRESH = 60.0
"""Seconds after its last sign of life for which a prompt counts as being worked on."""
WHERE = (
    "device",
    "device_map",
    "offload",
    "lazy_encoder",
    "lazy_decoder",
    "offline",
    "transcoder_set",
    "model",
    "version",
)
"""Settings that say where and how, not what: they may change while a batch is worked on (model and set by content only)."""


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt of a batch.

    Attributes:
        key: Name of its result: a hash of everything that its numbers depend on.
        record: Its line: prompt, slug, targets, group, the user's columns.
    """

    key: str
    record: Mapping[str, Any]

    @property
    def slug(self) -> str:
        """Name of its graph in the viewer."""
        return str(self.record["slug"])


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a prompt has no result.

    Attributes:
        key: Of the item.
        prompt: Its text.
        error, hint: As the command line would print them.
        kind: Class of the error.
        final: True if trying again can't help.
        attempts: How often it was tried.
        traceback: Where a fault of the program was raised; empty for an error that the message explains.
    """

    key: str
    prompt: str
    error: str
    hint: str | None
    kind: str
    final: bool
    attempts: int = 1
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """How far a batch is, counted in prompts.

    Attributes:
        total: All of them.
        done, failed, running, waiting: Each prompt is one of these.
        retried: Those of the failed that a run tries again before it gives them up.
        failures: Why prompts failed.
    """

    total: int
    done: int
    failed: int
    running: int
    waiting: int
    retried: int
    failures: tuple[Failure, ...]

    def to_dict(self) -> dict[str, Any]:
        """As `batch --status --json` prints it."""
        return {
            "total": self.total,
            "done": self.done,
            "failed": self.failed,
            "running": self.running,
            "waiting": self.waiting,
            "retried": self.retried,
            "failures": [{"prompt": f.prompt, "error": f.error, "hint": f.hint} for f in self.failures],
        }


def result_key(facts: Mapping[str, Any]) -> str:
    """The name of a result: sha256 of the facts as canonical JSON, the first 40 digits."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:40]


class Store:
    """The folder of one batch."""

    def __init__(self, root: Path, keep: Keep = "raw") -> None:
        self.root, self.keep = root, keep

    @property
    def graphs(self) -> Path:
        """Folder of the viewer's files."""
        return self.root / "graphs"

    def list_graphs(self) -> None:
        """Bring the viewer's list of its folder up to date. Raises OutputError."""
        from circuit_tracer_cli.export.graph_list import refresh_graph_list

        if self.graphs.is_dir():
            refresh_graph_list(self.graphs)

    def result(self, key: str) -> Path:
        """Where the result of a key is or will be."""
        if self.keep == "tables":
            return self.root / "tables" / "graphs" / f"{key}.parquet"
        return self.root / "objects" / key[:2] / f"{key}.safetensors"

    def is_done(self, key: str) -> bool:
        """True if the result is there; a result appears as a whole or not at all."""
        return self.result(key).exists()

    def _error_path(self, key: str) -> Path:
        return self.root / "errors" / f"{key}.json"

    def record_failure(self, failure: Failure) -> None:
        """Keep why a prompt failed, counting how often. Raises OutputError."""
        before = self.failure(failure.key)
        record = {
            "key": failure.key,
            "prompt": failure.prompt,
            "error": failure.error,
            "hint": failure.hint,
            "kind": failure.kind,
            "final": failure.final,
            "traceback": failure.traceback,
            "attempts": 1 if before is None else before.attempts + 1,
        }
        path = self._error_path(failure.key)
        make_folder(path.parent)
        write_bytes(
            path, json.dumps(record, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")
        )

    def failure(self, key: str) -> Failure | None:
        """Why a prompt failed, if it did. A record that can't be read counts as none."""
        try:
            failure = Failure(**json.loads(read_file(self._error_path(key))))
        except (CircuitTracerError, ValueError, TypeError, RecursionError):
            return None
        return failure if isinstance(failure.attempts, int) and isinstance(failure.error, str) else None

    def forget_failure(self, key: str) -> None:
        """Remove the record of a failure."""
        self._error_path(key).unlink(missing_ok=True)

    def is_settled(self, key: str) -> bool:
        """True if nothing is left to do: done, or failed for good."""
        if self.is_done(key):
            return True
        failure = self.failure(key)
        return failure is not None and _given_up(failure)

    def attempts(self, key: str) -> int:
        """How often a prompt has failed."""
        failure = self.failure(key)
        return 0 if failure is None else failure.attempts

    @contextlib.contextmanager
    def working_on(self, key: str) -> Any:
        """Show that a prompt is being worked on; yields a function to call as a sign of life."""
        path = self.root / "running" / key
        last = 0.0

        def alive() -> None:
            nonlocal last
            now = time.monotonic()
            if now - last > 1:
                last = now
                with contextlib.suppress(OSError):
                    path.touch()

        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        alive()
        try:
            yield alive
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def is_running(self, key: str) -> bool:
        """True if somebody has shown a sign of life on this prompt lately."""
        with contextlib.suppress(OSError):
            return time.time() - (self.root / "running" / key).stat().st_mtime < FRESH
        return False

    def status(self, items: Sequence[Item]) -> Status:
        """How far the batch is."""
        done = failed = running = retried = 0
        failures = []
        for item in items:
            if self.is_done(item.key):
                done += 1
                continue
            if self.is_running(item.key):
                running += 1
                continue
            failure = self.failure(item.key)
            if failure is not None:
                failed += 1
                retried += not _given_up(failure)
                failures.append(failure)
        waiting = len(items) - done - failed - running
        return Status(len(items), done, failed, running, waiting, retried, tuple(failures))

    def sweep(self) -> None:
        """Remove signs of life whose process is long gone."""
        with contextlib.suppress(OSError):
            for path in (self.root / "running").iterdir():
                if time.time() - path.stat().st_mtime > FRESH:
                    path.unlink(missing_ok=True)


def _given_up(failure: Failure) -> bool:
    return failure.final or failure.attempts >= ATTEMPTS


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def write_batch(root: Path, settings: Mapping[str, Any], items: Iterable[Item]) -> list[Item]:
    """Record the settings of a batch, or check that they agree with those recorded, and add its prompts to the list.

    A prompt that is listed already isn't listed again; a new one whose slug is taken gets a slug with a number.

    Returns:
        All items of the batch, those from before first.

    Raises:
        UnsuitableValue: The folder holds a batch with other settings.
        OutputError: It can't be written to.
    """
    make_folder(root)
    with locked_file(root / ".batch.lock"):
        if (root / SETTINGS_NAME).exists():
            before = read_settings(root)
            check_same_settings(root, before, settings)
            settings = {**before, **{name: settings[name] for name in WHERE if name in settings}}
            if settings != before:
                _write_settings(root, settings)
        else:
            _write_settings(root, settings)
        known = read_items(root)
        fresh = _not_listed(known, items)
        if fresh:
            text = "".join(_line(item) + "\n" for item in [*known, *fresh])
            write_bytes(root / LIST_NAME, text.encode("utf-8", "backslashreplace"))
        return [*known, *fresh]


def _write_settings(root: Path, settings: Mapping[str, Any]) -> None:
    content = json.dumps(settings, indent=1, ensure_ascii=False)
    write_bytes(root / SETTINGS_NAME, content.encode("utf-8", "backslashreplace"))


def _not_listed(known: Sequence[Item], items: Iterable[Item]) -> list[Item]:
    """Return the items that the list lacks, with slugs that no other item has."""
    listed = Counter(_identity(item) for item in known)
    taken = {item.slug for item in known}
    fresh = []
    for item in items:
        if listed[_identity(item)]:
            listed[_identity(item)] -= 1
            continue
        slug, number = item.slug, 2
        while slug in taken:
            slug, number = f"{item.slug}-{number}", number + 1
        taken.add(slug)
        fresh.append(Item(item.key, {**item.record, "slug": slug}))
    return fresh


def _identity(item: Item) -> str:
    """What makes two lines the same prompt: everything but the slug, which may have got a number."""
    rest = {name: value for name, value in item.record.items() if name != "slug"}
    return json.dumps([item.key, rest], sort_keys=True)


def _line(item: Item) -> str:
    return json.dumps({GRAPH: item.key, **item.record}, ensure_ascii=False)


def check_same_settings(root: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise UnsuitableValue naming the first setting in which two batches differ."""
    for name in sorted({*old, *new} - set(WHERE)):
        if old.get(name) != new.get(name):
            raise UnsuitableValue(
                f"{root} holds a batch made with {name} {old.get(name)!r}, not {new.get(name)!r}",
                "name another folder with -o, or use the same settings",
            )


def read_settings(root: Path) -> dict[str, Any]:
    """The settings of a batch. Raises MissingFile for a folder without one, BadGraphFile for a damaged one."""
    path = root / SETTINGS_NAME
    if not path.exists():
        raise MissingFile(f"{root} holds no batch", "make one with circuit-tracer batch PROMPTS -o DIR")
    try:
        values = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        raise BadGraphFile(f"{path} isn't valid JSON", ANOTHER_FOLDER) from error
    if not isinstance(values, dict):
        raise BadGraphFile(f"{path} isn't a batch's settings", ANOTHER_FOLDER)
    return values


def read_items(root: Path) -> list[Item]:
    """Return the prompts of a batch; none for a folder that no batch made. Raises BadGraphFile."""
    return [Item(key, record) for key, record in read_lines(root)]


def check_writable(root: Path) -> None:
    """Raise OutputError if nothing can be written to the folder."""
    make_folder(root)
    probe = root / ".writable"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{root} can't be written to: {error.strerror}", "name another folder with -o"
        ) from error
