"""Reading external input: only files where files are expected, and never more than a sensible size."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

from circuit_tracer_cli.errors import CircuitTracerError, MissingFile, OutputError
from circuit_tracer_cli.files.atomic import output_error
from circuit_tracer_cli.files.capacity import free_disk, size_in_words

LARGEST_TEXT = 64 << 20
"""Largest size in bytes of a text that a person or a program wrote: a prompt, a plan, a configuration."""


def kind_of_file(path: str | os.PathLike[str]) -> str:
    """The kind of thing at a path: `file`, `folder`, `device`, `pipe`, `socket`. Raises OSError if nothing does."""
    mode = os.stat(path).st_mode
    kinds = {"folder": stat.S_ISDIR, "pipe": stat.S_ISFIFO, "socket": stat.S_ISSOCK, "file": stat.S_ISREG}
    return next((name for name, test in kinds.items() if test(mode)), "device")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading: a pipe or a device could block or never end.

    Raises:
        MissingFile: It doesn't exist, isn't readable, or is of another kind, which the message names.
    """
    try:
        require_regular(path)
        return open(path, "rb")
    except OSError as error:
        if isinstance(error, CircuitTracerError):
            raise
        raise unreadable(path, error) from None


def require_regular(path: str | os.PathLike[str]) -> None:
    """Raise MissingFile for a pipe, a device or anything else that isn't a file. A missing path passes."""
    try:
        kind = kind_of_file(path)
    except OSError:
        return
    if kind != "file":
        raise MissingFile(f"{os.fspath(path)} is a {kind}, not a file")


def read_file(path: str | os.PathLike[str], limit: int = LARGEST_TEXT) -> bytes:
    """The content of a small file. Raises MissingFile, also if it is larger than `limit` bytes."""
    try:
        with open_regular(path) as file:
            return read_limited(file, str(path), limit)
    except OSError as error:
        if isinstance(error, CircuitTracerError):
            raise
        raise unreadable(path, error) from None


def read_limited(stream: BinaryIO, source: str, limit: int = LARGEST_TEXT) -> bytes:
    """Read a stream of up to `limit` bytes. Raises MissingFile if it is longer."""
    parts, size = [], 0
    while size <= limit and (part := stream.read(min(1 << 20, limit + 1 - size))):
        parts.append(part)
        size += len(part)
    if size > limit:
        raise MissingFile(
            f"{source} is larger than the limit of {size_in_words(limit)}",
            "check that it is the right file or pipe",
        )
    return b"".join(parts)


def plain_text(content: bytes) -> str:
    """Decode text: UTF-8 without a byte order mark, CR LF as LF, and without one final line end.

    Invalid UTF-8 becomes surrogates, for the caller to refuse.
    """
    return without_marks(content.decode("utf-8", "surrogateescape"))


def without_marks(text: str) -> str:
    """Text without what editors and spreadsheets add: a byte order mark, CR LF for LF, one final line end."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n")


def unreadable(path: str | os.PathLike[str], error: OSError) -> MissingFile:
    """The one-line error for a file that can't be read."""
    name = os.fspath(path)
    if error.errno == errno.ENOENT:
        return MissingFile(f"{name} doesn't exist", _relative_hint(name))
    hint = "check its permissions" if error.errno == errno.EACCES else None
    return MissingFile(f"{name} can't be read: {(error.strerror or str(error)).lower()}", hint)


def _relative_hint(name: str | bytes) -> str | None:
    """A relative path doesn't exist anywhere if the folder that it starts from is gone."""
    if Path(os.fsdecode(name)).is_absolute():
        return None
    try:
        os.getcwd()
    except OSError:
        return "the folder you are in was deleted; change to another one"
    return None


PATIENCE = 10.0
"""Seconds to wait for a program to open the other end of a named pipe. Once it is open, there is no limit."""
_BLOCK = 1 << 20
_SPARE_ROOM = 64 << 20  # bytes left free for others on the disk of temporary files


def open_pipe(path: str | os.PathLike[str], patience: float = PATIENCE) -> tuple[BinaryIO, bytes]:
    """Open a named pipe for reading, and return it with the bytes that were read to find a writer.

    Raises:
        MissingFile: No program opened it for writing within `patience` seconds, or it isn't readable.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise unreadable(path, error) from None
    stream, deadline = os.fdopen(descriptor, "rb", buffering=0), time.monotonic() + patience
    while True:
        try:
            start = os.read(descriptor, 1)
        except BlockingIOError:  # a writer is connected but hasn't written yet
            start = b""
            break
        if start:
            break
        if time.monotonic() >= deadline:
            stream.close()
            raise MissingFile(
                f"{os.fspath(path)} is a pipe that no program is writing to (waited {patience:.0f} s)",
                "start the program that writes to it first, or name a file",
            )
        time.sleep(0.05)
    os.set_blocking(descriptor, True)
    return stream, start


class Spool:
    """A stream's content copied to an unnamed file step by step, so that its beginning can limit the rest.

    Nothing is left of the file however the process ends.

    Args:
        stream: The source of the bytes.
        source: The file's name in messages.
        first: Bytes that were already read from it.
    """

    def __init__(self, stream: BinaryIO, source: str, first: bytes = b"") -> None:
        self._stream, self._source, self._first = stream, source, first
        self.size = 0
        try:
            self.file = tempfile.TemporaryFile(prefix="circuit-tracer-")  # noqa: SIM115
        except OSError as error:
            raise output_error(tempfile.gettempdir(), error) from error

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer only at the end of the stream. They are also in the file."""
        parts, missing = [], count
        while missing and (part := self._next(min(missing, _BLOCK))):
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def readline(self) -> bytes:
        """Return the bytes up to and including the next line feed."""
        line = bytearray()
        while (byte := self._next(1)) and byte != b"\n":
            line += byte
        return bytes(line + byte)

    def fill(self, size: int) -> bool:
        """Copy bytes until the file has `size`. Returns False if the stream ends earlier. Raises OutputError without room."""
        room = free_disk(tempfile.gettempdir()) - _SPARE_ROOM
        if size - self.size > room:
            raise OutputError(
                f"{self._source} needs {size_in_words(size)} of temporary space, but "
                f"only {size_in_words(max(0, room))} is free in {tempfile.gettempdir()}",
                "set TMPDIR to a folder on another disk, or use a file instead of a pipe",
            )
        while self.size < size and self._next(min(size - self.size, _BLOCK)):
            pass
        return self.size == size

    def take_rest(self, largest: int) -> bool:
        """Copy the rest of the stream. Stops and returns False if that is more than `largest` bytes in all."""
        while self.size <= largest and self._next(min(largest + 1 - self.size, _BLOCK)):
            pass
        return self.size <= largest

    def ends(self) -> bool:
        """True if nothing more comes."""
        return not self._next(1)

    def _next(self, count: int) -> bytes:
        if self._first:
            part, self._first = self._first[:count], self._first[count:]
        else:
            try:
                part = self._stream.read(count) or b""
            except OSError as error:
                raise MissingFile(
                    f"{self._source} can't be read: {(error.strerror or '').lower()}"
                ) from error
        try:
            self.file.write(part)
        except OSError as error:
            raise output_error(tempfile.gettempdir(), error) from error
        self.size += len(part)
        return part
