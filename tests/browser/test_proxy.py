"""The page behind proxies that keep a path before it, and that take it away."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from circuit_tracer_cli.server.serve import serve

from .graphs import write_graphs

if TYPE_CHECKING:
    from playwright.sync_api import Browser

expect = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed").expect
expect.set_options(timeout=20_000)

PREFIX = "/user/me/proxy/8041"
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class _Proxy(BaseHTTPRequestHandler):
    """Passes on what lies below the path, as notebook proxies do."""

    protocol_version = "HTTP/1.1"
    target: int
    strips: bool
    rewrites_host: bool

    def _pass_on(self) -> None:
        if not self.path.startswith(PREFIX):
            self.send_error(404)
            return
        path = self.path.removeprefix(PREFIX) if self.strips else self.path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        host = f"127.0.0.1:{self.target}" if self.rewrites_host else self.headers["Host"]
        with closing(http.client.HTTPConnection("127.0.0.1", self.target, timeout=20)) as upstream:
            upstream.request(self.command, path or "/", body or None, {**headers, "Host": host})
            reply = upstream.getresponse()
            content = reply.read()
        # A page that is reloaded or closed no longer waits for what it asked for.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.send_response_only(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = _pass_on

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def proxy(target: int, *, strips: bool, rewrites_host: bool, server: ThreadingHTTPServer) -> Iterator[None]:
    kind = type("Proxy", (_Proxy,), {"target": target, "strips": strips, "rewrites_host": rewrites_host})
    server.RequestHandlerClass = kind
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("strips", [True, False], ids=["strips", "keeps"])
@pytest.mark.parametrize("rewrites_host", [True, False], ids=["own-host", "same-host"])
def test_the_page_works_below_a_proxys_path(
    browser: Browser, tmp_path: Path, strips: bool, rewrites_host: bool
) -> None:
    write_graphs(tmp_path)
    front = ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    origin = f"http://127.0.0.1:{front.server_port}"
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    complaints: list[str] = []
    page.on("console", lambda line: line.type == "error" and complaints.append(line.text))
    page.on(
        "request",
        lambda call: call.url.startswith((origin + PREFIX, "data:", "blob:")) or complaints.append(call.url),
    )
    origins = [origin] if rewrites_host else []
    with (
        serve(
            tmp_path, port=0, allow_origins=origins, root_path=f"{PREFIX}/", labels_dir=tmp_path / "labels"
        ) as server,
        proxy(server.port, strips=strips, rewrites_host=rewrites_host, server=front),
    ):
        # Only a proxy that keeps the path tells the page with its last slash from the one without.
        page.goto(f"{origin}{PREFIX}{'/' if strips else ''}?slug=demo")
        page.wait_for_selector(".plot-labels .token-label")
        page.locator(".panel-connections").get_by_role("button", name="Pin", exact=True).click()
        page.wait_for_selector('.save-state[data-kind="saved"]')
        assert page.url.startswith(f"{origin}{PREFIX}/?slug=demo")
        page.reload()
        expect(page.locator(".box-name")).to_have_text(["Austin"])
        page.locator(".picker").select_option("hostile")
        page.wait_for_function("() => location.search.includes('slug=hostile')")
        context.close()
    assert complaints == []
