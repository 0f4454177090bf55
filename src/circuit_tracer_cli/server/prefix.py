"""Requests below a path that a proxy keeps, such as `/user/me/proxy/8041/`: the same as those at the root."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from circuit_tracer_cli.errors import InvalidValue

OWN_ROUTES = frozenset({"api", "data", "features", "graph_data", "save_graph", "src", "healthz"})
_PATH = re.compile(r"(/[A-Za-z0-9._~@:+%-]+)+")


def check_root_path(path: str) -> str:
    """A proxy's path with a slash in front and none behind; the empty text for none. Raises InvalidValue for what is no path."""
    bare = "/" + path.strip("/")
    if bare == "/":
        return ""
    if bare.split("/")[1] in OWN_ROUTES:
        raise InvalidValue(
            f"{path!r} begins like an address of the server's own", "let the proxy use another path"
        )
    if not _PATH.fullmatch(bare) or {".", ".."} & set(bare.split("/")):
        raise InvalidValue(f"{path!r} is no path of a proxy", "write it as /user/me/proxy/8041")
    return bare


class BelowPrefix:
    """ASGI middleware that takes the path away where the proxy has left it, and passes on all else.

    The page's own addresses are relative, so that it works with proxies of both kinds; only its address without the last slash
    has to be put right.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = unquote(prefix)  # as paths are when they come here

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
