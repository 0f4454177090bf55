"""Clients that leave, dawdle, or send numbers without end: one line in the log at most, and the server goes on."""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from circuit_tracer_cli.server import deadlines
from circuit_tracer_cli.server.live import LiveTrace
from circuit_tracer_cli.server.serve import Server, serve

from .builders import make_graph, make_page

SRC = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines that a test can wait for."""
    for name, seconds in (("HEADER", 0.4), ("BODY", 0.4), ("READ", 0.6), ("LOOK", 0.05)):
        monkeypatch.setattr(deadlines, f"{name}_SECONDS", seconds)


@pytest.fixture
def live() -> LiveTrace:
    return LiveTrace("growing", " a")


@pytest.fixture
def server(
    data_dir: Path, tmp_path: Path, live: LiveTrace, caplog: pytest.LogCaptureFixture
) -> Iterator[Server]:
    with (
        caplog.at_level(logging.WARNING),
        serve(
            data_dir, make_page(tmp_path / "page"), port=0, live=live, labels_dir=tmp_path / "labels"
        ) as server,
    ):
        yield server


def connected(server: Server, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(sent)
    return connection


def answers(server: Server) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/api/graphs")
    status = connection.getresponse().status
    connection.close()
    return status == 200


def everything(connection: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    content = b""
    while chunk := connection.recv(1 << 16):
        content += chunk
    return content


HEAD = b"PUT /api/graphs/demo/annotations HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-Match: *\r\n"


def test_a_client_that_leaves_in_the_middle_of_a_body(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        connected(server, HEAD + b'Content-Length: 1000\r\n\r\n{"pinnedIds": [').close()
    assert answers(server)
    time.sleep(0.2)
    assert caplog.records == []


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /api/graphs HTTP/1.1\r\nHost: 127", HEAD + b'Content-Length: 1000\r\n\r\n{"pinnedIds": ['],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_client_that_stops_is_cut_off(server: Server, sent: bytes) -> None:
    connections = [connected(server, sent) for _ in range(30)]
    start = time.monotonic()
    for connection in connections:
        reply = everything(connection)
        assert reply.startswith(b"HTTP/1.1 408 ") if sent else reply == b""
        if sent:
            assert set(json.loads(reply.partition(b"\r\n\r\n")[2])) == {"error", "hint"}
        connection.close()
    assert time.monotonic() - start < 5
    assert answers(server)


@pytest.mark.usefixtures("quick")
def test_a_byte_now_and_then_is_not_enough(server: Server) -> None:
    """Each byte restarts a timer that only looks at silence."""
    connection = connected(server)
    start = time.monotonic()
    try:
        for byte in b"GET /api/graphs HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)
            assert time.monotonic() - start < 5
        raise AssertionError("it was never cut off")
    except (BrokenPipeError, ConnectionResetError):
        pass
    finally:
        connection.close()


@pytest.mark.usefixtures("quick")
def test_a_client_that_takes_no_reply_is_cut_off(server: Server, data_dir: Path) -> None:
    graph = make_graph("large")
    graph["nodes"] = graph["nodes"] * 100_000
    (data_dir / "large.json").write_text(json.dumps(graph))
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(b"GET /data/large.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    limit = time.monotonic() + 20
    protocols = server._uvicorn.server_state.connections
    while not protocols:
        assert time.monotonic() < limit
        time.sleep(0.02)
    while protocols:
        assert time.monotonic() < limit
        time.sleep(0.02)
    connection.close()
    assert answers(server)


@pytest.mark.usefixtures("quick")
def test_deadlines_spare_a_connection_that_works(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        deadlines, "HEADER_SECONDS", 1.2
    )  # more than a busy machine may pause between two requests
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for _ in range(4):
        connection.request("GET", "/api/live")
        assert connection.getresponse().read()
        time.sleep(0.35)
    connection.close()


def test_connections_that_are_dropped_leave_nothing_behind(server: Server, live: LiveTrace) -> None:
    live.publish(json.dumps(make_graph()).encode() + b" " * (1 << 20))
    for path in (b"/api/live", b"/api/live/graph") * 100:
        connected(server, b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").close()
    limit = time.monotonic() + 10
    state = server._uvicorn.server_state
    while state.connections or state.tasks:
        assert time.monotonic() < limit
        time.sleep(0.02)
    assert answers(server)


@pytest.mark.parametrize(
    "path",
    [
        f"/features/{'9' * 5000}.json",
        f"/api/features/{'9' * 4500}/1",
        f"/api/features/1/{'9' * 5000}",
        f"/api/graphs/demo/features/{'9' * 4500}/1",
        f"/api/graphs/{'a' * 5000}",
        f"/api/graphs/{'a' * 5000}/view",
        f"/data/{'a' * 5000}.json",
        f"/api/runs/{'9' * 5000}",
    ],
    ids=lambda path: path[:25],
)
def test_numbers_and_names_without_end(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code in (404, 409)
    assert len(reply.content) < 1000


@pytest.mark.parametrize(
    "body",
    [b'{"seed": ' + b"9" * 5000 + b"}", b'{"prompt": "a", "edits": ["' + b"9" * 4500 + b'/1@0=off"]}'],
    ids=["number", "layer"],
)
def test_numbers_without_end_in_a_body(body: bytes) -> None:
    from circuit_tracer_cli.errors import UsageError
    from circuit_tracer_cli.interventions.spec import parse_intervention
    from circuit_tracer_cli.server.bodies import as_json

    if b"seed" in body:
        with pytest.raises(Exception, match="valid JSON"):
            as_json(body)
    else:
        with pytest.raises(UsageError):
            parse_intervention(as_json(body)["edits"][0])


TRACED = """
import sys, threading
from circuit_tracer_cli.cli import errors
from circuit_tracer_cli.__main__ import _leave
from circuit_tracer_cli.server.runs import RunQueue

class Slow:
    def describe(self): return {}
    def prepare(self, progress):
        import torch
        threads = torch.get_num_threads()
        matrix = torch.ones(1500, 1500)
        print("ready", flush=True)
        while True:  # a pass that nobody can interrupt
            matrix = (matrix @ matrix).clamp(max=1)

errors.install_signal_handlers()
queue = RunQueue(Slow())
queue.start()
try:
    threading.Event().wait()
except BaseException as error:
    queue.close()
    code = errors.report(error)
    _leave(code)
    sys.exit(code)
"""


@pytest.mark.process
def test_sigterm_in_the_middle_of_a_pass_ends_quietly() -> None:
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    command = [sys.executable, "-c", TRACED]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate(timeout=30)
    assert (run.returncode, said) == (143, "interrupted\n")


@pytest.mark.usefixtures("quick")
def test_250_slow_connections_are_dropped_while_others_are_served(server: Server) -> None:
    sent = [
        b"",
        b"GET /api/graphs HTTP/1.1\r\nHost: 127",
        HEAD + b'Content-Length: 1000\r\n\r\n{"pinnedIds": [',
    ]
    connections = [connected(server, sent[number % 3]) for number in range(250)]
    assert answers(server)
    limit = time.monotonic() + 15
    for connection in connections:
        everything(connection)
        assert time.monotonic() < limit
        connection.close()
    while server._uvicorn.server_state.connections:
        assert time.monotonic() < limit
        time.sleep(0.02)
    assert answers(server)
