"""Writes files so that a reader sees the old content or the new one, never a half. Knows nothing of what is written."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from circuit_tracer_cli.errors import CircuitTracerError, OutputError


def output_error(path: Path, error: OSError) -> OutputError:
    """The one-line error for a file that can't be written."""
    hints = {
        errno.ENOSPC: "free some space or name a path on another disk",
        errno.EDQUOT: "free some space or name a path on another disk",
        errno.EFBIG: "free some space or name a path on another disk",
        errno.EACCES: "name a path that you may write to",
        errno.EPERM: "name a path that you may write to",
        errno.EROFS: "name a path that you may write to",
        errno.ENOENT: "create the folder first",
        errno.EISDIR: "name a file, not a folder",
    }
    reason = (error.strerror or str(error)).lower()
    return OutputError(f"can't write {path}: {reason}", hints.get(error.errno or 0))


def _open_beside(target: Path) -> tuple[Path, BinaryIO]:
    """A new hidden file in the target's folder, with the permissions that the target has or would get."""
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    with contextlib.suppress(OSError):
        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
    return temporary, os.fdopen(descriptor, "wb")


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends well, and vanishes otherwise.

    Raises:
        OutputError: The file can't be written (folder missing, no permission, disk full, `path` is a folder).
    """
    named = Path(path)
    target = Path(os.path.realpath(named))
    temporary: Path | None = None
    stream: BinaryIO
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if target.exists() and not target.is_file():  # a device or a named pipe has no half-written state
            with target.open("wb") as stream:
                yield stream
            return
        temporary, stream = _open_beside(target)
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
        temporary = None
    except (CircuitTracerError, BrokenPipeError):
        raise
    except OSError as error:
        raise output_error(named, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Replaces the file at `path` by `content`. Raises OutputError."""
    with atomic_writer(path) as stream:
        stream.write(content)
