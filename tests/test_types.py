"""A user's script sees the package's real types, in mypy and in pyright."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import circuit_tracer_cli

PACKAGE = "circuit_tracer_cli"
EXPRESSIONS = {
    'ReplacementModel.from_pretrained("demo", "demo")': "ReplacementModel",
    "attribute('a', model)": "Graph",
    "prune_graph(graph)": "PruneResult",
    'load_graph("graph.safetensors")': "Graph",
    'load_transcoders("demo").transcoders': "Transcoders",
    'serve("graphs").url': "str",
    "model.W_U": "Tensor",
    "model.backend_name": "str",
    'CircuitTracerError("x").hint': "str | None",
}
SCRIPT = """
from circuit_tracer_cli import (
    CircuitTracerError, Graph, ReplacementModel, attribute, load_graph, load_transcoders, prune_graph, serve,
)

def script(model: ReplacementModel, graph: Graph) -> None:
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT + "".join(f"    reveal_type({one})\n" for one in EXPRESSIONS))
    return path


def revealed(*command: str) -> list[str]:
    """The types that a checker reports, their modules left out."""
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    found = re.findall(r"(?:Revealed type is|Type of .* is) \"(.*)\"", done.stdout)
    return [re.sub(r"[\w.]+\.(?=\w)", "", one) for one in found]


SOURCE = str(Path(circuit_tracer_cli.__file__).parents[1])


@pytest.mark.long
def test_pyright_sees_the_real_types(script: Path) -> None:
    (script.parent / "pyrightconfig.json").write_text(f'{{"extraPaths": ["{SOURCE}"]}}')
    found = revealed("basedpyright", "--pythonpath", sys.executable, "--project", str(script.parent))
    assert found == list(EXPRESSIONS.values())


@pytest.mark.long
def test_mypy_sees_the_real_types(
    script: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert request.config.cache is not None
    monkeypatch.setenv("MYPYPATH", SOURCE)
    found = revealed("mypy", "--cache-dir", str(request.config.cache.mkdir("mypy-user")), str(script))
    assert found == list(EXPRESSIONS.values())
