"""Read graphs and check where they will be written. Destinations are tested before the heavy work; a pipe carries safetensors."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from circuit_tracer_cli.cli.streams import stdout_is_closed
from circuit_tracer_cli.errors import MissingFile, OutputError, UsageError
from circuit_tracer_cli.graph.layout import warn_of_edges_left_out

if TYPE_CHECKING:
    from circuit_tracer_cli.cli.output import Output
    from circuit_tracer_cli.graph.graph import Graph

STREAM = "-"
SUFFIXES = (".safetensors", ".pt")
_MAKE_ONE = "make one with `circuit-tracer attribute -o graph.safetensors`"


def read_graph(argument: str) -> Graph:
    """Return the graph in a file, or on stdin for `-`.

    Raises:
        UsageError: No file is named and stdin is a terminal.
        MissingFile, BadGraphFile: The file doesn't exist, or isn't a graph.
    """
    if argument == STREAM and sys.stdin.isatty():
        raise UsageError("no graph is named or piped in", "name a graph file, or pipe one in")
    path = Path(argument)
    if argument != STREAM and path.is_dir():
        held = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        raise MissingFile(f"{argument} is a folder", f"name a file, such as {held[0]}" if held else _MAKE_ONE)
    if argument != STREAM and not path.exists():
        raise MissingFile(f"graph file {argument} doesn't exist", _MAKE_ONE)
    from circuit_tracer_cli.graph.store import load_graph

    graph = load_graph(sys.stdin.buffer if argument == STREAM else path, streaming=True)
    warn_of_edges_left_out(graph.metadata, "the graph on stdin" if argument == STREAM else argument)
    return graph


def read_rooted(argument: str, root: str | None, output: Output) -> Graph:
    """Return the graph, rooted at the node that `--from` names. Raises what `read_graph` and `Graph.rooted` raise."""
    graph = read_graph(argument)
    if root is None:
        return graph
    if graph.pruning is not None:
        output.note(
            "the graph is pruned, so shares and scores cover only what is left; use the raw graph for full values"
        )
    return graph.rooted(root)


def write_graph(graph: Graph, destination: str) -> None:
    """Write a graph to a file, or as safetensors to stdout for `-`. Raises OutputError."""
    from circuit_tracer_cli.graph.store import save_graph

    if destination != STREAM:
        save_graph(graph, Path(destination))
        return
    stream: BinaryIO = sys.stdout.buffer
    save_graph(graph, stream)
    stream.flush()


def check_graph_destination(destination: str | None) -> None:
    """Refuse a destination for a graph that can't work: unknown suffix, terminal, missing or read-only folder."""
    if destination is None:
        return
    if destination == STREAM:
        if stdout_is_closed():
            raise OutputError("the graph can't be written: stdout is closed", "name a file with -o")
        if sys.stdout.isatty():
            raise UsageError(
                "a graph is binary, and stdout is a terminal",
                "pipe it to a command, or use -o graph.safetensors",
            )
        return
    path = Path(destination)
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"unknown format of {destination}: its suffix is neither .safetensors nor .pt",
            f"-o {path.with_suffix('.safetensors')}",
        )
    if path.is_dir():
        raise OutputError(f"{destination} is a folder", f"-o {path / 'graph.safetensors'}")
    if not path.parent.is_dir():
        raise OutputError(f"folder {path.parent} doesn't exist", f"mkdir -p {path.parent}")
    _try_to_write(path.parent)


def check_directory(directory: str) -> Path:
    """Return the folder for graph files, checked with an empty file. A missing folder isn't made yet. Raises OutputError."""
    path = Path(directory)
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not nearest.is_dir():
        raise OutputError(
            f"{directory} can't be a folder: {nearest} is a file", "name another --graph-file-dir"
        )
    _try_to_write(nearest)
    return path


def _try_to_write(folder: Path) -> None:
    try:
        descriptor, name = tempfile.mkstemp(prefix=".circuit-tracer-", dir=folder)
    except OSError as error:
        raise OutputError(
            f"can't write into folder {folder}: {error.strerror}", "name another folder"
        ) from error
    os.close(descriptor)
    os.unlink(name)


def destination_for_viewer(destination: str) -> Path:
    """Return the path of a graph file for the viewer, tried before the work. Raises UsageError, InvalidValue, OutputError."""
    from circuit_tracer_cli.export.slugs import check_slug

    path = Path(destination)
    if path.suffix != ".json":
        raise UsageError(f"{destination} doesn't end in .json", f"-o {path.with_suffix('.json')}")
    check_slug(path.stem)
    check_directory(str(path.parent))
    return path
