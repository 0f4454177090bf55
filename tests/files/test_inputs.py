"""Only files where files are meant, and no more of them than can be right."""

from __future__ import annotations

import io
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from circuit_tracer_cli.errors import MissingFile, OutputError
from circuit_tracer_cli.files.inputs import (
    Spool,
    kind_of_file,
    open_pipe,
    open_regular,
    read_file,
    read_limited,
)


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"content")
    assert read_file(tmp_path / "text") == b"content"
    assert read_file(tmp_path / "text", limit=7) == b"content"
    with pytest.raises(MissingFile, match="larger than the limit of 6 bytes"):
        read_file(tmp_path / "text", limit=6)


def test_every_other_kind_is_refused_by_name_and_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path, kind in (
            (tmp_path, "folder"),
            (tmp_path / "pipe", "pipe"),
            (tmp_path / "socket", "socket"),
            (Path("/dev/zero"), "device"),
        ):
            assert kind_of_file(path) == kind
            with pytest.raises(MissingFile, match=f"is a {kind}, not a file"):
                open_regular(path)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="doesn't exist"):
        open_regular(tmp_path / "nowhere")
    with pytest.raises(MissingFile, match="can't be read: input/output error"):
        read_file("/proc/self/mem")


def test_an_endless_stream_is_read_to_the_limit_alone() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return bytes(size)

    stream = Endless()
    with pytest.raises(MissingFile, match=r"the plan is larger than the limit of 5\.0 MiB"):
        read_limited(stream, "the plan", 5 << 20)  # type: ignore[arg-type]
    assert stream.given == (5 << 20) + 1


def test_a_pipe_without_a_writer_is_given_up_with_a_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MissingFile, match="pipe is a pipe that no program is writing to"):
        open_pipe(tmp_path / "pipe", patience=0.1)


def test_a_pipe_whose_writer_takes_its_time_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb") as stream:
            time.sleep(0.5)
            stream.write(b"content")

    writer = threading.Thread(target=write)
    writer.start()
    stream, first = open_pipe(path, patience=0.3)
    with stream:
        assert first + read_limited(stream, "pipe") == b"content"
    writer.join()


def test_a_spool_keeps_what_it_has_read_and_no_more() -> None:
    spool = Spool(io.BytesIO(b"line\nrest of it"), "stream", first=b"a ")
    with spool.file:
        assert spool.readline() == b"a line\n"
        assert spool.read(4) == b"rest"
        assert spool.fill(13)
        assert not spool.ends()
        assert not spool.fill(100)
        spool.file.seek(0)
        assert spool.file.read() == b"a line\nrest of it"


def test_a_spool_refuses_what_the_disk_has_no_room_for() -> None:
    spool = Spool(io.BytesIO(b"short"), "stream")
    with spool.file, pytest.raises(OutputError, match=r"needs 1024 TiB .* is free"):
        spool.fill(1 << 50)
    assert spool.size == 0
