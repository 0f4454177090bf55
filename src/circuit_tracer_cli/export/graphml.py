"""GraphML, for Gephi, Cytoscape, yEd and networkx."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO
from xml.sax.saxutils import escape, quoteattr

from circuit_tracer_cli.export import Destination
from circuit_tracer_cli.export.records import STABILITY
from circuit_tracer_cli.export.slugs import check_slug
from circuit_tracer_cli.export.viewer import links_of, make_folder
from circuit_tracer_cli.files.atomic import atomic_writer
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.nodes import NodeView, iter_nodes

_KEYS = {
    "kind": "string",
    "layer": "int",
    "position": "int",
    "feature": "long",
    "activation": "double",
    "token": "string",
    "vocab_idx": "long",
    "probability": "double",
    "influence": "double",
}
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def export(pruned: Graph, to: Destination) -> list[Path]:
    """Write `{slug}.graphml`: node ids as in the JSON file, node attributes by kind, signed edge weights."""
    check_slug(to.slug)
    target = make_folder(to.directory) / f"{to.slug}.graphml"
    with atomic_writer(target) as stream:
        _write(stream, pruned)
    return [target]


def _write(stream: BinaryIO, graph: Graph) -> None:
    stream.write(
        b'<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n'
    )
    for name, kind in _KEYS.items():
        _line(stream, f'<key id="{name}" for="node" attr.name="{name}" attr.type="{kind}"/>')
    for name in ("weight", STABILITY):
        _line(stream, f'<key id="{name}" for="edge" attr.name="{name}" attr.type="double"/>')
    for name in ("prompt", "scan"):
        _line(stream, f'<key id="{name}" for="graph" attr.name="{name}" attr.type="string"/>')
    _line(stream, '<graph edgedefault="directed">')
    scans = "\n".join(graph.scan) if isinstance(graph.scan, list) else graph.scan or ""
    _line(stream, _data([("prompt", graph.input_string), ("scan", scans)]))
    for node in iter_nodes(graph):
        _line(stream, f"<node id={_attribute(node.node_id)}>{_data(_node_values(node))}</node>")
    for link in links_of(graph):
        ends = f"source={_attribute(link.source)} target={_attribute(link.target)}"
        values = [("weight", repr(link.weight))]
        values += [(STABILITY, link.extra[STABILITY])] if STABILITY in link.extra else []
        _line(stream, f"<edge {ends}>{_data(values)}</edge>")
    stream.write(b"</graph>\n</graphml>\n")


def _node_values(node: NodeView) -> Iterable[tuple[str, Any]]:
    return ((name, getattr(node, name)) for name in _KEYS if getattr(node, name) is not None)


def _data(values: Iterable[tuple[str, Any]]) -> str:
    return "".join(f'<data key="{name}">{escape(_clean(str(value)))}</data>' for name, value in values)


def _attribute(text: str) -> str:
    return quoteattr(_clean(text))


def _clean(text: str) -> str:
    """The text with characters that XML doesn't allow (control characters, lone surrogates) replaced."""
    return _NOT_XML.sub("\ufffd", text)


def _line(stream: BinaryIO, text: str) -> None:
    stream.write(text.encode("utf-8") + b"\n")
