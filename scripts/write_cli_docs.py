"""Writes docs/cli.md from the program's own help, at 80 columns, and the viewer's terms from docs/glossary.md.

`make docs` runs it; tests/test_docs.py compares.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from circuit_tracer_cli.cli.app import PROGRAM, app

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cli.md"
TERMS = ROOT / "frontend_static" / "src" / "glossary.js"

HEAD = """# The command line

This page is made from the program's help by `make docs`; don't edit it. [glossary.md](glossary.md) explains the terms.

Every long option may be typed with hyphens or underscores (`--graph-file-dir`, `--graph_file_dir`).

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | it couldn't be done: a file is missing, model and transcoders don't match, the disk is full |
| 2 | the command line is wrong |
| 3 | `batch`: some prompts failed; the graphs of the others are there |
| 130, 143 | interrupted: 130 by Ctrl-C, 143 by SIGTERM or SIGHUP; nothing half-written is left |

Results go to stdout, everything else to stderr. An error is one line, `error: …`, and often a second, `hint: …`; with
`CIRCUIT_TRACER_DEBUG=1` the traceback comes before them. A graph argument that is `-` or left out is read from stdin, `-o -`
writes the graph to stdout:

```sh
circuit-tracer attribute -p "…" -o - | circuit-tracer prune -o - | circuit-tracer export --slug dallas
```
"""


def page() -> str:
    """The whole page."""
    os.environ["COLUMNS"] = "80"
    group = typer.main.get_command(app)
    settings = dict(app.info.context_settings or {})
    return "\n".join([HEAD, *_sections(group, PROGRAM, settings)])


def _sections(command: Any, path: str, settings: dict[str, Any]) -> Iterator[str]:
    """Heading and help of a command, then of its own commands."""
    yield f"## {path}\n"
    yield _block(command.make_context(path, [], resilient_parsing=True, **settings))
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from _sections(inner, f"{path} {name}", settings)


def _block(context: typer.Context) -> str:
    lines = [line.rstrip() for line in context.get_help().strip().splitlines()]
    return "\n".join(["```text", *lines, "```", ""])


def terms() -> str:
    """The viewer's module of terms, from the table in docs/glossary.md."""
    table = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    entries = [json.dumps([re.sub("[`*]", "", cell) for cell in row], ensure_ascii=False) for row in rows[1:]]
    head = (
        "/* What the program's words mean. Made from docs/glossary.md by `make docs`; don't edit it. */\n\n"
    )
    return head + "export const TERMS = [\n" + "".join(f"  {entry},\n" for entry in entries) + "];\n"


if __name__ == "__main__":
    TERMS.write_text(terms(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}", file=sys.stderr)
