"""The token that a client on another machine must show: once in the address, from then on in a cookie."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers

COOKIE = "circuit-tracer-token"
_ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})


def token_for(host: str) -> str | None:
    """A new token for a server bound to this address, or None where only this machine can reach it."""
    return None if is_loopback(host) else secrets.token_urlsafe(24)


def is_any_address(host: str) -> bool:
    """Whether a server bound to this listens on all of the machine's addresses."""
    return host in _ANY_ADDRESS


def is_loopback(host: str) -> bool:
    """Whether the address is this machine's own."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def shown_in_address(token: str, query: bytes) -> bool:
    """Whether the address has the token as `?token=…`."""
    shown = parse_qs(query.decode("latin-1")).get("token", [])
    return any(_same(token, text) for text in shown)


def shown_in_headers(token: str, headers: Headers) -> bool:
    """Whether the cookie or an `Authorization: Bearer …` header has it."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and _same(token, credentials.strip()):
        return True
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return False
    return cookie is not None and _same(token, cookie.value)


def cookie_header(token: str) -> str:
    """The Set-Cookie header that spares the address the token."""
    return f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict"


def _same(expected: str, shown: str) -> bool:
    return hmac.compare_digest(expected.encode(), shown.encode())
