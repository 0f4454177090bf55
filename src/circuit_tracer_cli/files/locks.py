"""Locks between processes, by a file next to what they guard."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from circuit_tracer_cli.files.atomic import output_error


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Hold the lock file at `path` while the block runs; waits for other holders. Raises OutputError.

    The system releases the lock with its process, however that ends.
    """
    from filelock import FileLock

    if not path.parent.is_dir():  # filelock would create it
        raise output_error(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
    lock = FileLock(path, mode=0o666)
    try:
        lock.acquire()
    except OSError as error:
        raise output_error(path, error) from error
    try:
        yield
    finally:
        lock.release()
