"""Labels that belong to a transcoder set: what a person calls a feature, who and when, for every graph of the set."""

from __future__ import annotations

import getpass
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from circuit_tracer_cli.errors import InvalidType, InvalidValue
from circuit_tracer_cli.export.graph_list import locked_folder
from circuit_tracer_cli.files.atomic import write_bytes
from circuit_tracer_cli.files.locations import data_folder

Source = Literal["user", "imported"]
FORMAT = "circuit-tracer-labels"
_MAX_TEXT, _MAX_LABELS = 2_000, 200_000
_HINT = f'send {{"format": "{FORMAT}", "labels": {{"CODE": {{"text": …}}}}}}, or pairs of code and text'


class SharedLabels:
    """The labels of every set, one file each in a folder. Several servers may write to it.

    Args:
        folder: Made when the first label is kept.
        clock: Seconds since 1970, for tests.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock
        self._lock = threading.Lock()

    def of(self, scan: str) -> dict[str, dict[str, Any]]:
        """The set's labels by Cantor code, each with `text`, `provenance`, `author`, `time_ms`; empty if there are none."""
        try:
            labels = json.loads(self._path(scan).read_bytes())["labels"]
            return {code: label for code, label in labels.items() if isinstance(label["text"], str)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}

    def change(self, scan: str, texts: Mapping[str, str | None]) -> None:
        """Takes what a person has just written; None takes a label away. Raises OutputError."""
        if not texts:
            return
        author = _user_name()
        with self._changing(scan) as labels:
            for code, text in texts.items():
                if text:
                    labels[code] = self._label(text, "user", author)
                else:
                    labels.pop(code, None)

    def take_in(self, scan: str, document: object, *, replace: bool = False) -> tuple[int, int]:
        """Takes an exported file's labels, or pairs. Without `replace`, those that are here stay.

        Returns:
            How many were taken, and how many were left because there is another text here.

        Raises:
            InvalidType, InvalidValue: It is nothing of the kind.
            OutputError: It can't be kept.
        """
        given = _labels_in(document)
        if not given:
            return 0, 0
        with self._changing(scan) as labels:
            others = {
                code: label
                for code, label in given.items()
                if labels.get(code, {}).get("text") != label["text"]
            }
            new = {code: label for code, label in others.items() if replace or code not in labels}
            for code, label in new.items():
                labels[code] = self._label(label["text"], "imported", label.get("author"))
        return len(new), len(others) - len(new)

    def exported(self, scan: str) -> dict[str, Any]:
        """What `take_in` takes."""
        return {"format": FORMAT, "set": scan, "labels": self.of(scan)}

    @contextmanager
    def _changing(self, scan: str) -> Iterator[dict[str, dict[str, Any]]]:
        """The set's labels while nobody else changes them; what they have become is written at once."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._lock, locked_folder(self._folder):
            labels = self.of(scan)
            before = dict(labels)
            yield labels
            if labels != before:
                document = {"format": FORMAT, "set": scan, "labels": labels}
                write_bytes(self._path(scan), json.dumps(document, ensure_ascii=True, indent=1).encode())

    def _label(self, text: str, source: Source, author: str | None) -> dict[str, Any]:
        now = round(self._clock() * 1000)
        return {"text": text, "provenance": source, "author": author, "time_ms": now}

    def _path(self, scan: str) -> Path:
        return self._folder / f"{hashlib.sha256(scan.encode('utf-8', 'replace')).hexdigest()[:24]}.json"


def labels_folder() -> Path:
    """`circuit-tracer/labels` in the user's data folder."""
    return data_folder() / "labels"


def changed_labels(before: object, after: object) -> dict[str, str | None]:
    """What an edit of a graph's `clerps` did, by code: the new text, or None for a label that was taken away."""
    old, new = _pairs(before), _pairs(after)
    written: dict[str, str | None] = {code: text for code, text in new.items() if old.get(code) != text}
    return {**written, **{code: None for code in old if code not in new}}


def _pairs(clerps: object) -> dict[str, str]:
    """`clerps` in any form; what can't be read counts as no label."""
    if isinstance(clerps, str):
        try:
            clerps = json.loads(clerps)
        except (ValueError, RecursionError):
            return {}
    if not isinstance(clerps, list):
        return {}
    pairs = [pair for pair in clerps if isinstance(pair, list) and len(pair) == 2]
    return {
        str(code): text for code, text in pairs if isinstance(text, str) and text and str(code).isdecimal()
    }


def _labels_in(document: object) -> dict[str, dict[str, Any]]:
    if isinstance(document, list):
        return {code: {"text": text} for code, text in _pairs(document).items()}
    labels = document.get("labels") if isinstance(document, dict) else None
    if not isinstance(labels, dict):
        raise InvalidType("these are no labels", _HINT)
    if len(labels) > _MAX_LABELS:
        raise InvalidValue(f"more than {_MAX_LABELS:,} labels", "import them in parts")
    return {code: _checked(code, label) for code, label in labels.items()}


def _checked(code: str, label: object) -> dict[str, Any]:
    given = {"text": label} if isinstance(label, str) else label
    text = given.get("text") if isinstance(given, dict) else None
    if not code.isdecimal() or not isinstance(given, dict) or not isinstance(text, str) or not text:
        raise InvalidType(f"{code[:80]!r} has no label that can be read", _HINT)
    if len(text) > _MAX_TEXT:
        raise InvalidValue(f"the label of {code} is longer than {_MAX_TEXT:,} characters")
    author = given.get("author")
    return {"text": text, "author": author if isinstance(author, str) else None}


def _user_name() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return None
