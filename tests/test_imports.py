"""What a fresh interpreter loads: nothing heavy for the package, the help, the server and the reading of graph files."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "transformer_lens", "wandb", "datasets", "pandas")


def loaded_by(*codes: str) -> set[str]:
    """The heavy packages that are loaded after running `codes` one after the other in a new interpreter."""
    tries = "".join(f"try:\n    {code}\nexcept SystemExit:\n    pass\n" for code in codes)
    script = f"import sys\n{tries}print(*sys.modules, file=sys.stderr)"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    return {name for name in HEAVY if name in run.stderr.split()}


def main_with(*arguments: str) -> str:
    """Python that runs a command line."""
    return f"sys.argv = ['circuit-tracer', *{list(arguments)!r}]; from circuit_tracer_cli.__main__ import main; main()"


def test_the_probe_can_fail() -> None:
    assert loaded_by("import json", "import torch") == {"torch"}


LIGHT = [
    "import circuit_tracer_cli",
    "import circuit_tracer_cli.server.app",
    "import circuit_tracer_cli.server.serve",
    "import circuit_tracer_cli.export.records",
    "import circuit_tracer_cli.cli.app",
    main_with("--help"),
    main_with("--version"),
    main_with("attribute", "--help"),
    main_with("serve", "--help"),
    main_with("attribute", "-p", "x"),
    main_with("attribute", "-p", "x", "-o", "graph.unknown"),
    main_with("prune", "missing.pt"),
    main_with("serve", "missing"),
]


def test_loads_nothing_heavy() -> None:
    """One interpreter does all of it; only if that loads something is each asked for itself."""
    if loaded_by(*LIGHT):
        guilty = {code: found for code in LIGHT if (found := loaded_by(code))}
        assert guilty == {}
        pytest.fail("together they load what none of them does alone")


def test_every_public_name_is_there() -> None:
    import circuit_tracer_cli

    assert all(getattr(circuit_tracer_cli, name) is not None for name in circuit_tracer_cli.__all__)


@pytest.mark.parametrize(
    "package", ["circuit_tracer_cli", "circuit_tracer_cli.graph", "circuit_tracer_cli.notebook"]
)
def test_type_checkers_and_the_interpreter_know_the_same_public_names(package: str) -> None:
    import ast
    import importlib
    from pathlib import Path

    module = importlib.import_module(package)
    (block,) = (
        node
        for node in ast.parse(Path(str(module.__file__)).read_text()).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name)
    )
    imported = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == module._PUBLIC


def test_an_unknown_name_is_an_attribute_error() -> None:
    import circuit_tracer_cli

    with pytest.raises(AttributeError, match="no_such_name"):
        _ = circuit_tracer_cli.no_such_name


def seconds(code: str) -> float:
    """Processor time of a new interpreter that runs `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_costs_little_more_than_importing_typer_and_rich() -> None:
    program = f"import sys\ntry:\n    {main_with('--help')}\nexcept SystemExit:\n    pass"
    libraries = "import typer, rich.console, rich.table, rich.progress"
    # The best of several pairs: what else the machine does can only make one of them look worse.
    assert min(seconds(program) / seconds(libraries) for _ in range(4)) <= 2.25
