"""The routes on which a page has new prompts traced on the server's model: see docs/server.md for the JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from circuit_tracer_cli.server.replies import json_error
from circuit_tracer_cli.server.run_routes import NO_STORE, queued
from circuit_tracer_cli.server.runs import RunQueue, Work
from circuit_tracer_cli.server.tracing import Tracing


class TraceRoutes:
    """The endpoints. How far a trace is, and its end, are the business of `RunRoutes`.

    Args:
        runs: The queue.
        tracing: What makes graphs; None for a server without a model.
        read_json: Reads a request's body.
    """

    def __init__(
        self,
        runs: RunQueue | None,
        tracing: Tracing | None,
        read_json: Callable[[Request], Awaitable[object]],
    ) -> None:
        self._runs, self._tracing, self._read_json = runs, tracing, read_json

    def table(self) -> list[Route]:
        """All routes."""
        return [
            Route("/api/traces", self.describe, methods=["GET"]),
            Route("/api/traces", self.trace, methods=["POST"]),
            Route("/api/traces/draft", self.draft, methods=["POST"]),
            Route("/api/predictions", self.predict, methods=["POST"]),
        ]

    def describe(self, _request: Request) -> Response:
        """GET /api/traces: whether new prompts can be traced, and the settings that they have by default."""
        described = {} if self._tracing is None else self._tracing.describe()
        return JSONResponse({"possible": self._tracing is not None, **described}, headers=NO_STORE)

    async def draft(self, request: Request) -> Response:
        """POST /api/traces/draft: a prompt's tokens, its graph's name and command, and what is wrong with the request."""
        if self._tracing is None:
            return _without_model()
        found = await run_in_threadpool(self._tracing.draft, await self._read_json(request))
        return JSONResponse(found, headers=NO_STORE)

    async def trace(self, request: Request) -> Response:
        """POST /api/traces: put a trace into the queue. 202 with its id; 409 without a model, 503 if too many wait."""
        return await self._queued(request, None if self._tracing is None else self._tracing.trace)

    async def predict(self, request: Request) -> Response:
        """POST /api/predictions: the same for the likeliest next tokens of a prompt."""
        return await self._queued(request, None if self._tracing is None else self._tracing.predictions)

    async def _queued(self, request: Request, plan: Callable[[object], Work] | None) -> Response:
        runs = self._runs
        if runs is None or plan is None:
            return _without_model()
        body = await self._read_json(request)
        return await queued(runs, lambda: runs.add(plan(body)))


def _without_model() -> Response:
    return json_error(
        409,
        "this server has no model to trace prompts on",
        "start it with circuit-tracer serve DIR --transcoder-set SET",
    )
