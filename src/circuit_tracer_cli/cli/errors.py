"""Turn an exception into what the user reads and the exit code. Only the outermost call catches everything, and only here."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from types import FrameType

from circuit_tracer_cli.cli.streams import silence_stdout
from circuit_tracer_cli.errors import CircuitTracerError, MissingFile, OutOfMemory, OutputError

DONE, FAILED, WRONG_USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


class Terminated(BaseException):
    """Raised on SIGTERM or SIGHUP. Like KeyboardInterrupt, it isn't caught by `except Exception`."""


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated


def install_signal_handlers() -> None:
    """Make SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that temporary files are removed. nohup keeps ignoring it."""
    signal.signal(signal.SIGTERM, _terminate)
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) == signal.SIG_DFL:
        signal.signal(hangup, _terminate)


def report(error: BaseException) -> int:
    """Print what went wrong on stderr, as `error: …` and `hint: …`, and return the exit code."""
    if os.environ.get("CIRCUIT_TRACER_DEBUG") == "1" and not _is_closed_pipe(error):
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt | Terminated):
        _say("interrupted", None, prefix="")
        return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    if _is_closed_pipe(error):
        silence_stdout()
        return DONE
    known = error if isinstance(error, CircuitTracerError) else _translated(error)
    if isinstance(known, MissingFile | OutputError) and not _has_folder():
        known = _folder_is_gone()
    if known is None:
        message = f"internal error: {type(error).__name__}: {_one_line(str(error))}"
        _say(message, "set CIRCUIT_TRACER_DEBUG=1 for the traceback, and report it with your command line")
        return FAILED
    _say(known.message, known.hint)
    return known.exit_code


def report_usage(message: str, command: str) -> int:
    """Print what is wrong with a command line, in the parser's words, and which help to read."""
    text = (
        message.removesuffix(".")
        .replace(": Value error, ", ": ")
        .replace(": Input should be", ": it should be")
    )
    text = text[:1].lower() + text[1:]
    _say(text, f"{command} --help")
    return WRONG_USAGE


def _translated(error: BaseException) -> CircuitTracerError | None:
    """Translate what Python and torch raise when the machine runs out of something."""
    names_memory = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    if isinstance(error, MemoryError) or names_memory or type(error).__name__ == "OutOfMemoryError":
        return OutOfMemory(
            "not enough memory for this",
            "try a smaller --max-feature-nodes or --batch-size, --offload cpu, or --lazy-encoder --lazy-decoder",
        )
    if isinstance(error, OSError | ImportError) and "cannot allocate memory" in str(error).lower():
        return OutOfMemory(
            "not enough memory to load the program's libraries",
            "check `ulimit -v` and the free memory",
        )
    if isinstance(error, ImportError) and "failed to map segment" in str(error):
        return OutOfMemory(
            "a library can't be loaded into memory", "raise the address-space limit: ulimit -v unlimited"
        )
    if isinstance(error, FileNotFoundError) and not _has_folder():
        return _folder_is_gone()
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return OutputError("the disk is full", "free some space, or use another folder")
    if isinstance(error, PermissionError) and error.filename:
        return OutputError(
            f"permission denied: {error.filename}", "use another path, or change its permissions"
        )
    return None


def _folder_is_gone() -> MissingFile:
    return MissingFile("the current folder no longer exists", "change to another one, for example cd ~")


def _has_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _is_closed_pipe(error: BaseException) -> bool:
    return isinstance(error, BrokenPipeError)


def _say(message: str, hint: str | None, prefix: str = "error: ") -> None:
    """Print to stderr, unless it is closed."""
    lines = [prefix + _one_line(message)]
    if hint:
        lines.append("hint: " + _one_line(hint))
    try:
        print("\n".join(lines), file=sys.stderr, flush=True)
    except OSError:
        return


def _one_line(text: str) -> str:
    return " ".join(text.split())
