"""The routes on which a page runs edits on the server's model, if it has one: see docs/interventions.md for the JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from circuit_tracer_cli.server.replies import json_error
from circuit_tracer_cli.server.runs import QueueFull, Run, RunQueue

NO_STORE = {"Cache-Control": "no-store"}


class RunRoutes:
    """The endpoints.

    Args:
        runs: The queue, or None for a server without a model.
        read_json: Reads a request's body.
    """

    def __init__(self, runs: RunQueue | None, read_json: Callable[[Request], Awaitable[object]]) -> None:
        self._runs, self._read_json = runs, read_json

    def table(self) -> list[Route]:
        """All routes."""
        return [
            Route("/api/model", self.model),
            Route("/api/runs", self.start, methods=["POST"]),
            Route("/api/runs/{run_id}", self.run),
            Route("/api/runs/{run_id}", self.cancel, methods=["DELETE"]),
        ]

    def model(self, _request: Request) -> Response:
        """GET /api/model: what edits can be run on; `{"state": "none"}` for a server without a model."""
        described = {"state": "none"} if self._runs is None else self._runs.describe()
        return JSONResponse(described, headers=NO_STORE)

    async def start(self, request: Request) -> Response:
        """POST /api/runs: put a run into the queue. 202 with its id; 409 without a model, 503 if too many wait."""
        if self._runs is None:
            return _without_model()
        body = await self._read_json(request)
        return await queued(self._runs, partial(self._runs.submit, body))

    def run(self, request: Request) -> Response:
        """GET /api/runs/{id}: how far it is, and its result when it's done."""
        if self._runs is None:
            return _without_model()
        found = self._runs.find(request.path_params["run_id"])
        return JSONResponse(self._runs.status(found), headers=NO_STORE)

    def cancel(self, request: Request) -> Response:
        """DELETE /api/runs/{id}: end it. Ending one that has ended changes nothing."""
        if self._runs is None:
            return _without_model()
        found = self._runs.cancel(request.path_params["run_id"])
        return JSONResponse(self._runs.status(found), headers=NO_STORE)


async def queued(runs: RunQueue, start: Callable[[], Run]) -> Response:
    """The reply to a request that puts a run into the queue, once it's there."""
    try:
        run = await run_in_threadpool(start)
    except QueueFull as error:
        return json_error(503, error.message, error.hint, {"Retry-After": "5"})
    headers = {**NO_STORE, "Location": f"api/runs/{run.id}"}
    return JSONResponse(runs.status(run), 202, headers)


def _without_model() -> Response:
    return json_error(
        409,
        "this server has no model to run edits on",
        "start it with circuit-tracer serve DIR --transcoder-set SET",
    )
