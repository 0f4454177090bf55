"""Writes graph files, and reads them in every known form: ours, the reference's, Neuronpedia's. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, BinaryIO

from circuit_tracer_cli.errors import BadGraphFile
from circuit_tracer_cli.export.records import GENERATOR, GraphFile, Link, Metadata, Node, QParams, to_values
from circuit_tracer_cli.graph.layout import LEFT_OUT, edges_left_out, error_id

_LINKS_AT_ONCE = 10_000
_VIEW_BYTES = 1 << 24
_PARTS = ("metadata", "qParams", "nodes", "links")


def write_graph_json(
    stream: BinaryIO,
    metadata: Metadata,
    q_params: QParams,
    nodes: Iterable[Node],
    links: Iterable[Link],
    beside: Mapping[str, Any] | None = None,
) -> None:
    """Write a graph file without indentation, streaming the links. Raises OSError as the stream does.

    `beside` has optional keys at the level of nodes and links.
    """
    stream.write(b'{"metadata":' + encode_json(to_values(metadata)))
    stream.write(b',"qParams":' + encode_json(to_values(q_params)))
    stream.write(b',"nodes":' + encode_json([to_values(node) for node in nodes]))
    for key, value in (beside or {}).items():
        stream.write(b"," + encode_json(key) + b":" + encode_json(value))
    stream.write(b',"links":[')
    remaining = iter(links)
    separator = b""
    while batch := [_link_values(link) for link in islice(remaining, _LINKS_AT_ONCE)]:
        stream.write(separator + encode_json(batch)[1:-1])
        separator = b","
    stream.write(b"]}")


def _link_values(link: Link) -> dict[str, Any]:
    """`to_values` for links, of which there can be millions."""
    return {"source": link.source, "target": link.target, "weight": link.weight, **link.extra}


def encode_json(value: Any) -> bytes:
    """Compact JSON in UTF-8. Raises ValueError for a number that JSON doesn't allow."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate becomes \udxxx, which JSON allows


def read_graph_json(content: bytes | str, source: str = "the graph file") -> GraphFile:
    """Return the file in the current form: lists where older files have strings, and error ids that no feature can have.

    Raises:
        BadGraphFile: Not JSON, or not a graph file.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        if isinstance(content, bytes) and (content[:4] == b"PK\x03\x04" or content[8:9] == b"{"):
            raise BadGraphFile(
                f"{source} is a raw graph, not a viewer file (JSON)",
                f"convert it with `circuit-tracer export {source}`",
            ) from error
        raise BadGraphFile(f"{source} isn't valid JSON", "it may be truncated; export it again") from error
    try:
        return graph_file_from(values)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise BadGraphFile(f"{source} isn't a graph file: {reason[:200]}") from error


def read_view(stream: BinaryIO, source: str = "the graph file") -> tuple[Metadata, QParams]:
    """Return a file's metadata and view state. In our own files nothing after them is read.

    Raises BadGraphFile.
    """
    start = stream.read(_VIEW_BYTES)
    found = _leading_members(start.decode("utf-8", "replace"), ("metadata", "qParams"))
    try:
        metadata = metadata_from(_object(found["metadata"]))
        if metadata.info.get("generator", {}).get("name") == GENERATOR:
            return metadata, q_params_from(_object(found["qParams"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        pass  # another program's file may have error ids of the older form, which only its nodes can translate
    file = read_graph_json(start + stream.read(), source)
    return file.metadata, file.qParams


def _leading_members(text: str, wanted: tuple[str, ...]) -> dict[str, Any]:
    """Read members of a JSON object from its beginning until the wanted ones are found or the text ends."""
    decoder, found = json.JSONDecoder(), dict[str, Any]()
    place, expected = 0, "{"
    try:
        while not all(name in found for name in wanted):
            place = _after(text, place, expected)
            name, place = decoder.raw_decode(text, place)
            found[name], place = decoder.raw_decode(text, _after(text, place, ":"))
            expected = ","
    except (ValueError, TypeError, RecursionError):
        return found
    return found


def _after(text: str, place: int, mark: str) -> int:
    """Return where the next value begins after a delimiter. Raises ValueError if the delimiter isn't next."""
    match = re.compile(rf"\s*{re.escape(mark)}\s*").match(text, place)
    if match is None:
        raise ValueError("another delimiter was expected")
    return match.end()


def graph_file_from(values: Mapping[str, Any]) -> GraphFile:
    """The records of a parsed file. Raises KeyError, TypeError or ValueError for what isn't a graph file."""
    nodes = [node_from(_object(item)) for item in _list(values["nodes"])]
    stored = [_object(item) for item in _list(values["links"])]
    links = [link_from(item) for item in stored if is_finite(item["weight"])]
    metadata = metadata_from(_object(values["metadata"]))
    q_params = q_params_from(_object(values.get("qParams") or {}))
    beside = {key: value for key, value in values.items() if key not in _PARTS}
    file = GraphFile(metadata, q_params, nodes, links, beside)
    if lost := len(stored) - len(links):
        extra = {**metadata.extra, LEFT_OUT: file.left_out + lost}
        file = dataclasses.replace(file, metadata=dataclasses.replace(metadata, extra=extra))
    return _with_safe_error_ids(file)


def metadata_from(values: Mapping[str, Any]) -> Metadata:
    """Metadata of a file of any age, with defaults for missing fields."""
    known, extra = _split(values, Metadata)
    for name in ("transcoder_list", "feature_details", "info", "generation_settings", "pruning_settings"):
        if known.get(name) is None:
            known.pop(name, None)
    known.setdefault("schema_version", None)
    tokens = [str(token) for token in _list(values["prompt_tokens"])]
    required = {"slug": str(values["slug"]), "scan": str(values["scan"]), "prompt": str(values["prompt"])}
    return Metadata(**{**known, **required, "prompt_tokens": tokens, "extra": extra})


def q_params_from(values: Mapping[str, Any]) -> QParams:
    """View state whose lists can be comma-separated strings or JSON text, and whose entries can be null."""
    known, extra = _split({name: value for name, value in values.items() if value is not None}, QParams)
    pinned = _names(known.pop("pinnedIds", []))
    groups = [_list(group) for group in _parsed(known.pop("supernodes", []))]
    supernodes = [[str(name) for name in group] for group in groups if group]
    if "hiddenIds" in extra:
        extra["hiddenIds"] = _names(extra["hiddenIds"])
    if "clerps" in extra:
        extra["clerps"] = [[str(part) for part in _list(pair)] for pair in _parsed(extra["clerps"])]
    texts = {name: str(value) for name, value in known.items()}
    return QParams(pinnedIds=pinned, supernodes=supernodes, extra=extra, **texts)


def node_from(values: Mapping[str, Any]) -> Node:
    """A node; keys that only the viewer uses are kept in `extra`."""
    known, extra = _split({name: value for name, value in values.items() if not _is_odd(value)}, Node)
    known["node_id"] = str(known["node_id"])
    known["layer"] = str(known["layer"])
    known["ctx_idx"] = int(known["ctx_idx"])
    known["feature_type"] = str(known["feature_type"])
    known["jsNodeId"] = str(known.get("jsNodeId") or known["node_id"])
    known["feature"] = None if known.get("feature") is None else int(known["feature"])
    for name in ("token_prob", "is_target_logit", "run_idx", "reverse_ctx_idx", "clerp"):
        if known.get(name) is None:
            known.pop(name, None)
    return Node(**known, extra=extra)


def is_finite(weight: Any) -> bool:
    """True if a link's weight is a finite number; JavaScript writes NaN and infinity as null."""
    return weight is not None and math.isfinite(float(weight))


def _is_odd(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def proper_json(content: bytes) -> tuple[bytes, int]:
    """Return a graph file for strict readers, and how many links were left out.

    Python writes NaN and Infinity into JSON, and browsers refuse such files. Links with such a weight are left out and counted in
    the metadata (`LEFT_OUT`); elsewhere such numbers become null. All other content is unchanged.
    """
    if not any(word in content for word in (b"NaN", b"Infinity")):
        return content, 0
    odd: list[str] = []
    try:
        values = json.loads(content.decode("utf-8-sig"), parse_constant=odd.append)
    except (ValueError, RecursionError):
        return content, 0
    if not odd or not isinstance(values, dict) or not isinstance(values.get("links"), list):
        return content, 0
    kept = [
        link for link in values["links"] if not isinstance(link, dict) or link.get("weight", 0) is not None
    ]
    left_out = len(values["links"]) - len(kept)
    if isinstance(values.get("metadata"), dict) and left_out:
        values["metadata"][LEFT_OUT] = edges_left_out(values["metadata"]) + left_out
    try:
        return encode_json({**values, "links": kept}), left_out
    except (ValueError, RecursionError):
        return content, 0


def link_from(values: Mapping[str, Any]) -> Link:
    """A link. Raises ValueError for a weight that isn't a finite number."""
    weight = float(values["weight"])
    if not math.isfinite(weight):
        raise ValueError("a link's weight isn't finite")
    extra = {name: value for name, value in values.items() if name not in ("source", "target", "weight")}
    return Link(str(values["source"]), str(values["target"]), weight, extra)


def _split(values: Mapping[str, Any], record: type) -> tuple[dict[str, Any], dict[str, Any]]:
    names = {f.name for f in dataclasses.fields(record)} - {"extra"}
    known = {name: value for name, value in values.items() if name in names}
    return known, {name: value for name, value in values.items() if name not in names}


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("an object was expected")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("a list was expected")
    return value


def _parsed(value: Any) -> list[Any]:
    """A list, given as a list or as JSON text; an empty text is an empty list."""
    if isinstance(value, str):
        value = json.loads(value) if value.strip() else []
    return _list(value)


def _names(value: Any) -> list[str]:
    """Names, given as a list or joined by commas."""
    if isinstance(value, str):
        value = [name for name in value.split(",") if name]
    return [str(name) for name in _list(value)]


def _with_safe_error_ids(file: GraphFile) -> GraphFile:
    """Older files name the error of layer 5 at position 3 `0_5_3`, which is also feature 5 of layer 0 at position 3."""
    renamed: dict[str, str] = {}
    nodes = []
    for node in file.nodes:
        if "error" in node.feature_type and node.layer.isdigit():
            name = error_id(int(node.layer), node.ctx_idx)
            if name != node.node_id:
                renamed[node.node_id] = name
                node = dataclasses.replace(node, node_id=name, jsNodeId=f"{node.layer}_-1-{node.ctx_idx}")
        nodes.append(node)
    if not renamed:
        return file
    others = {node.node_id for node in nodes}
    certain = {old: new for old, new in renamed.items() if old not in others}
    q_params = dataclasses.replace(
        file.qParams,
        pinnedIds=[certain.get(name, name) for name in file.qParams.pinnedIds],
        supernodes=[[label, *(certain.get(n, n) for n in ids)] for label, *ids in file.qParams.supernodes],
        clickedId=certain.get(file.qParams.clickedId, file.qParams.clickedId),
    )
    return dataclasses.replace(
        file, qParams=q_params, nodes=nodes, links=_relinked(file.links, nodes, renamed)
    )


def _relinked(links: list[Link], nodes: list[Node], renamed: dict[str, str]) -> list[Link]:
    """Return the links with the new error ids.

    A source that could be a feature or an error is the error once the features have passed: the links into a node are written
    in the order of their sources, features first.
    """
    place = {node.node_id: i for i, node in enumerate(nodes)}
    result = []
    target, last = "", -1
    for link in links:
        if link.target != target:
            target, last = link.target, -1
        source = link.source
        if source in renamed and (source not in place or place[source] <= last):
            source = renamed[source]
            link = dataclasses.replace(link, source=source)
        last = place.get(source, last)
        result.append(link)
    return result
