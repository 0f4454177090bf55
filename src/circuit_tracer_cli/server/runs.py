"""Runs of a loaded model: a queue that one thread works off, so that the model never does two things at once.

Knows neither HTTP nor models; what a run does is a function that gets somebody to tell how far it is.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from circuit_tracer_cli.errors import CircuitTracerError, MissingFile
from circuit_tracer_cli.types import Progress

_log = logging.getLogger(__name__)
MOST_WAITING = 32
MOST_KEPT = 64
ENDED = frozenset({"done", "failed", "cancelled"})
Work = Callable[["Run"], dict[str, Any]]


@runtime_checkable
class Runner(Protocol):
    """A model that runs can be done on."""

    def describe(self) -> dict[str, Any]:
        """What it is, and whether it is loaded, as plain values."""

    def prepare(self, progress: Progress) -> None:
        """Loads it, unless it is."""

    def plan(self, body: object) -> Work:
        """What a request's body asks for. Raises UsageError for one that can't be meant, before anything runs."""


class QueueFull(CircuitTracerError):
    """More runs are waiting than anybody will look at."""


class Cancelled(Exception):
    """Raised inside a run when somebody doesn't want it any more."""


class Run:
    """One run and how far it is. Also the progress that its work tells.

    Attributes:
        state: `queued`, `running`, `done`, `failed` or `cancelled`.
        phase_name, done, total: What it does, and how many of how many steps; total None if that isn't known.
        result: What it gave.
        error: What went wrong, and what to do, for a failed run.
    """

    def __init__(self, work: Work | None) -> None:
        self.id = secrets.token_urlsafe(9)
        self.state = "queued"
        self.phase_name, self.done = "", 0
        self.total: int | None = None
        self.notes: list[str] = []
        self.result: dict[str, Any] | None = None
        self.error: dict[str, str | None] | None = None
        self.cancelled = threading.Event()
        self.work = work

    def phase(self, name: str, total: int | None = None) -> None:
        """Part of Progress. Raises Cancelled."""
        self._check()
        self.phase_name, self.done, self.total = name, 0, total

    def advance(self, steps: int = 1) -> None:
        """Part of Progress. Raises Cancelled."""
        self._check()
        self.done += steps

    def note(self, message: str) -> None:
        """Part of Progress."""
        self.notes.append(message)

    def _check(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled


class RunQueue:
    """Runs in the order in which they came, one at a time.

    Args:
        runner: The model. It's loaded in the queue's thread, so that the server answers meanwhile.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._waiting: deque[Run] = deque()
        self._known: OrderedDict[str, Run] = OrderedDict()
        self._change = threading.Condition()
        self._loading = Run(None)
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="circuit-tracer-runs", daemon=True)

    def start(self) -> None:
        """Begins to load the model, and then works off what comes."""
        self._thread.start()

    def close(self) -> None:
        """Cancels everything. A run that is in the middle of a pass ends after it."""
        with self._change:
            self._closed = True
            for run in (self._loading, *self._known.values()):
                run.cancelled.set()
            self._change.notify_all()

    def submit(self, body: object) -> Run:
        """Puts a run of edits at the end of the queue. Raises UsageError for a bad body, QueueFull."""
        return self.add(self.runner.plan(body))

    def add(self, work: Work) -> Run:
        """Puts any work at the end of the queue; the model is loaded when it's called. Raises QueueFull."""
        run = Run(work)
        with self._change:
            if len(self._waiting) >= MOST_WAITING:
                raise QueueFull("too many runs are waiting", "wait for some of them, or cancel them")
            self._known[run.id] = run
            self._waiting.append(run)
            ended = [old.id for old in self._known.values() if old.state in ENDED]
            for old in ended[: max(0, len(self._known) - MOST_KEPT)]:
                del self._known[old]
            self._change.notify_all()
        return run

    def cancel(self, run_id: str) -> Run:
        """Ends a run, at once if it waits and else after the step that it's in. Raises MissingFile for an unknown one."""
        run = self.find(run_id)
        with self._change:
            run.cancelled.set()
            if run in self._waiting:
                self._waiting.remove(run)
                run.state = "cancelled"
        return run

    def find(self, run_id: str) -> Run:
        """A run that is known still. Raises MissingFile."""
        with self._change:
            if run_id not in self._known:
                raise MissingFile(
                    f"there is no run {run_id!r}", "runs are forgotten after a while; start it again"
                )
            return self._known[run_id]

    def status(self, run: Run) -> dict[str, Any]:
        """How far a run is, as plain values."""
        with self._change:
            ahead = self._waiting.index(run) if run in self._waiting else 0
        shown = self._loading if run.state == "queued" and self._loading.state != "done" else run
        return {
            "id": run.id,
            "state": run.state,
            "ahead": ahead,
            "phase": shown.phase_name,
            "done": shown.done,
            "total": shown.total,
            "notes": list(run.notes),
            "result": run.result,
            "error": run.error,
        }

    def describe(self) -> dict[str, Any]:
        """What the model is, and how far its loading is."""
        loading = self._loading
        return {
            **self.runner.describe(),
            "state": {"done": "ready", "failed": "failed"}.get(loading.state, "loading"),
            "phase": loading.phase_name if loading.state == "running" else "",
            "error": loading.error,
        }

    def _work(self) -> None:
        self._loading.work = self._prepare
        self._do(self._loading)
        while True:
            with self._change:
                while not self._waiting and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                run = self._waiting.popleft()
            if self._loading.state == "failed":
                run.state, run.error = "failed", self._loading.error
            else:
                self._do(run)

    def _prepare(self, progress: Progress) -> dict[str, Any]:
        self.runner.prepare(progress)
        return {}

    def _do(self, run: Run) -> None:
        run.state = "running"
        work, run.work = run.work, None
        assert work is not None
        try:
            run.phase("starting")
            run.result = work(run)
            run.state = "done"
        except Cancelled:
            run.state = "cancelled"
        except CircuitTracerError as error:
            run.error = {"error": error.message, "hint": error.hint}
            run.state = "failed"
        except Exception as error:
            # The thread must outlive whatever a model does, such as running out of memory.
            _log.error("a run failed", exc_info=error)
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            run.error = {"error": f"the run failed: {first}", "hint": "the server's log has the details"}
            run.state = "failed"
