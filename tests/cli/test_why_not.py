"""`why-not` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuit_tracer_cli.cli.app import run
from tests.graph.builders import random_graph

PROMPT = "Fact: the capital of the state containing Dallas is"


def test_a_demo_graph_says_why_and_what_would_change_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "g.safetensors")
    targets = ["--target", " Austin", "--target", " Sacramento"]
    assert run(["attribute", "-p", PROMPT, *targets, "-q", "-o", path]) == 0
    capsys.readouterr()
    assert run(["why-not", path, "Sacramento", "--flip", "--json", "-q"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["answer"]["token"], record["other"]["token"]) == (" Austin", " Sacramento")
    total = sum(one["sum"] for one in record["lists"].values()) + record["rest"]
    assert total == pytest.approx(record["difference"])
    assert record["lists"]["both"]["strongest"][0]["path"]
    assert len(record["flip"]["features"]) >= record["flip"]["fewest"]
    assert run(["why-not", path, " Sacramento", "-q"]) == 0
    text = capsys.readouterr().out
    assert 'Holds " Sacramento" down' in text
    assert "The rest is biases." in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 1, "'nowhere' is not a target of the graph; it has ' token0', ' token1'"),
        (["token1", "--answer", "token1"], 1, "both targets are the same"),
        ([], 2, "missing argument 'TOKEN'"),
        (["token1", "--top", "0"], 2, "--top"),
    ],
)
def test_bad_calls_say_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    path = tmp_path / "g.safetensors"
    random_graph().save(path)
    assert run(["why-not", str(path), *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
