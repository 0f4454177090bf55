"""The JSON Schemas of what `--json` prints. `tests/conftest.py` holds every record that a test prints against them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer

from circuit_tracer_cli.cli.app import app, run
from circuit_tracer_cli.cli.schemas import SCHEMAS, schema_of
from tests.graph.builders import random_graph


@functools.cache
def validator(command: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema_of(command))


def problems(command: str, record: Any) -> list[str]:
    """What of a record isn't as its command's schema says; nothing for a command without one."""
    if command not in SCHEMAS:
        return []
    plain = json.loads(json.dumps(record))
    return [
        f"{list(error.absolute_path)}: {error.message[:200]}"
        for error in validator(command).iter_errors(plain)
    ]


def commands_with_json() -> set[str]:
    found, waiting = set(), [("", typer.main.get_command(app))]
    while waiting:
        path, command = waiting.pop()
        waiting += [
            (f"{path} {name}".strip(), inner) for name, inner in getattr(command, "commands", {}).items()
        ]
        if any("--json" in option.opts for option in command.params):
            found.add(path)
    return found


def test_only_commands_with_json_have_a_schema() -> None:
    assert set(SCHEMAS) <= commands_with_json()


@pytest.mark.parametrize("command", SCHEMAS)
def test_every_schema_is_one_and_says_something(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", *command.split()]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema == schema_of(command)
    assert problems(command, 5)
    parts = [part for part in schema.get("$defs", {}).values() if part.get("type") == "object"]
    assert all(part.get("description") and part.get("required") for part in parts)


def test_what_a_schema_demands_is_demanded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "g.safetensors"
    random_graph().save(path)
    assert run(["show", str(path), "--json", "--edges", "2"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert problems("show", record) == []
    assert problems("show", {**record, "another": 1}) == []
    for wrong in (
        {key: value for key, value in record.items() if key != "counts"},
        {**record, "replacement_score": "high"},
        {**record, "targets": [{"token": "a"}]},
        {**record, "strongest_paths": [{**record["strongest_paths"][0], "sign": 2}]},
    ):
        assert problems("show", wrong)


def test_commands_are_listed_and_others_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert capsys.readouterr().out.split("\n")[:-1] == list(SCHEMAS)
    assert run(["schema", "serve"]) == 2
    assert "isn't a command with --json" in capsys.readouterr().err
