from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from circuit_tracer_cli.errors import OutputError
from circuit_tracer_cli.files.locks import locked_file

OTHER = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("held")
    else:
        print("free")
"""


def other_process(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", OTHER, str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_lock_keeps_other_processes_out_while_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked_file(path):
        assert other_process(path) == "held"
    assert other_process(path) == "free"


def test_a_lock_in_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no such file"), locked_file(tmp_path / "missing" / "lock"):
        pass
