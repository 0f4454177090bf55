"""Text from every kind of source, one document at a time."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from circuit_tracer_cli.errors import BadCorpus, MissingFile
from circuit_tracer_cli.features.documents import Split, TextSource


def read(path: Path | str, split: Split = "auto", field: str = "text") -> list[str]:
    return list(TextSource(str(path), split, field).documents())


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("auto", ["one", "two", "three"]),
        ("lines", ["one", "two", "three"]),
        ("paragraphs", ["one\ntwo\n", "three"]),
        ("files", ["one\ntwo\n\n  \nthree"]),
    ],
)
def test_a_text_file(tmp_path: Path, split: Split, expected: list[str]) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\n  \nthree")
    assert read(tmp_path / "a.txt", split) == expected


def test_a_folder_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("second\nfile")
    (tmp_path / "a.jsonl").write_text('{"text": "first"}\n\n{"text": "line\\nbreak"}\n')
    (tmp_path / "sub" / "c.txt.gz").write_bytes(gzip.compress(b"third"))
    (tmp_path / "picture.png").write_bytes(b"\xff\xfe")
    assert read(tmp_path) == ["first", "line\nbreak", "second\nfile", "third"]


def test_the_key_of_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"content": "hello", "text": 3}))
    assert read(tmp_path / "a.jsonl", field="content") == ["hello"]
    with pytest.raises(BadCorpus, match=r"line 1 .* no text under 'text'") as caught:
        read(tmp_path / "a.jsonl")
    assert caught.value.hint is not None
    assert "--text-field" in caught.value.hint


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"other": "x"}', '{"text": null}', "[" * 100_000])
def test_lines_that_hold_no_text(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line)
    with pytest.raises(BadCorpus, match="line 2"):
        read(tmp_path / "a.jsonl")


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n\ntwo\n"))
    assert read("-") == ["one", "two"]


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no text at"):
        read(tmp_path / "missing.txt")
    with pytest.raises(MissingFile, match=r"no \.txt or \.jsonl"):
        read(tmp_path)
    (tmp_path / "empty.txt").write_text(" \n\n")
    with pytest.raises(BadCorpus, match="no text in"):
        read(tmp_path / "empty.txt")


def test_files_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine\n\xff\xfe")
    with pytest.raises(BadCorpus, match="not UTF-8"):
        read(tmp_path / "a.txt")
    (tmp_path / "b.txt.gz").write_bytes(b"not compressed")
    with pytest.raises(MissingFile, match="can't be read"):
        read(tmp_path / "b.txt.gz")


def test_documents_are_read_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\n" + b"two\n" * 100_000 + b"\xff")
    assert next(TextSource(str(tmp_path / "a.txt")).documents()) == "one"
