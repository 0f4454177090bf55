from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from circuit_tracer_cli.errors import MissingFile, OutputError
from circuit_tracer_cli.files.atomic import atomic_writer, write_bytes


def test_new_file_has_ordinary_permissions(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    write_bytes(tmp_path / "new", b"content")
    assert (tmp_path / "new").read_bytes() == b"content"
    assert (tmp_path / "new").stat().st_mode == plain.stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "plain"]


def test_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o600)
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, MissingFile])
def test_failure_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_writer(path) as stream:
            stream.write(b"half")
            raise failure("stop")

    with pytest.raises(failure):
        fail()
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"old")]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing/file", "no such file"), ("file/below", "not a directory"), ("", "is a directory")],
)
def test_impossible_paths(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=reason):
        write_bytes(tmp_path / name, b"content")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_device_is_written_in_place() -> None:
    write_bytes(os.devnull, b"content")
    assert not Path(os.devnull).is_file()


FULL_DISK = """
import resource, signal, sys
from circuit_tracer_cli.errors import OutputError
from tests.graph.builders import random_graph
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
graph = random_graph(n_layers=4, n_features=8, density=1.0)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for path in sys.argv[1:]:
    try:
        graph.save(path)
    except OutputError as error:
        print(error.message)
"""


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_full_disk_leaves_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    paths = [str(tmp_path / f"graph.{suffix}") for suffix in ("safetensors", "pt")]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *paths],
        capture_output=True,
        text=True,
        check=True,
        cwd=request.config.rootpath,
    )
    messages = done.stdout.splitlines()
    assert [message.split(": ")[0] for message in messages] == [f"can't write {path}" for path in paths]
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from circuit_tracer_cli.files import atomic
if sys.argv[2] == "named":
    atomic._open_unnamed = lambda target: None
with atomic.atomic_writer(sys.argv[1]) as stream:
    stream.write(b"half")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_writer(path: Path, way: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), way], capture_output=True)
    assert done.returncode == -9


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs files without a name")
def test_a_killed_writer_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    killed_writer(tmp_path / "file", "unnamed")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"old")]


def test_without_unnamed_files_the_next_writer_removes_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    killed_writer(path, "named")
    killed_writer(tmp_path / "other", "named")
    assert len(left := list(tmp_path.iterdir())) == 2
    monkeypatch.setattr("circuit_tracer_cli.files.atomic._open_unnamed", lambda target: None)
    with atomic_writer(path) as stream:
        stream.write(b"slow")
        write_bytes(path, b"quick")  # must not sweep what a living writer has open
    assert path.read_bytes() == b"slow"
    assert {entry.name for entry in tmp_path.iterdir()} == {"file"} | {
        entry.name for entry in left if entry.name.startswith(".other.")
    }


def test_a_disk_that_cannot_name_an_unnamed_file_gets_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(95, "Operation not supported")

    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file").chmod(0o640)
    monkeypatch.setattr(os, "link", refuse)
    write_bytes(tmp_path / "file", b"new content")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"new content")]
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
