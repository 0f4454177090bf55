"""The folder of a batch: what is waiting, done and failed. Safe with any number of writers, and when killed.

batch.json          settings, fixed when the batch is made
batch.jsonl         one line per prompt
objects/ab/KEY…     the graphs, each named by a hash of everything that changes its numbers; if it exists, it is done
graphs/             graph files of the viewer, by slug
tables/             Parquet tables
errors/KEY.json     why a prompt failed
running/KEY         touched by whatever works on it, for display only
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
"""Number of attempts after which a temporary failure counts as final."""
ANOTHER_FOLDER = "make the batch again in another folder"
FRESH = 60.0
"""Seconds after its last sign of life for which a prompt counts as running."""
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
"""Settings on where and how, not what: they can change while a batch runs (model and set only if the content is the same)."""


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt of a batch.

    Attributes:
        key: Name of its result: a hash of everything that its numbers depend on.
        record: Its line: prompt, slug, targets, group, and further columns.
    """

    key: str
    record: Mapping[str, Any]

    @property
    def slug(self) -> str:
        """Name of its graph in the viewer."""
        return str(self.record["slug"])


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of a prompt.

    Attributes:
        key: The item's key.
        prompt: The prompt's text.
        error, hint: As printed by the command line.
        kind: Class of the error.
        final: True if trying again can't help.
        attempts: Number of attempts.
        traceback: The traceback of a fault in the program; empty if the message explains the error.
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
    """The progress of a batch, in numbers of prompts.

    Attributes:
        total: All prompts.
        done, failed, running, waiting: Each prompt is one of these.
        retried: Failed prompts that a run will try again.
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
        """Return the record that `batch --status --json` prints."""
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
    """The name of a result: the first 40 digits of the SHA-256 of the facts as canonical JSON."""
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
        """Update the viewer's list of its folder. Raises OutputError."""
        from circuit_tracer_cli.export.graph_list import refresh_graph_list

        if self.graphs.is_dir():
            refresh_graph_list(self.graphs)

    def result(self, key: str) -> Path:
        """The path of a key's result."""
        if self.keep == "tables":
            return self.root / "tables" / "graphs" / f"{key}.parquet"
        return self.root / "objects" / key[:2] / f"{key}.safetensors"

    def is_done(self, key: str) -> bool:
        """True if the result exists; results appear atomically."""
        return self.result(key).exists()

    def _error_path(self, key: str) -> Path:
        return self.root / "errors" / f"{key}.json"

    def record_failure(self, failure: Failure) -> None:
        """Record why a prompt failed, and how often. Raises OutputError."""
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
        """The failure of a prompt, if any. An unreadable record counts as none."""
        try:
            failure = Failure(**json.loads(read_file(self._error_path(key))))
        except (CircuitTracerError, ValueError, TypeError, RecursionError):
            return None
        return failure if isinstance(failure.attempts, int) and isinstance(failure.error, str) else None

    def forget_failure(self, key: str) -> None:
        """Remove the record of a failure."""
        self._error_path(key).unlink(missing_ok=True)

    def is_settled(self, key: str) -> bool:
        """True if an item is finished: done, or failed for good."""
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
        """Mark a prompt as running; yield a function to call as a sign of life."""
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
        """True if there was a recent sign of life on this prompt."""
        with contextlib.suppress(OSError):
            return time.time() - (self.root / "running" / key).stat().st_mtime < FRESH
        return False

    def status(self, items: Sequence[Item]) -> Status:
        """The progress of the batch."""
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
        """Remove signs of life of processes that are long gone."""
        with contextlib.suppress(OSError):
            for path in (self.root / "running").iterdir():
                if time.time() - path.stat().st_mtime > FRESH:
                    path.unlink(missing_ok=True)


def _given_up(failure: Failure) -> bool:
    return failure.final or failure.attempts >= ATTEMPTS


def make_folder(path: Path) -> None:
    """Make a folder and its parents. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def write_batch(root: Path, settings: Mapping[str, Any], items: Iterable[Item]) -> list[Item]:
    """Record the settings of a batch, or check them against the recorded ones, and add its prompts to the list.

    A prompt that is already listed isn't listed again; a new one whose slug is taken gets a slug with a number.

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
    """Return the items that the list lacks, with unique slugs."""
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
    """The identity of a line's prompt: everything but the slug, which may have been given a number."""
    rest = {name: value for name, value in item.record.items() if name != "slug"}
    return json.dumps([item.key, rest], sort_keys=True)


def _line(item: Item) -> str:
    return json.dumps({GRAPH: item.key, **item.record}, ensure_ascii=False)


def check_same_settings(root: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise UnsuitableValue naming the first setting that differs between two batches."""
    for name in sorted({*old, *new} - set(WHERE)):
        if old.get(name) != new.get(name):
            raise UnsuitableValue(
                f"{root} contains a batch made with {name} {old.get(name)!r}, not {new.get(name)!r}",
                "use another folder with -o, or the same settings",
            )


def read_settings(root: Path) -> dict[str, Any]:
    """The settings of a batch. Raises MissingFile for a folder without one, BadGraphFile for a damaged one."""
    path = root / SETTINGS_NAME
    if not path.exists():
        raise MissingFile(
            f"{root} does not contain a batch", "make one with circuit-tracer batch PROMPTS -o DIR"
        )
    try:
        values = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        raise BadGraphFile(f"{path} isn't valid JSON", ANOTHER_FOLDER) from error
    if not isinstance(values, dict):
        raise BadGraphFile(f"{path} isn't a batch's settings", ANOTHER_FOLDER)
    return values


def read_items(root: Path) -> list[Item]:
    """Return the prompts of a batch; empty for a folder that isn't a batch's. Raises BadGraphFile."""
    return [Item(key, record) for key, record in read_lines(root)]


def check_writable(root: Path) -> None:
    """Raise OutputError if nothing can be written to the folder."""
    make_folder(root)
    probe = root / ".writable"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"can't write to {root}: {error.strerror}", "use another folder with -o") from error
