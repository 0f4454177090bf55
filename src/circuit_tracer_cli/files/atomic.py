"""Writes files so that a reader sees the old content or the new one, never a half. Knows nothing of what is written.

Where the system has files without a name (Linux), content gets its name only once it is whole, and a killed writer leaves
nothing. Elsewhere it is written to `.NAME.HEX.tmp` beside the target; the next writer of the target removes those whose
writer is gone, which it can tell by a lock that goes with the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from circuit_tracer_cli.errors import CircuitTracerError, OutputError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_UNNAMED_FILES = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS}


def output_error(path: str | os.PathLike[str], error: OSError) -> OutputError:
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
    return OutputError(f"can't write {os.fspath(path)}: {reason}", hints.get(error.errno or 0))


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends well, and vanishes otherwise.

    The content is on the disk before it gets its name. A link stays a link, and permissions of a file that is replaced stay.

    Raises:
        OutputError: The file can't be written (folder missing, no permission, disk full, `path` is a folder).
    """
    named = Path(path)
    target = Path(os.path.realpath(named))
    stream: BinaryIO
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if target.exists() and not target.is_file():  # a device or a named pipe has no half-written state
            with target.open("wb") as stream:
                yield stream
            return
        _sweep(target)
        unnamed = _open_unnamed(target)
        if unnamed is not None:
            with unnamed as stream:
                yield stream
                _finish(stream, target)
                _publish(stream, target)
        else:
            temporary, stream = _open_beside(target)
            try:
                with stream:
                    yield stream
                    _finish(stream, target)
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
    except (CircuitTracerError, BrokenPipeError):
        raise
    except OSError as error:
        raise output_error(named, error) from error


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace the file at `path` by `content`. Raises OutputError."""
    with atomic_writer(path) as stream:
        stream.write(content)


def _finish(stream: BinaryIO, target: Path) -> None:
    """Bring the content to the disk, with the permissions that the target has, if it exists."""
    stream.flush()
    with contextlib.suppress(OSError):
        os.fchmod(stream.fileno(), stat.S_IMODE(target.stat().st_mode))
    os.fsync(stream.fileno())


def _open_unnamed(target: Path) -> BinaryIO | None:
    """A file without a name in the target's folder, or None where the system or the disk has no such files."""
    if not hasattr(os, "O_TMPFILE") or not Path("/proc/self/fd").is_dir():
        return None
    try:
        return os.fdopen(os.open(target.parent, os.O_TMPFILE | os.O_RDWR, 0o666), "wb")
    except OSError as error:
        if error.errno in _NO_UNNAMED_FILES and target.parent.is_dir():
            return None
        raise


def _publish(stream: BinaryIO, target: Path) -> None:
    """Put an unnamed file in the target's place, as a copy where the disk can't give it a name."""
    try:
        _name(stream, target)
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise
        _copy(stream, target)


def _name(stream: BinaryIO, target: Path) -> None:
    """Give an unnamed file the target's name. A name that is taken can only be replaced by way of another one."""
    with contextlib.suppress(FileExistsError):
        return _link(stream, target)
    _lock(stream)
    temporary = _beside(target)
    try:
        _link(stream, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _copy(stream: BinaryIO, target: Path) -> None:
    """Write an unnamed file's content to one with a name, for disks that can't give it one."""
    temporary, copy = _open_beside(target)
    try:
        with copy, open(stream.fileno(), "rb", closefd=False) as content:
            content.seek(0)
            shutil.copyfileobj(content, copy, 1 << 20)
            _finish(copy, target)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _link(stream: BinaryIO, path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:  # with a folder given, Python asks the system to follow the link that /proc shows
        os.link(f"/proc/self/fd/{stream.fileno()}", path, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name[:100]}.{os.urandom(8).hex()}.tmp")


def _open_beside(target: Path) -> tuple[Path, BinaryIO]:
    """A new hidden file in the target's folder, locked as long as it is open."""
    while True:
        temporary = _beside(target)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        stream = os.fdopen(descriptor, "wb")
        _lock(stream)
        with contextlib.suppress(FileNotFoundError):  # another writer swept it before it was locked
            if os.stat(temporary).st_ino == os.fstat(descriptor).st_ino:
                return temporary, stream
        stream.close()


def _lock(stream: BinaryIO) -> None:
    import fcntl

    with contextlib.suppress(OSError):  # a network disk may have no locks
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sweep(target: Path) -> None:
    """Remove what killed writers of this target left beside it."""
    import fcntl

    pattern = re.compile(re.escape(f".{target.name[:100]}.") + r"[0-9a-f]{16}\.tmp")
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for left in [entry.path for entry in entries if pattern.fullmatch(entry.name)]:
            with contextlib.suppress(OSError), open(left, "rb") as stream:
                fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(left)


def _sync_folder(folder: Path) -> None:
    """Bring the file's name to the disk as well."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
