"""Replaces a file in one step: a reader or a crash meets the old content or the new, never a part of it."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from circuit_tracer_cli.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def replace_content(path: Path, content: bytes) -> None:
    """Writes to an existing file. Raises OutputError with the reason; the file is then as it was."""
    if not os.access(path, os.W_OK):
        raise OutputError(f"{path.name} is read-only", "give yourself write permission on the file")
    try:
        _write_and_swap(path, content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"can't save {path.name}: {reason}", "check the folder's free space and permissions"
        ) from error


def _write_and_swap(path: Path, content: bytes) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    handle, name = tempfile.mkstemp(prefix=".saving-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Keeps other servers from saving into the folder meanwhile, where the file system can do that."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
