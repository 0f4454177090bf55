"""Access rules: Host against DNS rebinding, Origin against writes from other pages, a token, a CSP, and a proxy's path.

Independent of graphs. Everything is decided from the request's headers, before a route sees it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, quote, unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.server.replies import json_error

TOKEN_VARIABLE = "CIRCUIT_TRACER_TOKEN"
"""Environment variable with a token to use instead of a new one."""
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})
_SAFE_METHODS = frozenset({"GET", "HEAD"})
_OPEN_PATHS = frozenset({"/healthz"})
_OWN_ROUTES = frozenset({"api", "data", "features", "graph_data", "save_graph", "src", "healthz"})
_PROXY_PATH = re.compile(r"(/[A-Za-z0-9._~@:+%-]+)+")


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The requests that are answered.

    Args:
        host: The address that the server is bound to.
        allow_origins: Origins of proxies that may show the page and save, such as `https://hub.example.org`.
        token: The token that every client must send; None for no token.
        frame_origins: Pages that may show the page in a frame and nothing else, as sources of a content security policy.
    """

    host: str = "127.0.0.1"
    allow_origins: frozenset[str] = field(default_factory=frozenset)
    token: str | None = None
    frame_origins: tuple[str, ...] = ()

    def host_allowed(self, header: str | None) -> bool:
        """Return True if this Host is ours; a name that foreign DNS could point here isn't."""
        name = _host_name(header)
        if name is None:
            return False
        proxies = {urlsplit(origin).hostname or "" for origin in self.allow_origins}
        if name in _LOOPBACK_NAMES or name == self.host.lower() or name in proxies:
            return True
        return is_any_address(self.host) and (_is_address(name) or name in _own_names())

    def write_allowed(self, headers: Headers) -> bool:
        """Return True if a request may change something: it comes from the page, an allowed origin, or not from a browser."""
        origin = headers.get("origin")
        if origin is not None:
            return origin in self.allow_origins or _is_own(origin, headers.get("host"))
        return headers.get("sec-fetch-site", "none") in ("same-origin", "none")

    def content_policy(self) -> str:
        """Return the Content-Security-Policy of every reply: nothing from elsewhere, no inline script or style."""
        frames = " ".join(["'self'", *sorted({*self.allow_origins, *self.frame_origins})])
        return (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
            "font-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
            f"frame-ancestors {frames}"
        )


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
        headers, token = Headers(scope=scope), self._rules.token
        refusal = self._refusal(scope["method"], headers)
        sets_cookie = False
        if refusal is None and token is not None:
            shown = shown_tokens(token, headers, scope["query_string"])
            sets_cookie = shown.get("address", False)
            if not _is_enough(shown) and not (scope["path"] in _OPEN_PATHS and all(shown.values())):
                hint = "open the link with ?token=… that the server printed when it started"
                refusal = json_error(401, "the token is missing or wrong", hint)
                refusal.headers["WWW-Authenticate"] = "Bearer"

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                reply = MutableHeaders(scope=message)
                reply.update(self._headers)
                if refusal is None and sets_cookie and token is not None:
                    cookie = f"{cookie_name(token)}={token}; Path=/; HttpOnly; SameSite=Strict"
                    reply.append("Set-Cookie", cookie)
            await send(message)

        await (refusal or self._app)(scope, receive, send_protected)

    def _refusal(self, method: str, headers: Headers) -> ASGIApp | None:
        if not self._rules.host_allowed(headers.get("host")):
            hint = "open the address that the server printed, or start it with --allow-origin for a proxy"
            return json_error(403, "this server doesn't accept that host name", hint)
        if method not in _SAFE_METHODS and not self._rules.write_allowed(headers):
            hint = "use the server's own page, or start the server with --allow-origin"
            return json_error(403, "cross-origin requests are refused", hint)
        return None


class BelowPrefix:
    """ASGI middleware that strips the path prefix if the proxy has kept it.

    The page's own URLs are relative, so that it works with both kinds of proxies; only its URL without the final slash has to
    be redirected.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = unquote(prefix)  # paths are already unquoted here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._prefix:
            path: str = scope["path"]
            if path == self._prefix:
                query = scope["query_string"].decode("latin-1")
                here = quote(self._prefix.rpartition("/")[2]) + "/"
                reply = RedirectResponse(f"./{here}?{query}" if query else f"./{here}", 308)
                await reply(scope, receive, send)
                return
            if path.startswith(f"{self._prefix}/"):
                scope = {**scope, "path": path[len(self._prefix) :], "raw_path": None}
        await self._app(scope, receive, send)


def token_for(host: str, wanted: bool | None = None) -> str | None:
    """Return the token of a server, or None for a server without one.

    Args:
        host: The address that it's bound to. By default, only a server that other machines can reach has a token.
        wanted: Require a token, or none, whatever the address.
    """
    if wanted is False or (wanted is None and is_loopback(host)):
        return None
    return os.environ.get(TOKEN_VARIABLE) or secrets.token_urlsafe(24)


def cookie_name(token: str) -> str:
    """Return the name of the cookie that holds a token. Each has its own, since servers on other ports share their cookies."""
    return f"circuit-tracer-token-{hashlib.sha256(token.encode()).hexdigest()[:8]}"


def shown_tokens(token: str, headers: Headers, query: bytes) -> dict[str, bool]:
    """Return whether each token that was sent (`address`, `header`, `cookie`) is right; tokens not sent are absent."""
    found: dict[str, bool] = {}
    in_address = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("token", [])
    if in_address:
        found["address"] = all(_same(token, text) for text in in_address)
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        found["header"] = _same(token, credentials.strip())
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(cookie_name(token))
    except CookieError:
        cookie = None
    if cookie is not None:
        found["cookie"] = _same(token, cookie.value)
    return found


def _is_enough(shown: dict[str, bool]) -> bool:
    """A wrong token in the address or header is refused even with a right cookie; a right one replaces a wrong cookie."""
    return any(shown.values()) and shown.get("address", True) and shown.get("header", True)


def _same(expected: str, shown: str) -> bool:
    return hmac.compare_digest(expected.encode(), shown.encode("utf-8", "surrogateescape"))


def check_origins(origins: Iterable[str]) -> frozenset[str]:
    """Return origins as browsers send them. Raises InvalidValue for anything else, `*` included."""
    return frozenset(_check_origin(origin) for origin in origins)


def _check_origin(origin: str) -> str:
    parts = urlsplit(origin.strip())
    bare = parts.path in ("", "/") and not parts.query and not parts.fragment
    if parts.scheme not in ("http", "https") or not parts.hostname or not bare:
        raise InvalidValue(
            f"{origin!r} is not an origin", "write it as https://hub.example.org or http://name:8888"
        )
    return f"{parts.scheme}://{parts.netloc.lower()}"


def check_root_path(path: str) -> str:
    """Return a proxy's path with a leading and no trailing slash, or an empty string. Raises InvalidValue."""
    bare = "/" + path.strip("/")
    if bare == "/":
        return ""
    if bare.split("/")[1] in _OWN_ROUTES:
        raise InvalidValue(
            f"{path!r} conflicts with an address of the server", "let the proxy use another path"
        )
    if not _PROXY_PATH.fullmatch(bare) or {".", ".."} & set(bare.split("/")):
        raise InvalidValue(f"{path!r} is not a proxy's path", "write it as /user/me/proxy/8041")
    return bare


def is_any_address(host: str) -> bool:
    """Return True if a server bound to this address listens on all of the machine's addresses."""
    return host in _ANY_ADDRESS


def is_loopback(host: str) -> bool:
    """Return True if the address is local to this machine."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _is_own(origin: str, host: str | None) -> bool:
    scheme, _, rest = origin.partition("://")
    return scheme in ("http", "https") and host is not None and rest.lower() == host.lower()


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
