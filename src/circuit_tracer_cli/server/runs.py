"""Runs of a loaded model: a queue processed by one thread, so that the model never does two things at once; and its routes.

Independent of models; a run's work is a function that gets the run as its progress.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from circuit_tracer_cli.errors import CircuitTracerError, MissingFile
from circuit_tracer_cli.server.bodies import json_body
from circuit_tracer_cli.server.replies import NO_STORE, json_error
from circuit_tracer_cli.types import Progress

_log = logging.getLogger(__name__)
MOST_WAITING = 32
MOST_KEPT = 64
ENDED = frozenset({"done", "failed", "cancelled"})
THREAD = "circuit-tracer-runs"
_CLOSE_SECONDS = 3.0
Work = Callable[["Run"], dict[str, Any]]
Plan = Callable[[Any, Mapping[str, Any]], Work]
"""Turns a request's body and path parameters into work. Raises UsageError for an invalid request, before anything runs."""


@runtime_checkable
class Runner(Protocol):
    """A model for runs."""

    def describe(self) -> dict[str, Any]:
        """Return the model's facts and whether it is loaded, as plain values."""

    def prepare(self, progress: Progress) -> None:
        """Load the model, unless it is loaded."""


class QueueFull(CircuitTracerError):
    """Raised if too many runs are waiting."""


class Cancelled(Exception):
    """Raised inside a run that was cancelled."""


class Run:
    """One run and its progress. It is the `Progress` of its work.

    Attributes:
        state: `queued`, `running`, `done`, `failed` or `cancelled`.
        phase_name, done, total: Current phase, finished steps and all steps; total is None if unknown.
        result: The result of the work.
        error: Error and hint of a failed run.
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
    """Executes runs in order of arrival, one at a time.

    Args:
        runner: The model. It's loaded in the queue's thread, so that the server stays responsive.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._waiting: deque[Run] = deque()
        self._known: OrderedDict[str, Run] = OrderedDict()
        self._change = threading.Condition()
        self._loading = Run(None)
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=THREAD, daemon=True)
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the thread that loads the model and then executes runs."""
        self._thread.start()

    def close(self) -> None:
        """Cancel everything and wait a little for the thread to end; a run in the middle of a pass ends after that."""
        with self._change:
            self._closed = True
            for run in (self._loading, *self._known.values()):
                run.cancelled.set()
            self._change.notify_all()
        limit = time.monotonic() + _CLOSE_SECONDS
        while self._thread.is_alive() and not self._ended.is_set() and time.monotonic() < limit:
            time.sleep(0.01)

    def add(self, work: Work) -> Run:
        """Add work to the end of the queue; the model is loaded when the work is called. Raises QueueFull."""
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
        """End a run, at once if it waits, else after its current step. Raises MissingFile for an unknown one."""
        run = self.find(run_id)
        with self._change:
            run.cancelled.set()
            if run in self._waiting:
                self._waiting.remove(run)
                run.state = "cancelled"
        return run

    def find(self, run_id: str) -> Run:
        """Return a run that is still remembered. Raises MissingFile."""
        with self._change:
            if run_id not in self._known:
                raise MissingFile(
                    f"there is no run {run_id[:80]!r}", "runs are forgotten after a while; start it again"
                )
            return self._known[run_id]

    def status(self, run: Run) -> dict[str, Any]:
        """Return the progress of a run, as plain values."""
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
        """Return the model's facts and its loading progress."""
        loading = self._loading
        return {
            **self.runner.describe(),
            "state": {"done": "ready", "failed": "failed"}.get(loading.state, "loading"),
            "phase": loading.phase_name if loading.state == "running" else "",
            "error": loading.error,
        }

    def _work(self) -> None:
        try:
            self._work_off()
        finally:
            self._ended.set()

    def _work_off(self) -> None:
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
            # The thread must survive anything that a model does, such as running out of memory.
            _log.error("a run failed", exc_info=error)
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            run.error = {"error": f"the run failed: {first}", "hint": "the server's log has the details"}
            run.state = "failed"


class RunRoutes:
    """The endpoints: the model, its tasks, and their runs.

    Args:
        runs: The queue, or None for a server without a model.
        tasks: The task for each address of a POST request; None without a model.
        max_body: The largest request body in bytes.
    """

    def __init__(self, runs: RunQueue | None, tasks: Mapping[str, Plan | None], max_body: int) -> None:
        self._runs, self._tasks, self._max_body = runs, tasks, max_body

    def table(self) -> list[Route]:
        """All routes."""
        return [
            Route("/api/model", self.model),
            *(Route(path, self._starter(plan), methods=["POST"]) for path, plan in self._tasks.items()),
            Route("/api/runs/{run_id}", self.run, methods=["GET"]),
            Route("/api/runs/{run_id}", self.cancel, methods=["DELETE"]),
        ]

    async def model(self, _request: Request) -> Response:
        """GET /api/model: the model's facts; `{"state": "none"}` for a server without one."""
        described = {"state": "none"} if self._runs is None else self._runs.describe()
        return JSONResponse(described, headers=NO_STORE)

    def _starter(self, plan: Plan | None) -> Callable[[Request], Any]:
        async def start(request: Request) -> Response:
            """POST to a task's address: 202 with the run; 409 without a model, 503 if too many wait."""
            if self._runs is None or plan is None:
                return without_model()
            body = await json_body(request, self._max_body)
            try:
                run = self._runs.add(await run_in_threadpool(plan, body, request.path_params))
            except QueueFull as error:
                return json_error(503, error.message, error.hint, {"Retry-After": "5"})
            headers = {**NO_STORE, "Location": f"api/runs/{run.id}"}
            return JSONResponse(self._runs.status(run), 202, headers)

        return start

    async def run(self, request: Request) -> Response:
        """GET /api/runs/{id}: its progress, and its result when done."""
        if self._runs is None:
            return without_model()
        found = self._runs.find(request.path_params["run_id"])
        return JSONResponse(self._runs.status(found), headers=NO_STORE)

    async def cancel(self, request: Request) -> Response:
        """DELETE /api/runs/{id}: ends it. Does nothing if it has already ended."""
        if self._runs is None:
            return without_model()
        found = self._runs.cancel(request.path_params["run_id"])
        return JSONResponse(self._runs.status(found), headers=NO_STORE)


def without_model() -> Response:
    """Return the reply to a request that needs a model."""
    hint = "start the server with circuit-tracer serve DIR --transcoder-set SET"
    return json_error(409, "no model is loaded", hint)
