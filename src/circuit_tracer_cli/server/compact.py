"""A graph file as typed arrays, strongest edges first: what the viewer reads instead of parsing a million links of JSON.

Little endian: `CTGB`, three uint32 (version, bytes of the header, edges); the header, JSON padded with blanks to a multiple of
eight; six float64 columns over the nodes (`feature`, `ctx_idx`, `token_prob`, `influence`, `activation`, sum of absolute inputs;
NaN for null); then 12 bytes per edge: source and target as uint32, weight as float32. Edges are sorted by influence, so that any
first part of the body is a picture of what matters most. The header carries the entity tag of the JSON file, which saving wants.
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

from circuit_tracer_cli.server.bodies import Body

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC = b"CTGB"
VERSION = 1
_COLUMNS = ("feature", "ctx_idx", "token_prob", "influence", "activation")
_ROUNDS = 1000


def compact_etag(etag: str) -> str:
    """Entity tag of the compact form: bound to the JSON's, and another one."""
    return f'"{etag.strip(chr(34))}-c{VERSION}"'


def compact_graph(body: Body) -> bytes | None:
    """The compact form of a graph file, or None if it holds something that this form has no place for."""
    try:
        graph = json.loads(body.content.decode("utf-8-sig"))
        return _pack(graph, body.etag)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def with_view(compact: bytes, metadata: dict[str, Any], annotations: object, etag: str) -> bytes:
    """The compact form of the same nodes and links in a file that says something else beside them."""
    start, stop = len(MAGIC) + 12, _header_end(compact)
    header = json.loads(compact[start:stop])
    header |= {"etag": etag, "metadata": metadata, "qParams": annotations or {}}
    edges = struct.unpack_from("<4sIII", compact)[3]
    return b"".join([*_start(header, edges), memoryview(compact)[stop:]])


def json_etag(compact: bytes) -> str:
    """The entity tag of the JSON file that a compact form was derived from."""
    return str(json.loads(compact[len(MAGIC) + 12 : _header_end(compact)])["etag"])


def features_in(compact: bytes) -> set[int]:
    """The codes of the features among the nodes of a compact form."""
    import numpy as np

    stop = _header_end(compact)
    header = json.loads(compact[len(MAGIC) + 12 : stop])
    plain = [kind not in ("embedding", "logit") and "error" not in kind for kind in header["types"]]
    chosen = np.array(plain, dtype=bool)[np.array(header["type"], dtype=np.int64)]
    codes = np.frombuffer(compact, "<f8", len(chosen), stop)[chosen]
    return {int(code) for code in codes.tolist() if code >= 0 and code.is_integer()}


def _header_end(compact: bytes) -> int:
    return len(MAGIC) + 12 + int(struct.unpack_from("<4sIII", compact)[2])


def _start(header: dict[str, Any], edges: int) -> tuple[bytes, bytes]:
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return MAGIC + struct.pack("<III", VERSION, len(text), edges), text


def _pack(graph: dict[str, Any], etag: str) -> bytes:
    import numpy as np

    nodes = graph["nodes"]
    source, target, weight = _edges(graph)
    columns = np.array([[_number(node.get(key)) for node in nodes] for key in _COLUMNS], dtype="<f8")
    inputs = np.bincount(target, np.abs(weight), len(nodes)).astype("<f8")
    order = _by_influence(source, target, weight, inputs, _targets(nodes))
    edges = np.empty(len(weight), dtype=[("source", "<u4"), ("target", "<u4"), ("weight", "<f4")])
    edges["source"], edges["target"], edges["weight"] = source[order], target[order], weight[order]
    start = _start(_header(graph, etag), len(edges))
    return b"".join([*start, columns.tobytes(), inputs.tobytes(), edges.tobytes()])


def _header(graph: dict[str, Any], etag: str) -> dict[str, Any]:
    """Everything that isn't a number: per node its id, kind and layer, and the labels of those that have one."""
    nodes = graph["nodes"]
    types = sorted({str(node.get("feature_type") or "") for node in nodes})
    place = {name: index for index, name in enumerate(types)}
    labels = {
        str(index): node["clerp"]
        for index, node in enumerate(nodes)
        if isinstance(node.get("clerp"), str) and node["clerp"]
    }
    return {
        "etag": etag,
        "metadata": graph["metadata"],
        "qParams": graph.get("qParams") or {},
        "types": types,
        "ids": [_text(node["node_id"]) for node in nodes],
        "type": [place[str(node.get("feature_type") or "")] for node in nodes],
        "layer": [_text(node["layer"]) for node in nodes],
        "clerp": labels,
    }


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError("ids and layers are texts or whole numbers")
    return str(value)


def _number(value: object) -> float:
    """The number, or NaN where there is none."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)


def _edges(graph: dict[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Ends and weights of the links whose ends both exist."""
    import numpy as np

    links = graph["links"]
    number: dict[str, int] = {}
    for index, node in enumerate(graph["nodes"]):
        number.setdefault(_text(node["node_id"]), index)
    count = len(links)
    source = np.fromiter((number.get(link["source"], -1) for link in links), np.int64, count)
    target = np.fromiter((number.get(link["target"], -1) for link in links), np.int64, count)
    weight = np.fromiter((_number(link["weight"]) for link in links), np.float64, count)
    whole = (source >= 0) & (target >= 0) & np.isfinite(weight)
    return source[whole], target[whole], weight[whole]


def _targets(nodes: list[dict[str, Any]]) -> NDArray[np.float64]:
    """The weight of each node as something to explain: a logit's probability."""
    import numpy as np

    shares = [
        _number(node.get("token_prob")) if node.get("feature_type") == "logit" else 0.0 for node in nodes
    ]
    return np.nan_to_num(np.array(shares, dtype=np.float64))


def _by_influence(
    source: NDArray[np.int64],
    target: NDArray[np.int64],
    weight: NDArray[np.float64],
    inputs: NDArray[np.float64],
    targets: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Edges by how much of the targets they explain over all paths (Ameisen et al. 2025, "Graph pruning"), then by share."""
    import numpy as np

    share = np.abs(weight) / np.where(inputs > 0, inputs, 1)[target]
    reach, current = targets, targets
    for _ in range(_ROUNDS):
        current = np.bincount(source, share * current[target], len(targets)).astype(np.float64)
        if not current.any():
            break
        reach = reach + current
    return np.lexsort((-share, -(share * reach[target])))
