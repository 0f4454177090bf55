"""`report`: what a graph says, as a document."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path

import pytest

from circuit_tracer_cli.cli.app import run
from circuit_tracer_cli.export.document import Document, Facts, Note, Section, Table
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.types import LogitTarget
from tests.graph.builders import random_graph

HOSTILE = "</td><script>alert(1)</script>|`*_[x](javascript:y) https://evil.example & \x1b[31m\ud800\n# h"


def hostile_graph(path: Path) -> Graph:
    """A graph whose every text wants to be something else."""
    graph = random_graph(seed=3, n_layers=2, n_pos=3, n_features=3, n_logits=2)
    graph.input_string = HOSTILE.replace("\ud800", "")
    graph.logit_targets = [LogitTarget(HOSTILE, 20), LogitTarget("", 21)]
    edge = (int(graph.edges.row(graph.layout.logit_offset)[0][0]), graph.layout.logit_offset)
    graph.metadata |= {
        "prompt_tokens": [HOSTILE] * 3,
        "command": f"circuit-tracer attribute -m /secret/folder/model -p {HOSTILE!r}",
        "model": "/secret/folder/model",
        "create_time_ms": 0,
        "backend": HOSTILE,
        "settings": {HOSTILE: HOSTILE},
        "grouping": {
            "groups": [{"name": HOSTILE, "nodes": [graph.node_id(0), HOSTILE], "numbers": {"influence": 0.5}}]
        },
        "heads": {"links": [[*edge, [[1, 2, 0, 0.25]], 0.5]]},
        "validation": {
            "date": HOSTILE,
            "checks": [{"label": HOSTILE, "value": 1, "verdict": "pass", "detail": HOSTILE}],
        },
    }
    graph.save(path)
    return graph


class Tags(html.parser.HTMLParser):
    """All tags and attributes of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def path(tmp_path: Path) -> str:
    hostile_graph(tmp_path / "g.safetensors")
    return str(tmp_path / "g.safetensors")


def test_a_page_shows_every_text_as_it_is(path: str, tmp_path: Path) -> None:
    assert run(["report", path, "-o", str(tmp_path / "r.html"), "-q"]) == 0
    page = (tmp_path / "r.html").read_text()
    found = Tags()
    found.feed(page)
    assert not found.tags & {"script", "a", "img", "link", "iframe"}
    assert not any(name.startswith("on") or name in ("href", "src") for name in found.attributes)
    assert found.text.count("<script>alert(1)</script>") > 8
    assert "\x1b" not in page
    assert "/secret" not in page
    for part in (
        "Strongest paths",
        "Strongest edges",
        "Groups",
        "Attention heads",
        "Validation",
        "How it was made",
    ):
        assert part in found.text
    assert "L1H2@0 0.250" in found.text
    assert "svg" in found.tags


def test_markdown_shows_every_text_as_it_is(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", path]) == 0
    text = capsys.readouterr().out
    assert "<" not in text
    assert "https://" not in text
    assert "](" not in text
    assert "\x1b" not in text
    rows = [line for line in text.splitlines() if line.startswith("|") and "alert" in line]
    assert rows
    assert not any("`" in line.replace("\\`", "") for line in rows)
    assert "1970-01-01 00:00 UTC" in text


def test_markdown_cells_keep_their_columns() -> None:
    table = Table(("a|b", "n#"), [("x|y", "1"), ("line\nbreak", "2")])
    text = Document("t", [Section("s", [table, Facts([("k", "*v*")]), Note("- not a list")])]).to_markdown()
    assert "| a\\|b | n |\n| --- | ---: |\n| x\\|y | 1 |\n| line break | 2 |" in text
    assert "- **k:** \\*v\\*" in text
    assert "&#8203;- not a list" in text


def test_json_holds_what_the_document_says(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", path, "--json", "--top", "3"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert len(record["strongest_nodes"]) == len(record["strongest_edges"]) == 3
    assert record["groups"][0]["name"] == HOSTILE
    assert record["heads"][0]["heads"] == [{"layer": 1, "head": 2, "position": 0, "value": 0.25}]
    assert record["validation"]["checks"]
    assert record["model"] == "model"
    assert "/secret" not in json.dumps(record)


def test_a_bare_graph_has_a_report_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = random_graph(seed=3, metadata={}, density=0.9)
    path = str(tmp_path / "g.pt")
    graph.prune().save(path)
    assert run(["report", path, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["groups"], record["heads"], record["validation"]) == (None, None, None)
    node = graph.node_id(int(graph.prune().pruning.node_mask[:12].nonzero()[-1]))  # type: ignore[union-attr]
    assert run(["report", path, "--from", node, "-q"]) == 0
    assert "## Targets" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "r.pdf"], 2, "neither .html nor .md"),
        (["-o", "nowhere/r.html"], 1, "doesn't exist"),
        (["-o", "r.md", "--json"], 2, "omit one of them"),
        (["--from", "E_5_0"], 1, "has no inputs to explain"),
    ],
)
def test_bad_calls_say_what_is_wrong(
    path: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert run(["report", path, *arguments]) == code
    assert message in capsys.readouterr().err
