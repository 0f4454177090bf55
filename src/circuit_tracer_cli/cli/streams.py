"""The three standard streams, made fit for whatever they lead to: a terminal, a pipe, nothing."""

from __future__ import annotations

import io
import os
import sys

_closed: set[str] = set()


def stdout_is_closed() -> bool:
    """True if the caller closed stdout (`>&-`), so that no result can be written to it."""
    return "stdout" in _closed


def prepare_streams() -> None:
    """Open those that the caller closed, and let none fail on a character that it can't write."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by `>&-`; else the next file opened would get its number
            _closed.add(name)
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # an arrow in an ASCII terminal is no reason to fail


def silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush into a closed pipe can't complain."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
