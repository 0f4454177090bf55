"""The three standard streams, set up for a terminal, a pipe, or nothing."""

from __future__ import annotations

import io
import os
import sys

_closed: set[str] = set()


def stdout_is_closed() -> bool:
    """True if the caller closed stdout (`>&-`), so that no result can be written to it."""
    return "stdout" in _closed


def prepare_streams() -> None:
    """Open streams that the caller closed, and let none fail on a character that it can't encode."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by `>&-`; the next file opened would get its number
            _closed.add(name)
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an arrow must not fail in an ASCII terminal


def silence_stdout() -> None:
    """Redirect stdout to nothing, so that the interpreter's last flush into a closed pipe doesn't fail."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
