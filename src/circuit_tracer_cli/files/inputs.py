"""What is read from outside: only files where files are meant, and never more of them than can be right."""

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
"""Bytes of a text that a person or a program wrote: a prompt, a plan, a configuration."""


def kind_of_file(path: str | os.PathLike[str]) -> str:
    """What lies at a path, in words: `file`, `folder`, `device`, `pipe`, `socket`. Raises OSError if nothing does."""
    mode = os.stat(path).st_mode
    kinds = {"folder": stat.S_ISDIR, "pipe": stat.S_ISFIFO, "socket": stat.S_ISSOCK, "file": stat.S_ISREG}
    return next((name for name, test in kinds.items() if test(mode)), "device")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading, and nothing that isn't one: a pipe or a device could block or never end.

    Raises:
        MissingFile: It doesn't exist, may not be read, or is of another kind, which the message names.
    """
    try:
        require_regular(path)
        return open(path, "rb")
    except OSError as error:
        if isinstance(error, CircuitTracerError):
            raise
        raise unreadable(path, error) from None


def require_regular(path: str | os.PathLike[str]) -> None:
    """Raise MissingFile for a pipe, a device or whatever else there is that isn't a file. What doesn't exist passes."""
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
    """Everything that a stream has to say, if it is no more than `limit` bytes. Raises MissingFile if it is more."""
    parts, size = [], 0
    while size <= limit and (part := stream.read(min(1 << 20, limit + 1 - size))):
        parts.append(part)
        size += len(part)
    if size > limit:
        raise MissingFile(
            f"{source} is larger than {size_in_words(limit)}, which is more than can be meant here",
            "check that it is the file or the pipe that you mean",
        )
    return b"".join(parts)


def plain_text(content: bytes) -> str:
    """Text as its writer meant it: UTF-8 without a byte order mark, CR LF as LF, and without one line end at the end.

    What isn't UTF-8 comes back as surrogates, for the caller to refuse by name.
    """
    return without_marks(content.decode("utf-8", "surrogateescape"))


def without_marks(text: str) -> str:
    """Text without what editors and spreadsheets leave in it: a byte order mark, CR LF for LF, one line end at the end."""
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
"""Seconds to wait for a program to open the other end of a named pipe. One that has opened it may take its time."""
_BLOCK = 1 << 20
_SPARE_ROOM = 64 << 20  # bytes that others may need on the disk of temporary files


def open_pipe(path: str | os.PathLike[str], patience: float = PATIENCE) -> tuple[BinaryIO, bytes]:
    """Open a named pipe for reading, and return it with the bytes that were read to find a writer.

    Raises:
        MissingFile: No program opened it for writing within `patience` seconds, or it may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise unreadable(path, error) from None
    stream, deadline = os.fdopen(descriptor, "rb", buffering=0), time.monotonic() + patience
    while True:
        try:
            start = os.read(descriptor, 1)
        except BlockingIOError:  # a writer is there and has written nothing yet
            start = b""
            break
        if start:
            break
        if time.monotonic() >= deadline:
            stream.close()
            raise MissingFile(
                f"{os.fspath(path)} is a pipe that no program writes to (waited {patience:.0f} s)",
                "start the program that writes to it first, or name a file",
            )
        time.sleep(0.05)
    os.set_blocking(descriptor, True)
    return stream, start


class Spool:
    """A stream's content as a file without a name, taken in step by step: what it says at its beginning bounds the rest.

    Nothing is left of the file however the process ends.

    Args:
        stream: Where the bytes come from.
        source: What to call it in messages.
        first: Bytes that were read from it already.
    """

    def __init__(self, stream: BinaryIO, source: str, first: bytes = b"") -> None:
        self._stream, self._source, self._first = stream, source, first
        self.size = 0
        try:
            self.file = tempfile.TemporaryFile(prefix="circuit-tracer-")  # noqa: SIM115
        except OSError as error:
            raise output_error(tempfile.gettempdir(), error) from error

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer only where the stream ends. They are in the file as well."""
        parts, missing = [], count
        while missing and (part := self._next(min(missing, _BLOCK))):
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def readline(self) -> bytes:
        """The bytes up to and including the next line feed."""
        line = bytearray()
        while (byte := self._next(1)) and byte != b"\n":
            line += byte
        return bytes(line + byte)

    def fill(self, size: int) -> bool:
        """Take bytes until the file has `size`. Returns False if the stream ends before. Raises OutputError if it can't fit."""
        room = free_disk(tempfile.gettempdir()) - _SPARE_ROOM
        if size - self.size > room:
            raise OutputError(
                f"{self._source} takes {size_in_words(size)} of temporary space, and "
                f"{size_in_words(max(0, room))} are free in {tempfile.gettempdir()}",
                "set TMPDIR to a folder on another disk, or name a file instead of a pipe",
            )
        while self.size < size and self._next(min(size - self.size, _BLOCK)):
            pass
        return self.size == size

    def take_rest(self, largest: int) -> bool:
        """Take all there is. Returns False, having stopped there, if that is more than `largest` bytes in all."""
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
