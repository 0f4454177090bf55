"""Documentation is checked like code: every command is there, every command line shown would be understood."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

import circuit_tracer_cli
from circuit_tracer_cli.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
TREE = typer.main.get_command(app)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    inner = getattr(command, "commands", {})
    if not inner:
        yield path, command
    for name, child in inner.items():
        yield from commands(child, (*path, name))


def writer() -> ModuleType:
    """scripts/write_cli_docs.py."""
    spec = importlib.util.spec_from_file_location("write_cli_docs", ROOT / "scripts" / "write_cli_docs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written_page() -> str:
    return str(writer().page())


def test_the_command_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == written_page(), "run `make docs`"


def test_the_viewers_terms_are_those_of_the_glossary() -> None:
    module = writer()
    assert module.TERMS.read_text(encoding="utf-8") == module.terms(), "run `make docs`"
    assert '["supernode", ' in module.terms()


def test_every_command_and_option_has_help_that_fits_a_terminal() -> None:
    page = written_page()
    helps = page[page.index("## circuit-tracer") :]
    assert max(map(len, helps.splitlines())) <= 80
    for path, command in commands(TREE):
        assert command.hidden or f"## circuit-tracer {' '.join(path)}" in page
        for parameter in command.params:
            assert parameter.help, f"{path}: {parameter.name} has no help"


def shown_command_lines() -> list[tuple[Path, str]]:
    """Each use of the program in a code block of a page, one per pipe segment."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            joined = block.replace("\\\n", " ")
            for line in joined.splitlines():
                for segment in re.split(r"\s\|\s", line.split("  #")[0]):
                    if segment.strip().startswith("circuit-tracer"):
                        found.append((page, segment.strip()))
    return found


@pytest.mark.parametrize(
    ("page", "line"), shown_command_lines(), ids=lambda value: getattr(value, "name", value)
)
def test_a_shown_command_line_is_understood(page: Path, line: str) -> None:
    words = shlex.split(line)[1:]
    command: Any = TREE
    settings = app.info.context_settings or {}
    while getattr(command, "commands", None) and words:
        assert words[0] in command.commands, f"{page.name}: no command {words[0]}"
        command = command.commands[words.pop(0)]
    if words:
        with command.make_context(line, words, **settings) as context:
            assert context.params


def test_the_readme_names_every_command() -> None:
    text = " ".join(
        page.read_text(encoding="utf-8") for page in PAGES if page.name in {"README.md", "cli.md"}
    )
    for path, command in commands(TREE):
        assert command.hidden or f"circuit-tracer {' '.join(path)}" in text


def test_the_readme_shows_every_folder() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    package = ROOT / "src" / "circuit_tracer_cli"
    folders = [path for path in package.iterdir() if path.is_dir() and any(path.glob("*.py"))]
    for folder in folders:
        assert f"    {folder.name}/" in readme, folder.name
    for module in package.glob("[!_]*.py"):
        assert re.search(rf"^    (\w+\.py )?{module.name} ", readme, re.MULTILINE), module.name


def test_the_readme_lists_every_page_of_the_documentation() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.search(r"^docs/ (.*?)^(?=\S)", readme, re.MULTILINE | re.DOTALL)
    assert listed
    there = {page.name for page in (ROOT / "docs").glob("*.md")}
    there |= {f"{folder.name}/" for folder in (ROOT / "docs").iterdir() if folder.is_dir()}
    assert set(re.split(r"[,\s]+", listed[1].strip())) == there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_hold(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_changelog_begins_with_this_version() -> None:
    found = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    assert found[1] == circuit_tracer_cli.__version__


def test_every_make_target_is_described() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    described = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))
    assert set(phony[1].split()) == described
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", pages, re.MULTILINE)) <= described


def test_no_page_knows_this_machine() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(?:root|home|work|tmp)/", page.read_text(encoding="utf-8")), (
            page.name
        )
