"""What only a process of its own can show: signals, closed pipes, a lost terminal, a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from tests.cases import one_of
from tests.cli.conftest import PROGRAM, PROMPT, Run, Tiny

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's"),
]

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}

SLOW_TRACE = """
import sys, time
import circuit_tracer_cli.pipeline as pipeline
def trace(request, progress):
    progress.phase("slow")
    for _ in range(600):
        time.sleep(0.1)
pipeline.trace = trace
from circuit_tracer_cli.__main__ import main
main()
"""
SLOW_WRITE = """
import sys, time
import circuit_tracer_cli.graph.store as store
def write(graph, stream, kind):
    stream.write(b"half a graph")
    print("writing", file=sys.stderr, flush=True)
    for _ in range(600):
        time.sleep(0.1)
store._write = write
from circuit_tracer_cli.__main__ import main
main()
"""


def listen() -> None:
    """In a child: obey Ctrl-C and SIGHUP even where this test runs in the background of a shell or under nohup."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def wait_for(stream: IO[str], word: str) -> str:
    """Read lines until one has the word."""
    seen = ""
    for line in stream:
        seen += line
        if word in line:
            return line
    raise AssertionError(f"{word!r} never came:\n{seen}")


@contextmanager
def started(*command: object, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is dead at the end, whatever the test finds."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        preexec_fn=listen,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", one_of(signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
def test_a_signal_ends_a_trace_cleanly(
    here: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    options = ["attribute", "-p", PROMPT, "-o", "g.pt", "--slug", "x"]
    with started(sys.executable, "-c", SLOW_TRACE, *options, env=environment) as process:
        assert process.stderr
        wait_for(process.stderr, "slow")
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == CODES[number]
    assert errors == "interrupted\n"
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("number", one_of(signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
def test_a_signal_while_writing_leaves_no_half_file(
    here: Path, environment: dict[str, str], raw_graph: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-c", SLOW_WRITE, "prune", raw_graph, "-o", "g.safetensors"]
    with started(*command, env=environment) as process:
        assert process.stderr
        wait_for(process.stderr, "writing")
        process.send_signal(number)
        process.communicate(timeout=120)
    assert process.returncode == CODES[number]
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_viewer_cleanly(
    here: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    command = [*PROGRAM, "serve", ".", "--port", "0"]
    with started(*command, env=environment) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}healthz", timeout=10) as answer:
            assert answer.status == 200
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == CODES[number]
    assert "Traceback" not in errors
    assert "ssh -L" in errors


@pytest.mark.parametrize("arguments", one_of(["show"], ["prune", "-o", "-"]))
def test_a_closed_pipe_is_quiet(environment: dict[str, str], raw_graph: Path, arguments: list[str]) -> None:
    command = [*PROGRAM, arguments[0], str(raw_graph), *arguments[1:]]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment, timeout=60
    )
    os.close(writer)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr
    assert "Broken" not in done.stderr


@pytest.mark.long
def test_head_gets_its_bytes(environment: dict[str, str], raw_graph: Path) -> None:
    line = f"{PROGRAM[0]} -m circuit_tracer_cli show '{raw_graph}' | head -c 10"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=environment, timeout=300)
    assert done.stdout == "prompt    "
    assert done.stderr == ""


def test_closed_streams(here: Path, environment: dict[str, str], raw_graph: Path) -> None:
    line = f"{PROGRAM[0]} -m circuit_tracer_cli prune '{raw_graph}' -o g.pt <&- >&- 2>&-"
    assert subprocess.run(line, shell=True, env=environment, timeout=300).returncode == 0
    from circuit_tracer_cli.graph.store import load_graph

    assert load_graph(here / "g.pt").pruning


@pytest.mark.long
def test_a_trace_outlives_its_terminal(here: Path, environment: dict[str, str], tiny: Tiny) -> None:
    """As under nohup: SIGHUP is ignored when it comes, and stderr leads nowhere."""
    reader, writer = os.pipe()
    command = [*PROGRAM, "attribute", *tiny.options, "-p", PROMPT, "-o", "g.pt"]
    process = subprocess.Popen(
        ["nohup", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=writer, env=environment
    )
    os.close(writer)
    os.close(reader)
    time.sleep(0.5)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert (here / "g.pt").stat().st_size > 0


def limited(megabytes: int) -> object:
    """Makes files above a size fail as on a full disk, in a child process."""
    import resource

    def set_limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (megabytes, megabytes))

    return set_limit


@pytest.mark.parametrize("arguments", one_of(["prune", "-o", "g.safetensors"], ["export", "--slug", "x"]))
def test_a_full_disk_leaves_nothing(
    here: Path, environment: dict[str, str], raw_graph: Path, arguments: list[str]
) -> None:
    done = subprocess.run(
        [*PROGRAM, arguments[0], str(raw_graph), *arguments[1:]],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        preexec_fn=limited(2000),  # type: ignore[arg-type]
    )
    assert done.returncode == 1
    assert "error: can't write" in done.stderr
    assert [path for path in here.rglob("*") if path.is_file() and path.stat().st_size] == []


def test_an_error_shows_its_traceback_only_for_debugging(
    spawn: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Traceback" not in spawn("show", "missing.pt").stderr
    monkeypatch.setitem(environment, "CIRCUIT_TRACER_DEBUG", "1")
    assert "Traceback" in spawn("show", "missing.pt").stderr


@pytest.mark.long
def test_ascii_terminals_get_something(
    spawn: Run, environment: dict[str, str], raw_graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(environment, "PYTHONIOENCODING", "ascii")
    done = spawn("show", raw_graph)
    assert done.code == 0, done.stderr
    assert "Strongest paths" in done.text


def test_completion_script(spawn: Run, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(environment, "_CIRCUIT_TRACER_COMPLETE", "source_bash")
    assert "complete" in spawn().text


@pytest.mark.long
def test_attribute_and_serve_in_one(here: Path, environment: dict[str, str], tiny: Tiny) -> None:
    options = [*tiny.options, "-p", PROMPT, "--slug", "mine", "--server", "--port", "0"]
    with started(*PROGRAM, "attribute", *options, env=environment) as process:
        assert process.stderr
        url = wait_for(process.stderr, "http://").strip()
        wait_for(process.stderr, "written")
        with urllib.request.urlopen(f"{url}api/graphs", timeout=10) as answer:
            assert b'"mine"' in answer.read()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130


def has_open(pid: int, word: str) -> bool:
    """True if a process has a file open whose path has the word."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if word in os.readlink(link):
                return True
    return False


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs the system's list of open files")
@pytest.mark.parametrize("number", one_of(signal.SIGKILL, signal.SIGTERM, signal.SIGHUP))
def test_nothing_is_left_of_a_pipe(
    here: Path, environment: dict[str, str], raw_graph: Path, number: signal.Signals
) -> None:
    """The graph comes whole and the pipe stays open, so the program waits with all of it copied."""
    (here / "temporary").mkdir()
    process = subprocess.Popen(
        [*PROGRAM, "show", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**environment, "TMPDIR": str(here / "temporary")},
        preexec_fn=listen,
    )
    assert process.stdin
    process.stdin.write(raw_graph.read_bytes())
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not has_open(process.pid, "temporary"):
        assert time.monotonic() < deadline, "the pipe was never read"
        time.sleep(0.05)
    process.send_signal(number)
    code = process.wait(60)
    process.stdin.close()
    assert code == (-9 if number == signal.SIGKILL else 143)
    assert list((here / "temporary").iterdir()) == []


def test_a_graph_for_a_closed_stdout_is_refused(environment: dict[str, str], raw_graph: Path) -> None:
    line = f"{PROGRAM[0]} -m circuit_tracer_cli prune '{raw_graph}' -o - >&-"
    done = subprocess.run(line, shell=True, stderr=subprocess.PIPE, text=True, env=environment, timeout=300)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the graph can't be written: stdout is closed")


def test_a_deleted_folder_is_named(here: Path, environment: dict[str, str]) -> None:
    (here / "gone").mkdir()
    line = f"cd gone && rmdir ../gone && {PROGRAM[0]} -m circuit_tracer_cli show graph.pt"
    done = subprocess.run(line, shell=True, stderr=subprocess.PIPE, text=True, env=environment, timeout=300)
    assert done.returncode == 1
    assert "error: the current folder no longer exists" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds address space to a limit")
@pytest.mark.parametrize("megabytes", [200, 600])
def test_too_little_address_space_is_named(here: Path, environment: dict[str, str], megabytes: int) -> None:
    """`ulimit -v`, as batch systems set it: while libraries are loaded, and when they are."""

    import resource

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    done = subprocess.run(
        [*PROGRAM, "attribute", "-p", "Dallas", "-o", "graph.safetensors"],
        preexec_fn=limited, stderr=subprocess.PIPE, text=True, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "memory" in errors[0]
    assert "internal error" not in done.stderr
    assert list(here.iterdir()) == []
