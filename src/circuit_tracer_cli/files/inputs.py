"""What is read from outside: only files where files are meant, and never more of them than can be right."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from circuit_tracer_cli.errors import CircuitTracerError, MissingFile
from circuit_tracer_cli.files.capacity import size_in_words

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
        kind = kind_of_file(path)
        if kind != "file":
            raise MissingFile(f"{os.fspath(path)} is a {kind}, not a file")
        return open(path, "rb")
    except OSError as error:
        if isinstance(error, CircuitTracerError):
            raise
        raise unreadable(path, error) from None


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
    text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    return text.replace("\r\n", "\n").removesuffix("\n")


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
