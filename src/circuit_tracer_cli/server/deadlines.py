"""HTTP connections with deadlines: a client that sends or reads too slowly is cut off instead of blocking a connection.

uvicorn only limits how long a connection can be idle between two requests. It also continues the requests of clients
that have disconnected: each waits for a thread, makes its reply and keeps it in memory for nobody.
"""

from __future__ import annotations

import asyncio
import json

import anyio
import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
"""Seconds for the head of a request, counted from the connection or the end of the previous reply."""
BODY_SECONDS = 15.0
"""Seconds for a body, plus one second for every `BODY_RATE` bytes of it."""
BODY_RATE = 16 << 10
READ_SECONDS = 60.0
"""Seconds that a client may pause reading a reply that doesn't fit into the system's buffers."""
LOOK_SECONDS = 1.0


class DeadlineProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with deadlines for sending a request's head and body and for reading a reply."""

    _phase = ""
    _since = 0.0
    _received = 0
    _unsent = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the received bytes and pass them on."""
        self._received += len(data)
        super().data_received(data)

    def _waits_for(self) -> str:
        """What the client has to do next: `head`, `body`, `read`, or an empty string while the server works."""
        if self.flow is not None and self.flow.write_paused:
            return "read"
        if self.conn.their_state is h11.SEND_BODY:
            return "body"
        is_answered = self.cycle is None or self.cycle.response_complete
        return "head" if self.conn.their_state is h11.IDLE and is_answered else ""

    def _look(self) -> None:
        now, phase = self.loop.time(), self._waits_for()
        unsent = self.transport.get_write_buffer_size()
        if phase != self._phase or (phase == "read" and unsent != self._unsent):
            self._phase, self._since, self._received = phase, now, 0
        self._unsent = unsent
        limits = {
            "head": HEADER_SECONDS,
            "body": BODY_SECONDS + self._received / BODY_RATE,
            "read": READ_SECONDS,
        }
        if phase and now - self._since > limits[phase]:
            self._cut_off(phase)
        else:
            self._timer = self.loop.call_later(LOOK_SECONDS, self._look)

    def _cut_off(self, phase: str) -> None:
        """Close the connection, with a 408 first if a request was begun and not answered yet."""
        if phase == "read":
            self.transport.abort()
            return
        if self._received > 0 if phase == "head" else not self.cycle.response_started:
            body = json.dumps({"error": "the request took too long", "hint": "send it again"}).encode()
            head = (
                "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


class UntilGone:
    """ASGI middleware that cancels a GET request when its client disconnects."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return

        async def watch(reply: anyio.CancelScope) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            reply.cancel()

        with anyio.CancelScope() as reply:
            watcher = asyncio.ensure_future(watch(reply))
            try:
                await self._app(scope, receive, send)
            finally:
                watcher.cancel()
