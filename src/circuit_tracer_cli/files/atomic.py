"""Writes files so that readers see the old content or the new one, never a partial file.

On systems with unnamed files (Linux), content gets its name only once it is complete, and a killed writer leaves nothing.
Elsewhere it is written to `.NAME.HEX.tmp` next to the target; the next writer of the target removes those whose writer is
gone, detected by a lock that ends with the process.
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
        errno.ENOSPC: "free some space, or use a path on another disk",
        errno.EDQUOT: "free some space, or use a path on another disk",
        errno.EFBIG: "free some space, or use a path on another disk",
        errno.EACCES: "use a path that you can write to",
        errno.EPERM: "use a path that you can write to",
        errno.EROFS: "use a path that you can write to",
        errno.ENOENT: "create the folder first",
        errno.EISDIR: "name a file, not a folder",
    }
    reason = (error.strerror or str(error)).lower()
    return OutputError(f"can't write {os.fspath(path)}: {reason}", hints.get(error.errno or 0))


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yield a binary file that replaces `path` if the block succeeds, and is discarded otherwise.

    The content is on disk before it gets its name. A link stays a link, and a replaced file's permissions are kept.

    Raises:
        OutputError: The file can't be written (folder missing, no permission, disk full, `path` is a folder).
    """
    named = Path(path)
    target = Path(os.path.realpath(named))
    stream: BinaryIO
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if target.exists() and not target.is_file():  # a device or a named pipe has no partial state
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
    """Flush the content to disk, with the target's permissions, if it exists."""
    stream.flush()
    with contextlib.suppress(OSError):
        os.fchmod(stream.fileno(), stat.S_IMODE(target.stat().st_mode))
    os.fsync(stream.fileno())


def _open_unnamed(target: Path) -> BinaryIO | None:
    """An unnamed file in the target's folder, or None if the system or the disk doesn't support that."""
    if not hasattr(os, "O_TMPFILE") or not Path("/proc/self/fd").is_dir():
        return None
    try:
        return os.fdopen(os.open(target.parent, os.O_TMPFILE | os.O_RDWR, 0o666), "wb")
    except OSError as error:
        if error.errno in _NO_UNNAMED_FILES and target.parent.is_dir():
            return None
        raise


def _publish(stream: BinaryIO, target: Path) -> None:
    """Replace the target by an unnamed file, or by a copy if the disk can't name it."""
    try:
        _name(stream, target)
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise
        _copy(stream, target)


def _name(stream: BinaryIO, target: Path) -> None:
    """Give an unnamed file the target's name. An existing name can only be replaced via another one."""
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
    """Write an unnamed file's content to a named file, for disks that can't name it."""
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
    try:  # with a folder given, Python makes the system follow the link in /proc
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
        with contextlib.suppress(FileNotFoundError):  # another writer removed it before it was locked
            if os.stat(temporary).st_ino == os.fstat(descriptor).st_ino:
                return temporary, stream
        stream.close()


def _lock(stream: BinaryIO) -> None:
    import fcntl

    with contextlib.suppress(OSError):  # a network disk may not support locks
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sweep(target: Path) -> None:
    """Remove the temporary files of killed writers of this target."""
    import fcntl

    pattern = re.compile(re.escape(f".{target.name[:100]}.") + r"[0-9a-f]{16}\.tmp")
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for left in [entry.path for entry in entries if pattern.fullmatch(entry.name)]:
            with contextlib.suppress(OSError), open(left, "rb") as stream:
                fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(left)


def _sync_folder(folder: Path) -> None:
    """Flush the file's name to disk as well."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
