"""The notebooks in demos/ run from top to bottom on the embedded model, and hold no results."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from circuit_tracer_cli.notebook import GraphView

DEMOS = Path(__file__).resolve().parents[2] / "demos"
NOTEBOOKS = sorted(DEMOS.glob("*.ipynb"))
EXPECTED = {"attribute", "interventions", "targets", "two_hop"}


def code_of(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Runs a cell as a notebook does; the value of a last expression is shown and returned."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
    if hasattr(value, "_repr_html_"):
        assert "<" in value._repr_html_()
    return value


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    """The notebook's variables; what it still shows is stopped afterwards."""
    found: dict[str, Any] = {"__name__": "__main__"}
    yield found
    for value in found.values():
        if isinstance(value, GraphView):
            value.stop()


def test_the_notebooks_are_there() -> None:
    assert {path.stem for path in NOTEBOOKS} == EXPECTED


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_in_order(path: Path) -> None:
    book = json.loads(path.read_text(encoding="utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    cells = book["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert (code[0]["id"], code[0]["metadata"]["tags"]) == ("model", ["parameters"])
    # One cell names model and transcoders, and nothing else depends on which.
    assert [source for source in code_of(path) if '"demo"' in source] == [code_of(path)[0]]
    assert "gemma" in code_of(path)[0]
    assert "llama" in code_of(path)[0]


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(
    path: Path,
    names: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(DEMOS)  # as Jupyter does
    for source in code_of(path):
        run_cell(source, names)
    shown = capsys.readouterr().out
    check = {
        "attribute": lambda: "completeness" in shown,
        "targets": lambda: names["measured"]["100 strongest off"] != names["measured"]["unchanged"],
        "interventions": lambda: "direct effects agree: True" in shown,
        "two_hop": lambda: answer(names, "before") == " Austin" != answer(names, "swapped"),
    }[path.stem]
    assert check()


def answer(names: dict[str, Any], logits: str) -> str:
    text: str = names["model"].tokenizer.decode([int(names[logits][0, -1].argmax())])
    return text
