"""Exchanges a file's content in one step, so that nothing that was acknowledged is lost."""

from __future__ import annotations

import os
from pathlib import Path

from circuit_tracer_cli.errors import OutputError
from circuit_tracer_cli.files.atomic import write_bytes


def replace_content(path: Path, content: bytes) -> None:
    """Replaces an existing file in one step, on the disk before this returns. Raises OutputError."""
    if not os.access(path, os.W_OK):
        raise OutputError(f"{path.name} is read-only", "give yourself write permission on the file")
    write_bytes(path, content)
