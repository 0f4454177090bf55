"""Text from outside is read as its writer meant it, whatever wrote its line ends."""

from __future__ import annotations

import pytest

from circuit_tracer_cli.files.inputs import plain_text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a b\n", "a b"),
        (b"a b\r\n", "a b"),
        (b"\xef\xbb\xbfa b", "a b"),
        (b"a\r\nb\n\n", "a\nb\n"),
        (b"a\rb ", "a\rb "),
        (b"", ""),
    ],
)
def test_marks_and_line_ends(content: bytes, text: str) -> None:
    assert plain_text(content) == text


def test_what_is_not_utf8_stays_recognisable() -> None:
    assert plain_text(b"a\xff") == "a\udcff"
