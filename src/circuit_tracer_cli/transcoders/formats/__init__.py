"""Layouts of transcoder sets, recognized by the set's content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from circuit_tracer_cli.errors import BadTranscoders, UnknownFormat
from circuit_tracer_cli.transcoders.formats import cross_layer, per_layer
from circuit_tracer_cli.transcoders.formats.base import Format, SetSource

FORMATS: Mapping[str, Format] = {
    "standard-plt": per_layer.STANDARD,
    "standard-clt": cross_layer.STANDARD,
    "gemma-scope": per_layer.GEMMA_SCOPE,
    "gemma-scope-2-plt": per_layer.GEMMA_SCOPE_2,
    "gemma-scope-2-clt": cross_layer.GEMMA_SCOPE_2,
    "saelens": per_layer.SAELENS,
    "sparsify": per_layer.SPARSIFY,
}


def recognise(source: SetSource) -> tuple[str, Format]:
    """Return the name and loader of a set's layout.

    Raises:
        UnknownFormat: No loader knows the files.
        BadTranscoders: More than one does.
    """
    found = [(name, loader) for name, loader in FORMATS.items() if loader.matches(source)]
    if not found:
        raise UnknownFormat(f"no loader knows the files in {source.folder} ({_some_files(source.folder)})")
    if len(found) > 1:
        names = " and ".join(name for name, _ in found)
        raise BadTranscoders(f"{source.folder} has files of more than one layout: {names}")
    return found[0]


def _some_files(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if entry.name != "config.yaml")
    if not names:
        return "it is empty"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
