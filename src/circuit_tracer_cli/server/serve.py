"""Starts and stops the server in a background thread."""

from __future__ import annotations

import asyncio
import atexit
import errno
import logging
import socket
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import anyio.to_thread
import uvicorn

from circuit_tracer_cli.errors import InvalidValue, MissingFile, ServerError
from circuit_tracer_cli.server.access import (
    AccessRules,
    check_origins,
    check_root_path,
    is_any_address,
    is_loopback,
    token_for,
)
from circuit_tracer_cli.server.app import Settings, create_app
from circuit_tracer_cli.server.deadlines import DeadlineProtocol
from circuit_tracer_cli.server.labels import labels_folder
from circuit_tracer_cli.server.live import LiveTrace
from circuit_tracer_cli.server.runs import Runner, RunQueue
from circuit_tracer_cli.viewer_files import static_folder

if TYPE_CHECKING:
    from circuit_tracer_cli.replacement import ReplacementModel

DEFAULT_PORT = 8041
_log = logging.getLogger(__name__)
_PORTS_TO_TRY = 64
_START_SECONDS = 20.0
_STOP_SECONDS = 5.0
_LOOK_SECONDS = 0.2
_THREADS = 20


class Server:
    """A running server. Also a context manager that stops it."""

    def __init__(
        self, settings: Settings, listener: socket.socket, spare: tempfile.TemporaryDirectory[str]
    ) -> None:
        self._spare = spare
        self.host: str = settings.rules.host
        self.port: int = listener.getsockname()[1]
        self._listener = listener
        self._token = settings.rules.token
        self._runs = settings.runs
        config = uvicorn.Config(
            create_app(settings),
            http=DeadlineProtocol,
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            proxy_headers=False,
            timeout_graceful_shutdown=2,
        )
        self._uvicorn = uvicorn.Server(config)
        # After Ctrl-C in the middle of `join`, Python 3.11 considers a thread dead. So this thread sets an event when it ends,
        # and waiting callers sleep, which can be interrupted anywhere.
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="circuit-tracer", daemon=True)

    def _serve(self) -> None:
        try:
            asyncio.run(self._answer())
        finally:
            self._ended.set()

    async def _answer(self) -> None:
        """Answer requests until the end, with few threads: each keeps memory for the largest reply that it made."""
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        await self._uvicorn.serve(sockets=[self._listener])

    @property
    def url(self) -> str:
        """URL of the page for a browser on this machine."""
        return self._address("127.0.0.1" if is_any_address(self.host) else self.host)

    @property
    def link(self) -> str:
        """The link to open in a browser: the URL, with the token if the server has one."""
        if self._token is None:
            return self.url
        host = socket.gethostname() if is_any_address(self.host) else self.host
        return f"{self._address(host)}?token={self._token}"

    def _address(self, host: str) -> str:
        return f"http://[{host}]:{self.port}/" if ":" in host else f"http://{host}:{self.port}/"

    def start(self) -> None:
        """Wait until requests are answered. Raises ServerError if that takes too long."""
        self._thread.start()
        if self._runs is not None:
            self._runs.start()
        atexit.register(self.stop)
        limit = time.monotonic() + _START_SECONDS
        while not self._uvicorn.started:
            if self._ended.is_set() or time.monotonic() > limit:
                self.stop()
                raise ServerError("the server didn't start", "set CIRCUIT_TRACER_DEBUG=1 and try again")
            time.sleep(0.01)

    def stop(self) -> None:
        """End the server and free the port. Calling it again does nothing."""
        atexit.unregister(self.stop)
        if self._runs is not None:
            self._runs.close()
        self._uvicorn.should_exit = True
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            limit = time.monotonic() + _STOP_SECONDS
            while not self._ended.is_set() and time.monotonic() < limit:
                time.sleep(0.01)
        self._listener.close()
        self._spare.cleanup()

    def wait(self) -> None:
        """Block until the server has stopped. Ctrl-C stops it, then raises KeyboardInterrupt."""
        try:
            while not self._ended.is_set():
                time.sleep(_LOOK_SECONDS)
        finally:
            self.stop()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(
    data_dir: str | Path,
    frontend_dir: str | Path | None = None,
    features_dir: str | Path | None = None,
    port: int = DEFAULT_PORT,
    host: str = "127.0.0.1",
    allow_origins: Iterable[str] = (),
    live: LiveTrace | None = None,
    model: ReplacementModel | Runner | None = None,
    labels_dir: str | Path | None = None,
    frame_origins: Iterable[str] = (),
    root_path: str = "",
    token: bool | None = None,
) -> Server:
    """Serve the graph files of a folder and the viewer, in a background thread, and return at once.

    Args:
        data_dir: Folder of graph files. Files that appear later are listed without a restart.
        frontend_dir: A viewer to use instead of the packaged one.
        features_dir: Folder of feature examples with `index.json.gz`, for all graphs. By default, those next to a graph's
            transcoders or in its repository on the hub are used.
        port: The port; 0 takes the next free one, from 8041 up.
        host: Address to listen on. If other machines can reach it, every client needs a token, which `link` contains.
        allow_origins: Origins of notebook proxies that may show the page, such as `https://hub.example.org`.
        live: A running trace, which the page follows.
        model: The model for interventions from the page: a ReplacementModel, or a runner that loads one in the background.
        labels_dir: Folder for labels shared by graphs of a set; by default in the user's data folder.
        frame_origins: Pages that may show this one in a frame, such as a local notebook: `http://localhost:*`.
        root_path: Path prefix that a proxy keeps in every request, such as `/user/me/proxy/8041`; proxies that strip it work
            too.
        token: True requires a token on this machine too (if others also use it), False never. It is taken from the
            environment variable `CIRCUIT_TRACER_TOKEN`, else generated.

    Raises:
        MissingFile: A folder doesn't exist, or has no viewer.
        ServerError: The port is in use, or the address is unknown.
        InvalidValue: The port, an origin or `root_path` is not valid.
    """
    if isinstance(port, bool) or not 0 <= port <= 65535:
        raise InvalidValue(f"port {port} doesn't exist", "use 1 to 65535, or 0 for the next free one")
    settings = Settings(
        data_dir=_folder(data_dir, "graph folder"),
        static_dir=static_folder(frontend_dir).resolve(),
        features_dir=None if features_dir is None else _folder(features_dir, "feature folder"),
        rules=AccessRules(host, check_origins(allow_origins), token_for(host, token), tuple(frame_origins)),
        live=live,
        runs=None if model is None else RunQueue(_runner(model)),
        labels_dir=labels_folder() if labels_dir is None else Path(labels_dir),
        root_path=check_root_path(root_path),
    )
    listener = _listen(host, port)
    spare = tempfile.TemporaryDirectory(prefix="circuit-tracer-forms-")
    server = Server(replace(settings, spare_dir=Path(spare.name)), listener, spare)
    server.start()
    if settings.rules.token is not None and not is_loopback(host):
        _log.warning("other machines can reach this server; the link is %s", server.link)
    return server


def _runner(model: ReplacementModel | Runner) -> Runner:
    """Return a runner unchanged, or a model as a runner."""
    from circuit_tracer_cli.server.model import ModelRunner

    return model if isinstance(model, Runner) else ModelRunner(model=model)


def _folder(path: str | Path, what: str) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        wrong = "is a file" if folder.exists() else "doesn't exist"
        raise MissingFile(f"the {what} {str(path)!r} {wrong}", "name an existing folder")
    return folder.resolve()


def check_port(host: str, port: int) -> None:
    """Raise ServerError if a server couldn't listen there; called before any work is done."""
    _listen(host, port).close()


def _listen(host: str, port: int) -> socket.socket:
    candidates = range(DEFAULT_PORT, DEFAULT_PORT + _PORTS_TO_TRY) if port == 0 else (port,)
    for candidate in candidates:
        try:
            return _bind(host, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                message = f"can't listen on {host}:{candidate}: {error.strerror}"
                raise ServerError(message, _hint(error)) from error
    if port == 0:
        return _bind(host, 0)
    free = _listen(host, 0)
    suggestion = free.getsockname()[1]
    free.close()
    raise ServerError(f"port {port} is in use", f"try --port {suggestion}, or --port 0 for the next free one")


def _bind(host: str, port: int) -> socket.socket:
    """A listening socket: on Linux only listening shows for certain that a port is free."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def _hint(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "ports below 1024 need privileges; try --port 0"
    return "use --host 127.0.0.1, or an address of this machine"
