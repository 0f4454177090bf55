"""Text from a file, a folder, JSON lines or stdin, one document at a time. Independent of tokens. Imports no torch."""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from circuit_tracer_cli.errors import BadCorpus, MissingFile

Split = Literal["auto", "lines", "paragraphs", "files", "jsonl"]
STDIN = "-"
_TEXT_SUFFIXES = (".txt", ".txt.gz")
_JSON_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson")


@dataclass(frozen=True, slots=True)
class TextSource:
    """Where text comes from and what counts as one document.

    Attributes:
        path: A file, a folder (its text and JSON-lines files by name, including subfolders), or `-`.
        split: `lines`, `paragraphs` (separated by empty lines), `files`, or `jsonl`. With `auto`, JSON lines are recognized
            by suffix, a text file in a folder is one document, and in any other file or stdin each line is one.
        field: The key of the text in JSON lines.
    """

    path: str
    split: Split = "auto"
    field: str = "text"

    def documents(self) -> Iterator[str]:
        """The documents, without the empty ones.

        Raises:
            MissingFile: There is no such file, or it can't be read.
            BadCorpus: It isn't UTF-8 or valid JSON lines, or has no text.
        """
        found = False
        for path in self.files():
            for text in self._documents_of(path):
                if text.strip():
                    found = True
                    yield text
        if not found:
            raise BadCorpus(f"there is no text in {self._name()}")

    def files(self) -> list[Path | None]:
        """The files to read, None for stdin. Raises MissingFile."""
        if self.path == STDIN:
            return [None]
        path = Path(self.path).expanduser()
        if not path.exists():
            raise MissingFile(f"there is no text at {path}", hint="name a file, a folder, or - for stdin")
        if not path.is_dir():
            return [path]
        files = [
            p for p in path.rglob("*") if p.is_file() and p.name.endswith(_TEXT_SUFFIXES + _JSON_SUFFIXES)
        ]
        if not files:
            raise MissingFile(f"there is no .txt or .jsonl file in {path}", hint="name the file itself")
        return list(sorted(files))

    def _documents_of(self, path: Path | None) -> Iterator[str]:
        split = self._split_for(path)
        try:
            with _opened(path) as stream:
                if split == "files":
                    yield stream.read().removesuffix("\n")
                elif split == "jsonl":
                    yield from self._json_lines(stream, path)
                elif split == "paragraphs":
                    yield from _paragraphs(stream)
                else:
                    yield from (line.rstrip("\r\n") for line in stream)
        except UnicodeDecodeError as error:
            raise BadCorpus(f"{self._name(path)} is not UTF-8 text (byte {error.start})") from None
        except (OSError, EOFError) as error:
            raise MissingFile(f"{self._name(path)} can't be read: {error}") from None

    def _split_for(self, path: Path | None) -> Split:
        if self.split != "auto":
            return self.split
        if path is None:
            return "lines"
        if path.name.endswith(_JSON_SUFFIXES):
            return "jsonl"
        return "files" if Path(self.path).expanduser().is_dir() else "lines"

    def _json_lines(self, stream: IO[str], path: Path | None) -> Iterator[str]:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                raise BadCorpus(f"line {number} of {self._name(path)} is not JSON") from None
            text = record.get(self.field) if isinstance(record, dict) else None
            if not isinstance(text, str):
                raise BadCorpus(
                    f"line {number} of {self._name(path)} has no text under {self.field!r}",
                    hint="name the key with --text-field",
                )
            yield text

    def _name(self, path: Path | None = None) -> str:
        return "stdin" if self.path == STDIN else str(path or self.path)


def _opened(path: Path | None) -> IO[str]:
    """Open the text of a file or stdin, without a byte order mark and with CR LF as LF; closing leaves stdin open."""
    if path is None:
        raw = getattr(sys.stdin, "buffer", None)
        return (
            io.StringIO(sys.stdin.read())
            if raw is None
            else open(raw.fileno(), encoding="utf-8-sig", closefd=False)
        )
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _paragraphs(stream: IO[str]) -> Iterator[str]:
    lines: list[str] = []
    for line in stream:
        if line.strip():
            lines.append(line)
        elif lines:
            yield "".join(lines)
            lines = []
    yield "".join(lines)
