"""The console script, also `python -m circuit_tracer_cli`. It imports almost nothing, so that Ctrl-C is quiet from the start."""

from __future__ import annotations

import os
import sys
import threading


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from circuit_tracer_cli.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    _leave(code)
    sys.exit(code)


def _leave(code: int) -> None:
    """End the process at once if a thread is still inside the model.

    When Python finalizes, it ends such a thread with pthread_exit in the middle of C++ code, which can call `terminate`. So
    the registered exit functions run, and then the process ends without finalizing.
    """
    import atexit
    import contextlib

    if not any(thread.daemon and thread.name == "circuit-tracer-runs" for thread in threading.enumerate()):
        return
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
