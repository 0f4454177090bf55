"""The console script, also `python -m circuit_tracer_cli`. It imports next to nothing, so that Ctrl-C is quiet from the start."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    try:
        from circuit_tracer_cli.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
