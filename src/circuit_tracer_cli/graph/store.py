"""Graph files: `.safetensors` (dense or sparse, memory-mapped) and `.pt`, recognized by content, written atomically."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch

from circuit_tracer_cli.errors import (
    BadGraphFile,
    CircuitTracerError,
    InvalidValue,
    MissingFile,
    OutOfMemory,
    UsageError,
)
from circuit_tracer_cli.files.atomic import atomic_writer
from circuit_tracer_cli.files.inputs import Spool, kind_of_file, open_pipe, open_regular, unreadable
from circuit_tracer_cli.files.scratch import nothing, released
from circuit_tracer_cli.files.tensors import (
    looks_like_tensors,
    parse_header,
    read_header,
    shared_tensors,
    write_tensors,
)
from circuit_tracer_cli.graph.edges import Edges, NotFinite, check_edges
from circuit_tracer_cli.graph.graph import Graph, Pruning, Stability
from circuit_tracer_cli.graph.layout import LEFT_OUT, edges_left_out
from circuit_tracer_cli.graph.legacy import ZIP_START, largest_archive, read_pt
from circuit_tracer_cli.types import TargetPlace

FORMAT = "circuit-tracer-graph"
FORMAT_VERSION = 2
"""1 is written where every target is a logit at the last position, which older versions can read."""
HEADER_KEY = "circuit-tracer-graph"

Kind = Literal["safetensors", "pt"]
_TENSORS = (
    "input_tokens",
    "active_features",
    "activation_values",
    "selected_features",
    "logit_probabilities",
)
_RELEASE = "\0release"
_AGAIN = "write or copy it again"
_STABILITY = ("node_stability", "edge_stability")
_PLACES = ("target_kind", "target_layer", "target_position")
_SCORES = ("node_threshold", "edge_threshold", "replacement_score", "completeness_score", "n_edges_before")


def graph_kind(path: str | os.PathLike[str]) -> Kind:
    """Return the kind of graph file that a name stands for. Raises UsageError for any suffix but `.safetensors` and `.pt`."""
    suffix = Path(path).suffix.lower()
    if suffix == ".safetensors":
        return "safetensors"
    if suffix == ".pt":
        return "pt"
    raise UsageError(
        f"unknown kind of graph file {str(path)!r}",
        f"name it {Path(path).stem or 'graph'}.safetensors or {Path(path).stem or 'graph'}.pt",
    )


def save_graph(
    graph: Graph, path_or_file: str | os.PathLike[str] | BinaryIO, *, kind: Kind | None = None
) -> None:
    """Write a graph to a file, atomically, or to a binary stream.

    Args:
        graph: Raw or pruned.
        path_or_file: The suffix decides the kind; a stream gets safetensors.
        kind: Overrides the suffix.

    Raises:
        UsageError: Unknown suffix.
        OutputError: The file can't be written; no partial file is left.
    """
    if not isinstance(path_or_file, (str, os.PathLike)):
        _write(graph, path_or_file, kind or "safetensors")
        return
    chosen = kind or graph_kind(path_or_file)
    with atomic_writer(path_or_file) as stream:
        _write(graph, stream, chosen)


def load_graph(path_or_file: str | os.PathLike[str] | BinaryIO, *, streaming: bool = False) -> Graph:
    """Read a graph file of any kind, or a binary stream. Code in a file is never run.

    Args:
        path_or_file: The suffix doesn't matter.
        streaming: Passes over the edges release the memory that they have read. The tensors are then read-only.

    Raises:
        MissingFile: No such file, or no permission.
        BadGraphFile: Truncated, damaged, of another kind or of a later version.
    """
    if not isinstance(path_or_file, (str, os.PathLike)):
        return _load_stream(path_or_file, "the graph read from the pipe", streaming)
    path = Path(path_or_file)
    try:
        kind = kind_of_file(path)
        if kind == "folder":
            raise MissingFile(f"{path} is a folder, not a graph file", "name a .safetensors or .pt file")
        if kind == "pipe":
            stream, first = open_pipe(path)
            with stream:
                return _load_stream(stream, str(path), streaming, first)
        with open_regular(path) as stream:
            return _load(stream, str(path), streaming)
    except FileNotFoundError as error:
        if isinstance(error, CircuitTracerError):
            raise
        raise MissingFile(
            f"no such graph file: {path}", "check the path, or make one with `attribute -o`"
        ) from error
    except OSError as error:
        if isinstance(error, CircuitTracerError):
            raise
        raise unreadable(path, error) from error


def _load_stream(stream: BinaryIO, source: str, streaming: bool, first: bytes = b"") -> Graph:
    """Load from a pipe: its beginning is checked first, and limits how much is copied."""
    if not first and _is_whole_file(stream):
        return _load(stream, source, streaming)
    spool = Spool(stream, source, first)
    with spool.file:
        start = spool.read(9)
        if looks_like_tensors(start):
            _take_safetensors(spool, start, source)
        elif start[:4] == ZIP_START:
            _take_pt(spool, start, source)
        spool.file.flush()
        spool.file.seek(0)
        return _load(spool.file, source, streaming)


def _is_whole_file(stream: BinaryIO) -> bool:
    """True for a redirected file (`< graph.safetensors`): it needs no copy."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode) and stream.tell() == 0
    except (OSError, AttributeError, ValueError):
        return False


def _take_safetensors(spool: Spool, start: bytes, source: str) -> None:
    length = int.from_bytes(start[:8], "little")
    text = start[8:] + spool.read(length - 1)
    if len(text) < length:
        raise BadGraphFile(f"{source} is truncated: it ends within its header", _AGAIN)
    header = parse_header(text, source, BadGraphFile)
    _require_graph(header.metadata, source)
    if not spool.fill(header.stop):
        raise BadGraphFile(f"{source} is truncated: {spool.size} bytes of {header.stop}", _AGAIN)
    _require_end(spool, source)


def _take_pt(spool: Spool, start: bytes, source: str) -> None:
    if not spool.take_rest(largest_archive(spool, start, source)):
        raise BadGraphFile(f"{source} is longer than its header says", _AGAIN)


def _require_end(spool: Spool, source: str) -> None:
    if not spool.ends():
        raise BadGraphFile(f"{source} is longer than its header says", _AGAIN)


def _load(stream: BinaryIO, source: str, streaming: bool) -> Graph:
    """Load from an open file, which has no name if it came from a pipe."""
    start = stream.read(9)
    if start[:4] == ZIP_START:
        values = _read_pt(stream, source)
    elif looks_like_tensors(start):
        values = _read_safetensors(stream, source, streaming)
    elif not start:
        raise BadGraphFile(f"{source} is empty", "the command that should have written it may have failed")
    elif start.lstrip()[:1] == b"{":
        raise BadGraphFile(
            f"{source} is a viewer file (JSON), not a raw graph",
            "pass the .safetensors or .pt file that `attribute -o` wrote",
        )
    else:
        raise BadGraphFile(
            f"{source} is not a graph file", "graph files are .safetensors or .pt as `attribute` writes them"
        )
    return _from_values(values, source)


def _read_pt(stream: BinaryIO, source: str) -> dict[str, Any]:
    """Read the archive by the name of its descriptor: it may have no other, and torch looks at a name's suffix."""
    path = Path(f"/proc/self/fd/{stream.fileno()}")
    if path.exists():
        return read_pt(path, source)
    with tempfile.NamedTemporaryFile(prefix="circuit-tracer-", suffix=".pt") as copy:
        stream.seek(0)
        shutil.copyfileobj(stream, copy, 1 << 20)
        copy.flush()
        return read_pt(Path(copy.name), source)


def _read_safetensors(stream: BinaryIO, source: str, streaming: bool) -> dict[str, Any]:
    try:
        mapped = mmap(stream.fileno(), 0, access=ACCESS_COPY)
    except OSError as error:
        raise BadGraphFile(f"{source} can't be mapped into memory: {error.strerror}") from error
    stored = read_header(mapped, source, BadGraphFile)
    _require_graph(stored.metadata, source)
    try:
        header = json.loads(stored.metadata[HEADER_KEY])
    except (ValueError, RecursionError) as error:
        raise BadGraphFile(f"{source} has a damaged header") from error
    if not isinstance(header, dict) or set(header) & set(stored.tensors):
        raise BadGraphFile(f"{source} has a damaged header")
    tensors = shared_tensors(mapped, stored)
    return {**header, **tensors, _RELEASE: released(mapped) if streaming else nothing}


def _require_graph(metadata: Mapping[str, str], source: str) -> None:
    if HEADER_KEY not in metadata:
        raise BadGraphFile(
            f"{source} is a safetensors file without a graph", "a model or transcoder file isn't a graph"
        )


def _from_values(values: Mapping[str, Any], source: str) -> Graph:
    version = values.get("format_version", FORMAT_VERSION)
    if values.get("format", FORMAT) != FORMAT or type(version) is not int:
        raise BadGraphFile(f"{source} isn't a {FORMAT} file")
    if version > FORMAT_VERSION:
        raise BadGraphFile(f"{source} has format version {version}", "upgrade circuit-tracer-cli to read it")
    try:
        edges, metadata = _edges(values), _mapping(values.get("metadata") or {})
        try:
            return _graph(values, edges, metadata)
        except NotFinite:
            check_edges(edges, finite=False)
            edges, left_out = edges.finite()
            fewer = {name: value for name, value in values.items() if name not in _STABILITY}
            return _graph(fewer, edges, {**metadata, LEFT_OUT: edges_left_out(metadata) + left_out})
    except KeyError as error:
        raise BadGraphFile(f"{source} lacks {error.args[0]!r}", "it may be a file of another kind") from error
    except OutOfMemory:
        raise
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadGraphFile(f"{source} is damaged: {reason[:200]}") from error


def _graph(values: Mapping[str, Any], edges: Edges, metadata: dict[str, Any]) -> Graph:
    return Graph(
        input_string=values["input_string"],
        adjacency_matrix=edges,
        cfg=_mapping(values["cfg"]),
        logit_targets=values["logit_targets"],
        scan=_scan(values.get("scan")),
        vocab_size=values.get("vocab_size"),
        metadata=metadata,
        pruning=_pruning(values),
        target_places=_places(values),
        **{name: _tensor(values, name) for name in _TENSORS},
    )


def _places(values: Mapping[str, Any]) -> list[TargetPlace] | None:
    """What the targets are and where they stand; None in a file that doesn't tell."""
    if _PLACES[0] not in values:
        return None
    columns = [values[name] for name in _PLACES]
    if not all(isinstance(column, list) for column in columns):
        raise InvalidValue("the places of the targets aren't lists")
    return [TargetPlace(*one) for one in zip(*columns, strict=True)]


def _tensor(values: Mapping[str, Any], name: str) -> torch.Tensor:
    value = values[name]
    if name == "input_tokens" and isinstance(value, list):
        return torch.tensor(value)
    if not isinstance(value, torch.Tensor):
        raise InvalidValue(f"{name} isn't a tensor")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidValue("a dictionary was expected")
    return value


def _scan(value: Any) -> str | list[str] | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return list(value)
    raise InvalidValue("scan must be a string or a list of strings")


def _edges(values: Mapping[str, Any]) -> Edges:
    if "adjacency_indptr" in values:
        names = ("adjacency_indptr", "adjacency_indices", "adjacency_values")
        indptr, indices, weights = (_tensor(values, name) for name in names)
        return Edges(indptr, indices, weights, values.get(_RELEASE, nothing))
    return Edges.from_dense(_tensor(values, "adjacency_matrix"))


def _pruning(values: Mapping[str, Any]) -> Pruning | None:
    if "node_mask" not in values:
        return None
    scores = {name: values[name] for name in _SCORES}
    if not all(isinstance(value, (int, float)) for value in scores.values()):
        raise InvalidValue("a threshold or score isn't a number")
    return Pruning(
        node_mask=_tensor(values, "node_mask"),
        cumulative_scores=_tensor(values, "cumulative_scores"),
        stability=Stability(*(_tensor(values, name) for name in _STABILITY))
        if _STABILITY[0] in values
        else None,
        **scores,
    )


def _write(graph: Graph, stream: BinaryIO, kind: Kind) -> None:
    tensors, header = _tensors_of(graph), _header_of(graph)
    if kind == "pt":
        content = {**header, **tensors, "adjacency_matrix": graph.edges.to("cpu").to_dense()}
        try:
            torch.save(content, stream)
        except RuntimeError as error:  # torch rewords what a stream raised
            raise OSError(errno.EIO, str(error).splitlines()[0]) from error
        return
    edges = graph.edges.to("cpu")
    if edges.nbytes < 4 * edges.n**2:
        sparse = {"indptr": edges.indptr, "indices": edges.indices, "values": edges.values}
        tensors |= {f"adjacency_{name}": tensor for name, tensor in sparse.items()}
    else:
        tensors["adjacency_matrix"] = edges.to_dense()
    write_tensors(stream, tensors, {HEADER_KEY: json.dumps(header)}, edges.release)


def _tensors_of(graph: Graph) -> dict[str, torch.Tensor]:
    tensors = {name: getattr(graph, name).detach().to("cpu").contiguous() for name in _TENSORS}
    tensors["logit_probabilities"] = tensors["logit_probabilities"].to(torch.float32)
    if graph.pruning is not None:
        tensors["node_mask"] = graph.pruning.node_mask.to("cpu")
        tensors["cumulative_scores"] = graph.pruning.cumulative_scores.to("cpu", torch.float32)
        if (steady := graph.pruning.stability) is not None:
            tensors |= zip(_STABILITY, (steady.nodes.cpu(), steady.edges.cpu()), strict=True)
    return tensors


def _header_of(graph: Graph) -> dict[str, Any]:
    """Everything that isn't a tensor, as plain values."""
    header: dict[str, Any] = {
        "format": FORMAT,
        "format_version": 1 if graph.target_places is None else FORMAT_VERSION,
        "input_string": graph.input_string,
        "scan": graph.scan,
        "vocab_size": graph.vocab_size,
        "cfg": graph.cfg.to_dict(),
        "logit_targets": [[target.token_str, target.vocab_idx] for target in graph.logit_targets],
        "metadata": graph.metadata,
    }
    if graph.target_places is not None:
        header |= zip(_PLACES, map(list, zip(*graph.target_places, strict=True)), strict=True)
    if graph.pruning is not None:
        header |= {name: getattr(graph.pruning, name) for name in _SCORES}
    plain: dict[str, Any] = json.loads(json.dumps(header, default=str))
    return plain
