"""From exceptions to lines and exit codes."""

from __future__ import annotations

import errno

import pytest

from circuit_tracer_cli.cli.errors import Terminated, report, report_usage
from circuit_tracer_cli.errors import BadGraphFile, InvalidValue, MissingFile


class OutOfMemoryError(RuntimeError):
    """As torch calls it."""


CASES = {
    "usage": (InvalidValue("bad number", "--n 3"), 2, "error: bad number\nhint: --n 3\n"),
    "no hint": (BadGraphFile("no graph"), 1, "error: no graph\n"),
    "file": (MissingFile("no such file"), 1, "error: no such file\n"),
    "several lines": (BadGraphFile("one\n  two"), 1, "error: one two\n"),
    "interrupt": (KeyboardInterrupt(), 130, "interrupted\n"),
    "terminated": (Terminated(), 143, "interrupted\n"),
    "disk full": (OSError(errno.ENOSPC, "No space left on device"), 1, "error: the disk is full\n"),
    "permission": (
        PermissionError(errno.EACCES, "Permission denied", "x.pt"),
        1,
        "error: permission denied: x.pt\n",
    ),
    "memory": (MemoryError(), 1, "error: not enough memory for this\n"),
    "device memory": (
        OutOfMemoryError("CUDA out of memory"),
        1,
        "error: not enough memory for this\n",
    ),
    "host memory": (
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        1,
        "error: not enough memory",
    ),
    "bug": (
        ZeroDivisionError("division by zero"),
        1,
        "error: internal error: ZeroDivisionError: division by zero\n",
    ),
}


@pytest.mark.parametrize(("error", "code", "words"), CASES.values(), ids=CASES.keys())
def test_reports(error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(error) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(words)
    assert "Traceback" not in err


def test_the_traceback_is_for_debugging(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CIRCUIT_TRACER_DEBUG", "1")
    with pytest.raises(BadGraphFile) as caught:
        raise BadGraphFile("no graph", "another")
    assert report(caught.value) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("error: no graph\nhint: another\n")


def test_usage_is_worded_like_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    code = report_usage(
        "Invalid value for '--n': Value error, 'x' is not one of 'a', 'b'.", "circuit-tracer prune"
    )
    assert code == 2
    expected = (
        "error: invalid value for '--n': 'x' is not one of 'a', 'b'\nhint: circuit-tracer prune --help\n"
    )
    assert capsys.readouterr().err == expected
