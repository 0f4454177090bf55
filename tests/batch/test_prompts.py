"""Files of prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit_tracer_cli.batch.prompts import read_prompts, token_slots
from circuit_tracer_cli.errors import CircuitTracerError


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_text_file_has_a_prompt_per_line(tmp_path: Path) -> None:
    path = written(tmp_path, "p.txt", b"\xef\xbb\xbfHello world\r\n\r\n  two spaces\n")
    assert [one.prompt for one in read_prompts(path)] == ["Hello world", "  two spaces"]


def test_jsonl_and_csv_carry_columns(tmp_path: Path) -> None:
    jsonl = written(
        tmp_path, "p.jsonl", '{"prompt": "a b", "targets": ["x"], "group": "g", "year": 3}\n{"prompt": "c"}\n'
    )
    first, second = read_prompts(jsonl)
    assert (first.targets, first.group, dict(first.columns)) == (("x",), "g", {"year": 3})
    assert (second.targets, second.group, dict(second.columns)) == ((), None, {})
    table = written(tmp_path, "p.csv", 'prompt,targets,city\n"a, b","[""x"", ""y""]",Dallas\nc,z,\n')
    first, second = read_prompts(table)
    assert (first.prompt, first.targets, dict(first.columns)) == ("a, b", ("x", "y"), {"city": "Dallas"})
    assert (second.targets, dict(second.columns)) == (("z",), {})


def test_slugs_are_never_shared(tmp_path: Path) -> None:
    path = written(tmp_path, "p.txt", "same\nsame\nsame\n")
    assert len({one.slug for one in read_prompts(path)}) == 3


def test_a_template_is_filled_and_its_tokens_have_slots(tmp_path: Path) -> None:
    line = '{"template": "The city {city} is in", "city": "San Jose"}\n'
    (one,) = read_prompts(written(tmp_path, "p.jsonl", line))
    assert one.prompt == "The city San Jose is in"
    slots = token_slots(one, ["<bos>", "The", " city", " San", " Jose", " is", " in"])
    assert slots == ["special 0", "text 0.0", "text 0.1", "city", "city", "text 1.0", "text 1.1"]
    assert token_slots(one, ["something", "else"]) is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "\n\n", "has no prompts"),
        ("p.txt", b"\xff\xfe", "isn't UTF-8 text"),
        ("p.jsonl", "{\n", "line 1 of .* isn't JSON"),
        ("p.jsonl", "[1]\n", "isn't a JSON object"),
        ("p.jsonl", '{"text": "a"}\n', "has no prompt"),
        ("p.jsonl", '{"prompt": "a", "targets": [1]}\n', "targets that aren't texts"),
        ("p.jsonl", '{"prompt": "a", "slug": "../x"}\n', "line 1 of .*can't name a graph"),
        ("p.jsonl", '{"template": "in {city}"}\n', "no column 'city'"),
        ("p.jsonl", '{"template": "in {city!r}", "city": "a"}\n', "template with"),
        ("p.jsonl", '{"template": "in {", "city": "a"}\n', "malformed template"),
        ("p.csv", "prompt,city\na\n", "a different number of cells"),
    ],
)
def test_a_line_that_is_no_prompt_is_named(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(CircuitTracerError, match=message):
        read_prompts(written(tmp_path, name, content))
