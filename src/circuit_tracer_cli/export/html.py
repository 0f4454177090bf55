"""One page that opens from disk with everything in it: viewer, graph, and the examples of the features shown.

Modules can't import each other from disk, so each becomes a `data:` URL in the page's import map. The page's content policy
forbids any network access. Importing this loads no torch.
"""

from __future__ import annotations

import base64
import html
import io
import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuit_tracer_cli.errors import BadFeatureFiles, MissingFile
from circuit_tracer_cli.export.graph_json import encode_json, write_graph_json
from circuit_tracer_cli.export.records import FEATURE_TYPE, Node
from circuit_tracer_cli.features.packed import INDEX, FeatureFiles
from circuit_tracer_cli.files.atomic import atomic_writer
from circuit_tracer_cli.viewer_files import static_folder

if TYPE_CHECKING:
    from circuit_tracer_cli.export import Destination
    from circuit_tracer_cli.graph.graph import Graph

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' data: blob:; worker-src data: blob:; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; form-action 'none'; base-uri 'none'"
)
_IMPORT = re.compile(r"""(\bfrom\s*|\bimport\s*\(?\s*)(["'])(\.{1,2}/[^"']+)\2""")
_STYLE_SHEET = re.compile(r'<link rel="stylesheet" href="([^"]+)"')
_LEFT_OUT = frozenset(["vendor/pdf.js"])
"""Too large for every page; standalone pages save figures as SVG and PNG."""
_EXAMPLES_BYTES = 12_000_000
"""Largest size of feature examples in bytes; the most influential features come first."""


def export(pruned: Graph, to: Destination) -> list[Path]:
    """Write `{slug}.html`, with the annotations of `{slug}.json` in the same folder and the examples of `features_dir`.

    Raises:
        UsageError: As for the JSON file.
        OutputError: The folder can't be written to.
        MissingFile: `features_dir` has no examples, or the viewer isn't installed.
    """
    from circuit_tracer_cli.export.viewer import graph_parts, make_folder

    parts = graph_parts(pruned, to.slug)
    document = io.BytesIO()
    parts, annotations = parts.annotated(to.directory / f"{to.slug}.json")
    write_graph_json(document, parts.metadata, annotations, parts.nodes, parts.links(), parts.beside)
    features, labels = _examples(parts.nodes, to.features_dir)
    content = carried(document.getvalue(), features, labels)
    target = make_folder(to.directory) / f"{to.slug}.html"
    with atomic_writer(target) as stream:
        for piece in page(static_folder(), parts.metadata.prompt, content):
            stream.write(piece)
    return [target]


def page(folder: Path, title: str, content: bytes) -> Iterator[bytes]:
    """Yield the page's pieces in order.

    Args:
        folder: The viewer's static files.
        title: The window's title.
        content: The result of `carried`.
    """
    style = _style(folder)
    yield (
        '<!doctype html>\n<html lang="en" data-theme="light">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n"
        f'<link rel="icon" href="{_address(folder / "icon.svg", "image/svg+xml")}">\n<style>\n{style}\n</style>\n'
    ).encode()
    yield b'<script type="importmap">' + encode_json({"imports": _modules(folder)}) + b"</script>\n</head>\n"
    yield b'<body>\n<header id="header" class="topbar"></header>\n<main id="panels" class="panels"></main>\n'
    yield b"<noscript>This page needs JavaScript.</noscript>\n"
    yield b'<script type="application/json" id="embedded-graph">' + _inert(content) + b"</script>\n"
    yield b'<script type="module">import "viewer/main.js";</script>\n</body>\n</html>\n'


def _style(folder: Path) -> str:
    """The style sheets that the viewer's page links, in its order."""
    names = _STYLE_SHEET.findall((folder / "index.html").read_text(encoding="utf-8"))
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def _inert(content: bytes) -> bytes:
    """The same JSON, escaped so that it can't end the element around it."""
    return content.replace(b"<", b"\\u003c")


def _modules(folder: Path) -> dict[str, str]:
    """Each module that the page reaches, by the name that others import it under."""
    found: dict[str, str] = {}
    waiting = ["main.js"]
    while waiting:
        name = waiting.pop()
        if f"viewer/{name}" in found:
            continue
        here = posixpath.dirname(name)
        imports: list[str] = []

        def renamed(match: re.Match[str], here: str = here, imports: list[str] = imports) -> str:
            path = posixpath.normpath(posixpath.join(here, match[3]))
            imports.append(path)
            return f"{match[1]}{match[2]}viewer/{path}{match[2]}"

        source = (folder / name).read_text(encoding="utf-8")
        content = _IMPORT.sub(renamed, source).encode()
        found[f"viewer/{name}"] = "data:text/javascript;base64," + base64.b64encode(content).decode()
        waiting += [path for path in imports if path not in _LEFT_OUT]
    return dict(sorted(found.items()))


def _address(path: Path, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(path.read_bytes()).decode()}"


def carried(document: bytes, features: Mapping[str, Any] | None, labels: Mapping[str, Any]) -> bytes:
    """Return a page's data: the JSON of a graph file, and the records and labels of its features by Cantor code."""
    about = b'"features":%b,"labels":%b' % (encode_json(features), encode_json(labels))
    return b'{"graph":%b,%b}' % (document, about)


def most_records(
    shown: Mapping[int, tuple[int, int]], record: Callable[[int, int], dict[str, Any] | None]
) -> dict[str, dict[str, Any]]:
    """Return the records of features by Cantor code, up to a size.

    Args:
        shown: Layer and feature by code, most influential first.
        record: Reads a feature's record; features without a readable one are left out.
    """
    records, size = {}, 0
    for code, place in shown.items():
        try:
            found = record(*place)
        except (MissingFile, BadFeatureFiles):
            continue
        if found is None:
            continue
        size += len(json.dumps(found))
        if size <= _EXAMPLES_BYTES:
            records[str(code)] = found
    return records


def _examples(
    nodes: list[Node], features_dir: Path | None
) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
    """Records and proposed labels of the features among the nodes, by Cantor code; None without any examples."""
    if features_dir is None:
        return None, {}
    if not (features_dir / INDEX).is_file():
        raise MissingFile(
            f"{features_dir} has no feature examples: {INDEX} is missing",
            hint="make them with circuit-tracer features build, or omit --features-dir",
        )
    files = FeatureFiles(features_dir)
    shown = {
        node.feature: (int(node.layer), int(node.node_id.split("_")[1]))
        for node in sorted(nodes, key=lambda node: node.influence if node.influence is not None else 2.0)
        if node.feature_type == FEATURE_TYPE and node.feature is not None
    }
    labels = {str(code): label for code, place in shown.items() if (label := files.label(*place)) is not None}
    return most_records(shown, files.feature), labels
