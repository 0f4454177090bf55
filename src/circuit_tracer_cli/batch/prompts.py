"""The prompts of a batch: a text, CSV or JSONL file, filled templates, and the tokens of each part of a template."""

from __future__ import annotations

import csv
import io
import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import BadPromptFile, UsageError
from circuit_tracer_cli.export.slugs import check_slug, invent_slug
from circuit_tracer_cli.files.inputs import plain_text, read_file
from circuit_tracer_cli.many.align import SLOTS_KEY
from circuit_tracer_cli.many.prompts import GRAPH

LARGEST_FILE = 1 << 30
KNOWN = ("prompt", "slug", "targets", "target", "group", "template")
RESERVED = (GRAPH, SLOTS_KEY, "n_tokens")
"""Columns that a batch writes itself."""


@dataclass(frozen=True, slots=True)
class BatchPrompt:
    """One line of a prompt file.

    Attributes:
        prompt: The text to trace.
        slug: Name of its graph in the viewer.
        targets: What to explain; empty for the command's targets, by default the most likely tokens.
        group: Name of a group of prompts to compare.
        template: The text with `{names}` that the prompt was made from.
        columns: All other columns of the line; they fill the template.
    """

    prompt: str
    slug: str
    targets: tuple[str, ...] = ()
    group: str | None = None
    template: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return plain values, without empty ones."""
        values = {
            "prompt": self.prompt,
            "slug": self.slug,
            "targets": list(self.targets),
            "group": self.group,
            "template": self.template,
            **self.columns,
        }
        return {name: value for name, value in values.items() if value not in (None, [])}


def read_prompts(path: Path) -> list[BatchPrompt]:
    """Read the prompts of a file, by suffix: `.jsonl`, `.csv`, or text with one prompt per line.

    Raises:
        MissingFile: It can't be read.
        BadPromptFile: A line isn't a prompt; the message names it.
    """
    text = plain_text(read_file(path, LARGEST_FILE))
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadPromptFile(f"{path} isn't UTF-8 text", "convert it, for example with iconv -t utf-8")
    rows = {".jsonl": _jsonl, ".csv": _csv}.get(path.suffix.lower(), _lines)(text, path)
    found, taken = [], set[str]()
    for number, row in rows:
        found.append(_prompt(row, f"line {number} of {path}", taken))
    if not found:
        raise BadPromptFile(f"{path} has no prompts", "write one prompt per line")
    return found


def _lines(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, {"prompt": line}


def _jsonl(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadPromptFile(f"line {number} of {path} isn't JSON") from error
        if not isinstance(row, dict):
            raise BadPromptFile(f"line {number} of {path} isn't a JSON object", 'write {"prompt": "…"}')
        yield number, row


def _csv(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise BadPromptFile(
                    f"line {reader.line_num} of {path} has a different number of cells than the first line"
                )
            yield reader.line_num, {name: value for name, value in row.items() if value != ""}
    except csv.Error as error:
        raise BadPromptFile(f"line {reader.line_num} of {path} isn't CSV: {error}") from error


def _prompt(row: dict[str, Any], where: str, taken: set[str]) -> BatchPrompt:
    """A line's prompt, with a unique slug. Raises BadPromptFile."""
    if taken_names := sorted({*row} & {*RESERVED}):
        raise BadPromptFile(
            f"{where} has a column {taken_names[0]!r}, a name that batch itself uses", "rename the column"
        )
    template = row.get("template")
    if template is not None and not isinstance(template, str):
        raise BadPromptFile(f"{where} has a template that isn't text")
    prompt = row.get("prompt")
    if template is not None:
        filled = "".join(text for text, _ in template_pieces(template, row, where))
        if prompt is not None and prompt != filled:
            raise BadPromptFile(
                f"{where} has a prompt that differs from its filled template", "omit one of them"
            )
        prompt = filled
    if not isinstance(prompt, str) or not prompt.strip():
        raise BadPromptFile(f"{where} has no prompt", "name the column prompt, or add a template")
    for name in ("slug", "group"):
        if row.get(name) is not None and not isinstance(row[name], str | int):
            raise BadPromptFile(f"{where} has a {name} that isn't text")
    given = row.get("slug")
    slug = base = invent_slug(prompt) if given is None else str(given)
    try:
        check_slug(slug)
    except UsageError as error:
        raise BadPromptFile(f"{where}: {error.message}", error.hint) from error
    number = 2
    while slug in taken:
        slug, number = f"{base}-{number}", number + 1
    taken.add(slug)
    return BatchPrompt(
        prompt=prompt,
        slug=slug,
        targets=_targets(row.get("targets", row.get("target")), where),
        group=None if row.get("group") is None else str(row["group"]),
        template=template,
        columns={str(name): value for name, value in row.items() if name not in KNOWN},
    )


def _targets(value: Any, where: str) -> tuple[str, ...]:
    """Read a list of texts, one text, or (in CSV) a JSON list."""
    if value is None:
        return ()
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise BadPromptFile(f"{where} has targets that aren't a JSON list") from error
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise BadPromptFile(f"{where} has targets that aren't texts", 'write ["Austin", "id:123"]')
    return tuple(values)


def template_pieces(template: str, row: Mapping[str, Any], where: str) -> list[tuple[str, str | None]]:
    """The pieces of a filled template, each with the name of its slot, None for fixed text. Raises BadPromptFile."""
    pieces: list[tuple[str, str | None]] = []
    try:
        for literal, name, spec, conversion in string.Formatter().parse(template):
            if literal:
                pieces.append((literal, None))
            if name is None:
                continue
            if not re.fullmatch(r"\w+", name) or spec or conversion:
                raise BadPromptFile(
                    f"{where} has a template with {{{name}}}", "use {name} with a column's name"
                )
            if not isinstance(row.get(name), str | int | float):
                raise BadPromptFile(f"{where} has no column {name!r} for its template")
            pieces.append((str(row[name]), name))
    except ValueError as error:
        raise BadPromptFile(f"{where} has a malformed template: {error}") from error
    return pieces


def token_slots(prompt: BatchPrompt, tokens: Sequence[str]) -> list[str] | None:
    """The template slot of each prompt token; None without a template, or if tokens don't spell the prompt.

    A token that overlaps a filled-in part belongs to its slot. Fixed text in between has a slot per token, counted from the end
    of the last slot; tokens before the text (such as the first special one) have their own slots.

    Args:
        prompt: The prompt with its template.
        tokens: Texts of all tokens, including special ones.
    """
    if prompt.template is None:
        return None
    pieces = template_pieces(prompt.template, prompt.columns, "the prompt")
    text = "".join(piece for piece, _ in pieces)
    first = next((i for i in range(len(tokens)) if "".join(tokens[i:]) == text), None)
    if first is None:
        return None
    bounds, at = [], 0
    for piece, name in pieces:
        bounds.append((at, at + len(piece), name))
        at += len(piece)
    slots = [f"special {i}" for i in range(first)]
    begin, segment, count = 0, 0, 0
    for token in tokens[first:]:
        end = begin + len(token)
        name = next((n for low, high, n in bounds if n and low < end and begin < high), None)
        if name is not None:
            if slots[-1:] != [name]:
                segment, count = segment + 1, 0
            slots.append(name)
        else:
            slots.append(f"text {segment}.{count}")
            count += 1
        begin = end
    return slots
