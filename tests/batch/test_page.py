"""What docs/batch.md shows is run: the whole way from prompts to a claim, and every query."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from circuit_tracer_cli.cli.app import run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "batch.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
HERE = ["--engine", "slurm", "--cluster", "debug"]  # in this process, which has the libraries loaded


def follow(cities: int) -> None:
    """Run all Python and shell blocks of the page in the current folder, with so many cities, then every query."""
    from circuit_tracer_cli import tables

    for language, text in BLOCKS:
        if language == "python":
            exec(compile(text.replace("[:50]", f"[:{cities}]"), str(PAGE), "exec"), {})
        elif language == "bash":
            for line in text.strip().splitlines():
                words = shlex.split(line)[1:]
                assert run([*words, *(HERE if words[0] == "batch" else [])]) == 0, line
    queries = [text for language, text in BLOCKS if language == "sql"]
    assert len(queries) == 10
    with tables("cities") as connection:
        for sql in queries:
            assert connection.execute(sql).fetchall(), sql


def test_the_page_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("duckdb")
    pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    follow(2)


@pytest.mark.long
def test_the_claims_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("duckdb")
    pytest.importorskip("submitit")
    from circuit_tracer_cli import tables

    monkeypatch.chdir(tmp_path)
    follow(50)
    assert "nodes        15: 12 in all graphs" in capsys.readouterr().out
    with tables("cities") as connection:
        rows = connection.execute(
            "select layer, feature, count(distinct graph) from nodes where kind = 'feature' and kept group by all"
        ).fetchall()
    count = {(layer, feature): n for layer, feature, n in rows}
    common = {(0, 681): 50, (0, 739): 50, (1, 119): 43, (1, 227): 35}
    assert {feature: n for feature, n in count.items() if n > 11} == common
