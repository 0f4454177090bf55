"""Who may talk to the server: Host against DNS rebinding, Origin against writes from other pages, a CSP.

Knows nothing of graphs. Everything is decided on the request's headers, before a route sees it.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.server.replies import json_error
from circuit_tracer_cli.server.token import (
    cookie_header,
    is_any_address,
    is_loopback,
    shown_in_address,
    shown_in_headers,
)

_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_SAFE_METHODS = frozenset({"GET", "HEAD"})
_OPEN_PATHS = frozenset({"/healthz"})


@dataclass(frozen=True, slots=True)
class AccessRules:
    """Which Host and Origin headers are accepted.

    Args:
        host: The address that the server is bound to.
        allow_origins: Origins, as `https://hub.example.org`, of proxies that may show the page and save.
        token: What clients on other machines must show, if it is set.
        frame_origins: Sources, in a policy's words, of pages that may show the page in a frame and do nothing else.
    """

    host: str = "127.0.0.1"
    allow_origins: frozenset[str] = field(default_factory=frozenset)
    token: str | None = None
    frame_origins: tuple[str, ...] = ()

    def host_allowed(self, header: str | None) -> bool:
        """Whether a request for this Host is meant for us; a name that foreign DNS could point here isn't."""
        name = _host_name(header)
        if name is None:
            return False
        if name in _LOOPBACK_NAMES or name == self.host.lower() or name in self._proxy_names():
            return True
        return is_any_address(self.host) and (_is_address(name) or name in _own_names())

    def write_allowed(self, headers: Headers) -> bool:
        """Whether a request may change something: it is from the page, an allowed origin, or no browser."""
        origin = headers.get("origin")
        if origin is not None:
            return origin in self.allow_origins or self._is_own(origin, headers.get("host"))
        return headers.get("sec-fetch-site", "none") in ("same-origin", "none")

    def _is_own(self, origin: str, host: str | None) -> bool:
        scheme, _, rest = origin.partition("://")
        return scheme in ("http", "https") and host is not None and rest.lower() == host.lower()

    def _proxy_names(self) -> frozenset[str]:
        return frozenset(urlsplit(origin).hostname or "" for origin in self.allow_origins)

    def content_policy(self) -> str:
        """The Content-Security-Policy of every reply: nothing from elsewhere, no inline script or style."""
        frames = " ".join(["'self'", *sorted({*self.allow_origins, *self.frame_origins})])
        return (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
            "font-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
            f"frame-ancestors {frames}"
        )


def check_origins(origins: Iterable[str]) -> frozenset[str]:
    """Origins as browsers send them. Raises InvalidValue for anything else, `*` included."""
    return frozenset(_check_origin(origin) for origin in origins)


def _check_origin(origin: str) -> str:
    parts = urlsplit(origin.strip())
    bare = parts.path in ("", "/") and not parts.query and not parts.fragment
    if parts.scheme not in ("http", "https") or not parts.hostname or not bare:
        raise InvalidValue(
            f"{origin!r} is not an origin", "write it as https://hub.example.org or http://name:8888"
        )
    return f"{parts.scheme}://{parts.netloc.lower()}"


class Gatekeeper:
    """ASGI middleware that applies the access rules and adds the protective headers to every reply."""

    def __init__(self, app: ASGIApp, rules: AccessRules) -> None:
        self._app = app
        self._rules = rules
        self._headers = {
            "Content-Security-Policy": rules.content_policy(),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        token = self._rules.token

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                reply = MutableHeaders(scope=message)
                reply.update(self._headers)
                if token is not None and shown_in_address(token, scope["query_string"]):
                    reply.append("Set-Cookie", cookie_header(token))
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], headers) or self._stranger(scope, headers)
        await (refusal or self._app)(scope, receive, send_protected)

    def _stranger(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        """The answer to another machine that doesn't know the token."""
        token = self._rules.token
        peer = scope.get("client") or ("",)
        if token is None or is_loopback(peer[0]) or scope["path"] in _OPEN_PATHS:
            return None
        if shown_in_headers(token, headers) or shown_in_address(token, scope["query_string"]):
            return None
        return json_error(
            401, "this server wants its token", "open the link with ?token=… that it printed when it started"
        )

    def _refusal(self, method: str, headers: Headers) -> ASGIApp | None:
        if not self._rules.host_allowed(headers.get("host")):
            hint = "open the address that the server printed, or start it with --allow-origin for a proxy"
            return json_error(403, "this server doesn't answer to that host name", hint)
        if method not in _SAFE_METHODS and not self._rules.write_allowed(headers):
            hint = "save from the server's own page, or start the server with --allow-origin"
            return json_error(403, "another page may not change anything here", hint)
        return None


def _host_name(header: str | None) -> str | None:
    if not header or any(character in header for character in "@/\\ ,"):
        return None
    try:
        name = urlsplit(f"//{header}").hostname
    except ValueError:
        return None
    return name.rstrip(".").lower() if name else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _own_names() -> frozenset[str]:
    name = socket.gethostname().lower()
    return frozenset({name, name.partition(".")[0], f"{name.partition('.')[0]}.local"})
