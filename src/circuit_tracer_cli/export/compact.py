"""A graph file as typed arrays, strongest edges first: what the viewer reads instead of parsing a million links of JSON.

It is stored next to the graph file as `.compact/SLUG.ctgb`. The exporter writes both; for a file from elsewhere it is derived
once. Its modification time is that of the graph file: if they differ, the graph file has changed. Small graph files have no
compact form, since a page parses those at once. The folder can be deleted at any time.

Little endian: `CTGB`, three uint32 (version, bytes of the header, edges); the header, JSON padded with spaces to a multiple of
eight; six float64 columns over the nodes (`feature`, `ctx_idx`, `token_prob`, `influence`, `activation`, sum of absolute inputs;
NaN for null); then 12 bytes per edge: source and target as uint32, weight as float32. Edges are sorted by influence, so that any
prefix of the file shows what matters most. The header contains the entity tag of the graph file, which saving needs, and a
digest of everything in it except `metadata` and `qParams`, so that annotations only cost a new header. Imports no torch until
a graph has to be ranked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import struct
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuit_tracer_cli.errors import BadGraphFile, CircuitTracerError
from circuit_tracer_cli.export.graph_json import is_finite, proper_json
from circuit_tracer_cli.export.splice import read_top_level
from circuit_tracer_cli.files.atomic import write_bytes
from circuit_tracer_cli.graph.layout import LEFT_OUT, edges_left_out

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from circuit_tracer_cli.export.records import Metadata, Node, QParams
    from circuit_tracer_cli.graph.graph import Graph

FOLDER = ".compact"
COMPACT_FROM = 1 << 20
"""Smallest size in bytes of a graph file with a compact form."""
MAGIC, VERSION = b"CTGB", 1
_MOST_EDGES = 1 << 23
_COLUMNS = ("feature", "ctx_idx", "token_prob", "influence", "activation")
_HEAD = 4 << 20
_CHUNK = 1 << 20
_START = len(MAGIC) + 12
_log = logging.getLogger(__name__)
_deriving = threading.Lock()
_without: dict[Path, int] = {}
"""Graph files without a compact form, and their modification times."""


def compact_path(path: Path) -> Path:
    """Return the path of a graph file's compact form."""
    return path.parent / FOLDER / f"{path.stem}.ctgb"


def entity_tag(digest: str) -> str:
    """Return the strong entity tag of a file from the SHA-256 of its content, in hexadecimal."""
    return f'"{digest[:32]}"'


def write_form(
    path: Path, metadata: Metadata, annotations: QParams, nodes: list[Node], pruned: Graph
) -> None:
    """Write the compact form of a graph file that was just written, unless the file is small or has too many links.

    Args:
        path: The graph file.
        metadata, annotations, nodes: Its content.
        pruned: Its edges.
    """
    import numpy as np

    from circuit_tracer_cli.export.records import to_values
    from circuit_tracer_cli.graph.influence import compute_edge_influence

    status = path.stat()
    if status.st_size < COMPACT_FROM or pruned.edges.nnz > _MOST_EDGES:  # it is built in memory
        return
    number = {node.node_id: index for index, node in enumerate(nodes)}
    shown = np.array([number.get(node_id, 0) for node_id in pruned.node_ids()], dtype=np.int64)
    blocks = list(pruned.edges.blocks())
    source = shown[np.concatenate([block.columns for block in blocks])]
    target = shown[np.concatenate([block.rows for block in blocks])]
    weight = np.concatenate([block.values for block in blocks]).astype(np.float64)
    share = compute_edge_influence(pruned.edges, pruned.logit_weights).cpu().numpy()
    _, tag, digest = _digests(path)
    view = {"metadata": to_values(metadata), "qParams": to_values(annotations)}
    content = _pack(
        [to_values(node) for node in nodes], (source, target, weight), share, _Facts(tag, digest, view)
    )
    _keep(compact_path(path), content, status.st_mtime_ns)


def current_form(path: Path, spare: Path) -> Path | None:
    """Return the file with the compact form of a graph file, made first if the graph file is new or has changed.

    Args:
        path: The graph file.
        spare: A folder for forms whose own folder is read-only.

    Returns:
        None for a small graph file, and for one with content that this form can't express.

    Raises:
        OSError: The graph file can't be read.
    """
    status = path.stat()
    stamp = status.st_mtime_ns
    if status.st_size < COMPACT_FROM:
        return None
    places = (compact_path(path), spare / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.ctgb")
    with _deriving:
        for place in places:
            if _stamp(place) == stamp:
                return place
        if _without.get(path) == stamp:
            return None
        content = _made(path, places)
        if content is None:
            _without[path] = stamp
            return None
        return next((place for place in places if _keep(place, content, stamp)), None)


def features_in(form: Path) -> set[int]:
    """Return the codes of the features among the nodes of a compact form."""
    import numpy as np

    content = form.read_bytes()
    header, stop = _header(content)
    plain = [kind not in ("embedding", "logit") and "error" not in kind for kind in header["types"]]
    chosen = np.array(plain, dtype=bool)[np.array(header["type"], dtype=np.int64)]
    codes = np.frombuffer(content, "<f8", len(chosen), stop)[chosen]
    return {int(code) for code in codes.tolist() if code >= 0 and code.is_integer()}


class _Facts:
    """What a header contains: entity tag, digest of nodes and links (None if unknown), `metadata` and `qParams`."""

    def __init__(self, tag: str, digest: str | None, view: Mapping[str, Any]) -> None:
        self.values = {
            "etag": tag,
            "digest": digest,
            "metadata": view["metadata"],
            "qParams": view.get("qParams") or {},
        }


def _made(path: Path, places: Sequence[Path]) -> bytes | None:
    """The compact form of a graph file: one from `places` with a new header if only that has changed, else derived."""
    view, tag, digest = _digests(path)
    if view is not None and digest is not None:
        facts = _Facts(tag, digest, view)
        for place in places:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, struct.error):
                content = place.read_bytes()
                header, stop = _header(content)
                if header["digest"] == digest:
                    if LEFT_OUT in header["metadata"]:
                        facts.values["metadata"][LEFT_OUT] = header["metadata"][LEFT_OUT]
                    edges = struct.unpack_from("<4sIII", content)[3]
                    return b"".join([*_start(header | facts.values, edges), memoryview(content)[stop:]])
    try:
        graph = json.loads(proper_json(path.read_bytes())[0].decode("utf-8-sig"))
        edges_, nodes = _edges(graph), graph["nodes"]
        left_out = sum(not is_finite(link["weight"]) for link in graph["links"])
        if left_out:
            graph["metadata"][LEFT_OUT] = edges_left_out(graph["metadata"]) + left_out
        share = _edge_influence(*edges_, _targets(nodes))
        return _pack(nodes, edges_, share, _Facts(tag, digest, graph))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, RuntimeError):
        return None


def _keep(form: Path, content: bytes, stamp: int) -> bool:
    """True if the form could be written; without it, a graph only opens more slowly."""
    try:
        form.parent.mkdir(exist_ok=True)
        write_bytes(form, content)
        os.utime(form, ns=(stamp, stamp))
    except (OSError, CircuitTracerError) as error:
        _log.debug("the compact form %s isn't kept: %s", form, error)
        return False
    return True


def _stamp(form: Path) -> int | None:
    try:
        return form.stat().st_mtime_ns
    except OSError:
        return None


def _digests(path: Path) -> tuple[dict[str, Any] | None, str, str | None]:
    """`metadata` and `qParams` at the beginning of a file, its entity tag, and a digest of what follows."""
    whole, rest = hashlib.sha256(), hashlib.sha256()
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
        view, end = _view(head)
        whole.update(head)
        rest.update(head[end:])
        while chunk := stream.read(_CHUNK):
            whole.update(chunk)
            rest.update(chunk)
    return view, entity_tag(whole.hexdigest()), None if view is None else rest.hexdigest()


def _view(head: bytes) -> tuple[dict[str, Any] | None, int]:
    text = head.decode("utf-8", "ignore")
    try:
        top = read_top_level(text, frozenset(["metadata", "qParams"]))
    except BadGraphFile:
        return None, 0
    if set(top.values) != {"metadata", "qParams"}:
        return None, 0
    return top.values, len(text[: max(stop for _, stop in top.spans.values())].encode())


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """The header, and where the columns begin. Raises ValueError, struct.error."""
    magic, version, size, _ = struct.unpack_from("<4sIII", content)
    if (magic, version) != (MAGIC, VERSION):
        raise ValueError("another form")
    return json.loads(content[_START : _START + size]), _START + size


def _start(header: Mapping[str, Any], edges: int) -> tuple[bytes, bytes]:
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return MAGIC + struct.pack("<III", VERSION, len(text), edges), text


Arrays = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.float64]"]


def _pack(
    nodes: list[dict[str, Any]], edges: Arrays, share: NDArray[np.floating[Any]], facts: _Facts
) -> bytes:
    """The compact form. `edges` are source, target and weight; `share` is each edge's influence on the targets."""
    import numpy as np

    source, target, weight = edges
    columns = np.array([[_number(node.get(key)) for node in nodes] for key in _COLUMNS], dtype="<f8")
    inputs = np.bincount(target, np.abs(weight), len(nodes)).astype("<f8")
    local = np.abs(weight) / np.where(inputs > 0, inputs, 1)[target]
    order = np.lexsort((-local, -share))
    packed = np.empty(len(weight), dtype=[("source", "<u4"), ("target", "<u4"), ("weight", "<f4")])
    packed["source"], packed["target"], packed["weight"] = source[order], target[order], weight[order]
    start = _start({**facts.values, **_names(nodes)}, len(packed))
    return b"".join([*start, columns.tobytes(), inputs.tobytes(), packed.tobytes()])


def _names(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything about nodes that isn't a number: id, kind and layer of each, and the labels of those that have one."""
    types = sorted({str(node.get("feature_type") or "") for node in nodes})
    place = {name: index for index, name in enumerate(types)}
    labels = {
        str(index): node["clerp"]
        for index, node in enumerate(nodes)
        if isinstance(node.get("clerp"), str) and node["clerp"]
    }
    proposed = {
        str(index): text
        if isinstance(text, dict)
        else {"text": text, "provenance": node.get("provenance", "")}
        for index, node in enumerate(nodes)
        if (text := node.get("proposed_label"))
    }
    return {
        "types": types,
        "ids": [_text(node["node_id"]) for node in nodes],
        "type": [place[str(node.get("feature_type") or "")] for node in nodes],
        "layer": [_text(node["layer"]) for node in nodes],
        "clerp": labels,
        **({"proposed_label": proposed} if proposed else {}),
        **_of_several_graphs(nodes),
    }


def _of_several_graphs(nodes: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """What the viewer reads about nodes of merged and of compared graphs, by their number; nothing for a graph of one prompt."""
    wanted = {
        "merged": ("frequency", "mean_share", "low", "high"),
        "diff": ("side", "class", "share_a", "share_b", "noise"),
    }
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for key, names in wanted.items():
        for index, node in enumerate(nodes):
            if isinstance(facts := node.get(key), dict):
                told = {name: facts[name] for name in names if isinstance(facts.get(name), str | int | float)}
                found.setdefault(key, {})[str(index)] = told
    return found


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError("ids and layers are strings or integers")
    return str(value)


def _number(value: object) -> float:
    """The number, or NaN where there is none."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)


def _edges(graph: dict[str, Any]) -> Arrays:
    """Source, target and weight of links between existing nodes, by target and then by source."""
    import numpy as np

    links = graph["links"]
    number: dict[str, int] = {}
    for index, node in enumerate(graph["nodes"]):
        number.setdefault(_text(node["node_id"]), index)
    count = len(links)
    source = np.fromiter((number.get(link["source"], -1) for link in links), np.int64, count)
    target = np.fromiter((number.get(link["target"], -1) for link in links), np.int64, count)
    weight = np.fromiter((_number(link["weight"]) for link in links), np.float64, count)
    whole = ((source >= 0) & (target >= 0) & np.isfinite(weight)).nonzero()[0]
    kept = whole[np.lexsort((source[whole], target[whole]))]
    return source[kept], target[kept], weight[kept]


def _targets(nodes: list[dict[str, Any]]) -> NDArray[np.float64]:
    """The weight of each node as a target."""
    import numpy as np

    from circuit_tracer_cli.export.records import target_weight

    names = ("feature_type", "is_target_logit", "token_prob")
    return np.array([target_weight(*map(node.get, names)) for node in nodes], dtype=np.float64)


def _edge_influence(
    source: NDArray[np.int64],
    target: NDArray[np.int64],
    weight: NDArray[np.float64],
    targets: NDArray[np.float64],
) -> NDArray[np.floating[Any]]:
    """The influence of each edge, sorted by target, on the targets. Raises RuntimeError on a cycle."""
    import numpy as np
    import torch

    from circuit_tracer_cli.graph.edges import Edges
    from circuit_tracer_cli.graph.influence import compute_edge_influence

    counts = np.bincount(target, minlength=len(targets))
    edges = Edges(
        torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)),
        torch.from_numpy(source.astype(np.int32)),
        torch.from_numpy(weight.astype(np.float32)),
    )
    share: NDArray[np.floating[Any]] = compute_edge_influence(edges, torch.from_numpy(targets)).numpy()
    return share
