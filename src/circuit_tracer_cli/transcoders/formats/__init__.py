"""Layouts of transcoder sets. One file each, found by the set's content."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from circuit_tracer_cli.errors import BadTranscoders, UnknownFormat
from circuit_tracer_cli.transcoders.formats.base import Format, SetSource

FORMATS = {
    "standard-plt": "circuit_tracer_cli.transcoders.formats.standard_plt",
    "standard-clt": "circuit_tracer_cli.transcoders.formats.standard_clt",
    "gemma-scope": "circuit_tracer_cli.transcoders.formats.gemma_scope",
    "gemma-scope-2-plt": "circuit_tracer_cli.transcoders.formats.gemma_scope_2_plt",
    "gemma-scope-2-clt": "circuit_tracer_cli.transcoders.formats.gemma_scope_2_clt",
    "saelens": "circuit_tracer_cli.transcoders.formats.saelens",
    "sparsify": "circuit_tracer_cli.transcoders.formats.sparsify",
}


def recognise(source: SetSource) -> tuple[str, Format]:
    """The name and loader of a set's layout.

    Raises:
        UnknownFormat: No loader knows the files.
        BadTranscoders: More than one does.
    """
    found = []
    for name, module in FORMATS.items():
        loader = cast("Format", importlib.import_module(module))
        if loader.matches(source):
            found.append((name, loader))
    if not found:
        raise UnknownFormat(f"no loader knows the files in {source.folder} ({_some_files(source.folder)})")
    if len(found) > 1:
        names = " and ".join(name for name, _ in found)
        raise BadTranscoders(f"{source.folder} holds files of more than one layout: {names}")
    return found[0]


def _some_files(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if entry.name != "config.yaml")
    if not names:
        return "it is empty"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
