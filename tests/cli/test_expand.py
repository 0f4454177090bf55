"""`expand` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuit_tracer_cli.cli.app import run
from circuit_tracer_cli.graph.store import load_graph
from tests.graph.builders import random_graph

PROMPT = "Fact: the capital of the state containing Dallas is"


def test_a_demo_graph_is_expanded_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "g.safetensors")
    assert run(["attribute", "-p", PROMPT, "--max-feature-nodes", "20", "-q", "-o", path]) == 0
    before = load_graph(path)
    target = before.node_id(before.layout.logit_offset)
    capsys.readouterr()
    assert run(["expand", path, "--inputs-of", target, "--top", "3", "-o", path, "-q", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    after = load_graph(path)
    assert len(record["added"]) == 3
    assert set(after.node_ids()) == {*before.node_ids(), *record["added"]}
    assert [one["node"] for one in record["hidden"]["strongest"]] == sorted(
        record["added"], key=[one["node"] for one in record["hidden"]["strongest"]].index
    )
    assert 0 < record["hidden"]["share"] < 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "nothing to add"),
        (["--add", "1/2@3"], 2, "no output is named"),
        (["--add", "1-2-3", "-o", "x.safetensors"], 2, "isn't layer/feature@position"),
        (["--inputs-of", "9_9_9"], 1, "has no node 9_9_9"),
    ],
)
def test_bad_calls_say_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    path = tmp_path / "g.safetensors"
    random_graph().save(path)
    assert run(["expand", str(path), *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
