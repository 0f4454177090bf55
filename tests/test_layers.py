"""Imports follow the order of docs/architecture.md: a module knows its own package and what lies below it, and nothing else."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import circuit_tracer_cli

PACKAGE = Path(circuit_tracer_cli.__file__).parent
NAME = "circuit_tracer_cli"

_BACK_UP = {
    ("graph/graph.py", "circuit_tracer_cli.export"),
    ("graph/graph.py", "circuit_tracer_cli.export.slugs"),
}
"""`Graph.export` is there for people who have a graph in hand; the import happens when they call it."""

_ROOT = {"errors", "lazy", "types", "files"}
_MODEL = _ROOT | {"demo", "tokens", "backends", "transcoders"}
_WORK = _MODEL | {"graph", "interventions", "replacement"}
_TOP = _WORK | {
    "planning",
    "cache",
    "hub",
    "viewer_files",
    "attribution",
    "attention",
    "expansion",
    "features",
    "validation",
    "export",
    "many",
    "request",
    "prepare",
    "pipeline",
}
ALLOWED = {
    "errors": set(),
    "lazy": set(),
    "types": {"errors"},
    "files": {"errors"},
    "demo": set(),
    "tokens": _ROOT,
    "graph": _ROOT,
    "backends": _ROOT | {"demo", "tokens", "hub"},
    "hub": _ROOT,
    "viewer_files": _ROOT,
    "transcoders": _ROOT | {"tokens", "hub"},
    "cache": _MODEL | {"hub"},
    "interventions": _MODEL,
    "planning": _MODEL,
    "replacement": _MODEL | {"interventions"},
    "attribution": _WORK | {"planning", "features"},
    "attention": _WORK | {"attribution"},
    "expansion": _WORK | {"attribution", "attention"},
    "features": _WORK,
    "validation": _WORK | {"attribution", "attention", "features"},
    "export": _ROOT | {"demo", "tokens", "graph", "features", "viewer_files"},
    "many": _ROOT | {"graph", "export"},
    "request": _ROOT | {"backends"},
    "prepare": _WORK | {"planning", "attribution", "request"},
    "pipeline": _WORK | {"planning", "attribution", "request", "prepare"},
    "batch": _TOP,
    "server": _TOP,
    "notebook": _TOP | {"server"},
    "cli": _TOP | {"batch", "server", "notebook"},
    "__main__": {"cli"},
    "": _TOP | {"lazy", "server", "notebook"},  # for type checkers; `test_imports.py` sees what it loads
}


def package_of(module: str) -> str:
    """The layer that a dotted module name belongs to; a public name of the package belongs where it is defined."""
    first = module.split(".")[1] if "." in module else ""
    return package_of(circuit_tracer_cli._PUBLIC[first]) if first in circuit_tracer_cli._PUBLIC else first


@functools.cache
def import_nodes(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """A file's import statements, late ones included."""
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each of the package's modules that a file imports, late imports included."""
    for node in import_nodes(path):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == NAME else [module]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name == NAME or name.startswith(f"{NAME}."))


def faults(path: Path, root: Path = PACKAGE) -> list[str]:
    """The imports of one file that its layer doesn't allow."""
    own = path.relative_to(root).with_suffix("").parts[0]
    own = "" if own == "__init__" else own
    found = []
    for line, name in imported(path):
        layer = package_of(name)
        if layer in {own, "", "__version__"} or (path.relative_to(root).as_posix(), name) in _BACK_UP:
            continue
        if layer not in ALLOWED[own]:
            found.append(f"{path.relative_to(root)}:{line} imports {name}")
    return found


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_the_package_does_not_import_how_its_demo_was_trained() -> None:
    assert [
        path for path in SOURCES if re.search(r"^\s*(from|import) training\b", path.read_text(), re.M)
    ] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_what_lies_below(path: Path) -> None:
    assert faults(path) == []


def test_the_documented_order_allows_every_import_that_the_layers_allow() -> None:
    page = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    order = re.search(r"^    errors, lazy, types →.*?(?=\n\n)", page, re.MULTILINE | re.DOTALL)
    assert order
    groups = [re.findall(r"\w+", group) for group in order[0].split("→")]
    assert sorted(layer for group in groups for layer in group) == sorted(set(ALLOWED) - {"", "__main__"})
    below: set[str] = set()
    for group in groups:
        for layer in group:
            assert ALLOWED[layer] <= below | set(group), layer
        below |= set(group)


def test_no_relative_imports() -> None:
    relative = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in SOURCES
        for node in import_nodes(path)
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert relative == []


def test_a_wrong_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "graph").mkdir()
    wrong = tmp_path / "graph" / "wrong.py"
    wrong.write_text(f"def late():\n    from {NAME}.backends.base import Backend\n    return Backend\n")
    assert faults(wrong, tmp_path) == [f"graph/wrong.py:2 imports {NAME}.backends.base"]


def test_every_folder_has_its_place() -> None:
    parts = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in SOURCES} - {"__init__"}
    assert parts <= set(ALLOWED)


_DISTRIBUTIONS = {"yaml": "pyyaml", "transformer_lens": "transformer-lens"}
_OPTIONAL = {"duckdb", "gguf", "ray", "submitit", "nnsight", "networkx", "pandas", "IPython"}


def test_every_third_party_import_is_declared() -> None:
    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=~!\[; ]", line)[0] for line in project["dependencies"]}
    used = {
        name.split(".")[0]
        for path in SOURCES
        for node in import_nodes(path)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
    }
    third_party = {name for name in used if name not in sys.stdlib_module_names and name != NAME} - _OPTIONAL
    assert {_DISTRIBUTIONS.get(name, name) for name in third_party} <= declared
    assert declared - {_DISTRIBUTIONS.get(name, name) for name in third_party} <= {"tokenizers"}


_DOORS = {
    "huggingface_hub": {"hub.py", "backends"},
    "httpx2": {"hub.py"},
    "typer": {"cli"},
    "rich": {"cli"},
    "starlette": {"server"},
    "uvicorn": {"server"},
    "pydantic": {"server", "batch", "cli"},
    "transformer_lens": {"backends", "replacement"},
    "nnsight": {"backends"},
    "psutil": {"files"},
    "platformdirs": {"files"},
    "filelock": {"files"},
}


@pytest.mark.parametrize("library", sorted(_DOORS))
def test_third_parties_stay_behind_one_door(library: str) -> None:
    users = set()
    for path in SOURCES:
        for node in import_nodes(path):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            if any(name.split(".")[0] == library for name in names):
                users.add(path.relative_to(PACKAGE).parts[0])
    assert users <= _DOORS[library]
