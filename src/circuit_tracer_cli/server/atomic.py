"""Exchanges a file's content in one step, so that nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from circuit_tracer_cli.errors import OutputError
from circuit_tracer_cli.graph.atomic import write_bytes


def replace_content(path: Path, content: bytes) -> None:
    """Replaces an existing file in one step, on the disk before this returns. Raises OutputError."""
    if not os.access(path, os.W_OK):
        raise OutputError(f"{path.name} is read-only", "give yourself write permission on the file")
    write_bytes(path, content)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
