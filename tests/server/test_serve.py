"""The running server: start, stop, ports, the routes over a real socket, and what it imports."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from circuit_tracer_cli import viewer_files
from circuit_tracer_cli.errors import InvalidValue, MissingFile, ServerError
from circuit_tracer_cli.server.serve import serve

from .builders import free_port, make_page, write_graph

SRC = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return make_page(tmp_path / "page")


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_a_round_over_a_socket(data_dir: Path, page: Path) -> None:
    with serve(data_dir, page, port=free_port()) as server:
        assert server.url == f"http://127.0.0.1:{server.port}/"
        assert get(f"{server.url}healthz")[0] == 200
        assert get(server.url) == (200, (page / "index.html").read_bytes())
        assert json.loads(get(f"{server.url}api/graphs")[1])["graphs"][0]["slug"] == "demo"
        assert get(f"{server.url}data//etc/passwd")[0] == 404
        assert get(f"{server.url}data/%2e%2e/secret.json")[0] == 404
    with pytest.raises(urllib.error.URLError):
        get(f"{server.url}healthz")


@pytest.mark.parametrize(
    "target",
    [
        "/data/../secret.json",
        "/data/%2e%2e/secret.json",
        "/data/..%2fsecret.json",
        "/data/sub/../../secret.json",
        "/data//etc/passwd",
        "/data///etc/passwd",
        "/data/%2fetc%2fpasswd",
        "/features/../secret.json",
        "/features//etc/passwd",
        "/../secret.json",
        "//etc/passwd",
        "/%2e%2e/secret.json",
        "/src/../../secret.json",
        "/api/graphs/..%2fsecret",
        "/api/graphs/%2e%2e%2fsecret",
    ],
)
def test_raw_targets_that_clients_would_tidy_up(data_dir: Path, page: Path, target: str) -> None:
    (data_dir / "sub").mkdir()
    with serve(data_dir, page, features_dir=data_dir, port=0) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        connection.putrequest("GET", target)
        connection.endheaders()
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
    assert reply.status in (403, 404, 422)
    assert b'"secret": true' not in body
    assert b"root:" not in body


def test_stopping_twice_frees_the_port(data_dir: Path, page: Path) -> None:
    server = serve(data_dir, page, port=0)
    server.stop()
    server.stop()
    again = serve(data_dir, page, port=server.port)
    again.stop()
    assert again.port == server.port


def test_two_servers_take_two_ports(data_dir: Path, page: Path) -> None:
    with serve(data_dir, page, port=0) as first, serve(data_dir, page, port=0) as second:
        assert first.port != second.port


def test_a_taken_port_is_named_with_a_free_one(data_dir: Path, page: Path) -> None:
    with serve(data_dir, page, port=0) as server:
        with pytest.raises(ServerError, match=f"port {server.port} is in use") as caught:
            serve(data_dir, page, port=server.port)
        suggested = int(str(caught.value.hint).split("--port ")[1].split(",")[0])
        with socket.create_server(("127.0.0.1", suggested)):
            pass


@pytest.mark.parametrize("port", [-1, 65536, True])
def test_impossible_ports(data_dir: Path, page: Path, port: int) -> None:
    with pytest.raises(InvalidValue, match="port"):
        serve(data_dir, page, port=port)


def test_an_address_of_another_machine(data_dir: Path, page: Path) -> None:
    with pytest.raises(ServerError, match="can't listen"):
        serve(data_dir, page, port=0, host="192.0.2.1")
    with pytest.raises(ServerError, match="can't listen"):
        serve(data_dir, page, port=0, host="no such host")


def test_missing_folders_are_named(data_dir: Path, page: Path, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    for arguments in ({"data_dir": missing}, {"features_dir": missing}, {"frontend_dir": missing}):
        with pytest.raises(MissingFile, match="nowhere"):
            serve(**{"data_dir": data_dir, "frontend_dir": page, **arguments})
    with pytest.raises(MissingFile):
        serve(data_dir / "demo.json", page)


def test_the_checkout_has_a_viewer() -> None:
    assert (viewer_files.static_folder() / "index.html").is_file()


def test_nothing_heavy_is_imported(data_dir: Path, page: Path) -> None:
    code = """
        import sys, urllib.request
        from circuit_tracer_cli.server.serve import serve
        with serve(sys.argv[1], sys.argv[2], port=0) as server:
            urllib.request.urlopen(server.url + "api/graphs").read()
        print([name for name in ("torch", "transformers", "numpy", "pandas") if name in sys.modules])
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(data_dir), str(page)]
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout.strip() == "[]"


SAVER = """
import sys
from pathlib import Path
from circuit_tracer_cli.server.graphs import GraphFolder
folder = GraphFolder(Path(sys.argv[1]), Path(sys.argv[1]))
print("ready", flush=True)
for number in range(100_000):
    folder.save("demo", {"pinnedIds": [str(number)] * 2000}, lambda present: True)
    print(number, flush=True)
"""


SERVER = """
import sys
from circuit_tracer_cli.server.serve import serve
with serve(sys.argv[1], sys.argv[2], port=0, labels_dir=sys.argv[1] + "-labels") as server:
    print(server.port, flush=True)
    server.wait()
"""


def save_until_killed(folder: Path, page: Path, pause: float) -> list[int]:
    """Saves over HTTP, one after the other, until the server is killed. Returns which were acknowledged."""
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    command = [sys.executable, "-c", SERVER, str(folder), str(page)]
    acknowledged: list[int] = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(process.stdout.readline()), timeout=20)
        killer = threading.Timer(pause, process.kill)
        killer.start()
        while True:
            body = json.dumps({"pinnedIds": [str(len(acknowledged))] * 2000})
            try:
                connection.request("PUT", "/api/graphs/demo/annotations", body, {"If-Match": "*"})
                reply = connection.getresponse()
                reply.read()
            except (OSError, http.client.HTTPException):
                break
            assert reply.status == 200
            acknowledged.append(len(acknowledged))
        killer.join()
        connection.close()
    return acknowledged


@pytest.mark.long
@pytest.mark.parametrize("moment", range(50))
def test_a_server_killed_at_any_moment_loses_nothing_acknowledged(
    data_dir: Path, page: Path, moment: int
) -> None:
    acknowledged = save_until_killed(data_dir, page, random.Random(moment).uniform(0.0, 0.3))
    saved = json.loads((data_dir / "demo.json").read_text())
    assert len(saved["nodes"]) == 3
    pinned = saved["qParams"].get("pinnedIds", ["-1"])
    assert len(set(pinned)) == 1
    assert int(pinned[0]) in (len(acknowledged) - 1, len(acknowledged))


@pytest.mark.parametrize("delay", [0.002, 0.011, 0.023, 0.05])
def test_a_killed_save_loses_nothing_acknowledged(data_dir: Path, delay: float) -> None:
    write_graph(data_dir, "demo")
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    process = subprocess.Popen(
        [sys.executable, "-c", SAVER, str(data_dir)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        acknowledged = process.stdout.read().split()
    saved = json.loads((data_dir / "demo.json").read_text())
    assert len(saved["nodes"]) == 3
    pinned = saved["qParams"].get("pinnedIds", ["-1"])
    assert len(set(pinned)) == 1
    assert int(pinned[0]) >= int(acknowledged[-1] if acknowledged else -1)
