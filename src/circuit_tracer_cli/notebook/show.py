"""The viewer inside a notebook: one call starts a server on a free port and shows its page in the cell.

Works in Jupyter and VS Code on this machine, in Colab, and behind a JupyterHub with jupyter-server-proxy.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.features.packed import examples_folder
from circuit_tracer_cli.notebook.html import text

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.server.serve import Server

LOCAL_NOTEBOOKS = ("http://localhost:*", "http://127.0.0.1:*", "vscode-webview:")
COLAB = ("https://*.googleusercontent.com", "https://colab.research.google.com")


class GraphView:
    """The viewer on a graph; a notebook shows it as a frame.

    Attributes:
        server: The running server.
        address: URL of the frame's page, as the browser sees it.
    """

    def __init__(self, server: Server, address: str, height: int, cleanup: ExitStack) -> None:
        self.server, self.address, self.height = server, address, height
        self._cleanup = cleanup

    @property
    def url(self) -> str:
        """URL of the page for a browser on this machine."""
        return self.server.url

    def stop(self) -> None:
        """Stop the server. The frame stays as it is, but can no longer save."""
        self._cleanup.close()

    def _repr_html_(self) -> str:
        return (
            f'<iframe src="{text(self.address)}" width="100%" height="{self.height}" '
            f'style="border:1px solid #dedbd2;border-radius:8px" allow="clipboard-write"></iframe>'
        )

    def _ipython_display_(self) -> None:
        colab = sys.modules.get("google.colab.output") if "google.colab" in sys.modules else None
        if colab is not None:
            path = "/" + self.address.removeprefix(self.server.url)
            colab.serve_kernel_port_as_iframe(self.server.port, path=path, height=str(self.height))
            return
        from IPython.display import HTML, display

        display(HTML(self._repr_html_()))


def show_graph(
    graph: Graph | str | os.PathLike[str],
    *,
    slug: str | None = None,
    model: ReplacementModel | None = None,
    folder: str | os.PathLike[str] | None = None,
    features_dir: str | os.PathLike[str] | None = None,
    height: int = 800,
    base_url: str | None = None,
    allow_origins: Iterable[str] = (),
    node_threshold: float | None = None,
    edge_threshold: float | None = None,
) -> GraphView:
    """Show a graph in the notebook.

    Args:
        graph: A graph, a graph file, or a folder of the viewer's graph files.
        slug: Name of the graph in the viewer; for a folder, the graph to show first.
        model: Model for interventions from the page.
        folder: Folder for the graph's JSON file with its annotations; by default a temporary one.
        features_dir: Feature examples; those of the demo and of local sets are found automatically.
        height: Height of the frame in pixels.
        base_url: The notebook server's path, for jupyter-server-proxy; that of a JupyterHub is found automatically.
        allow_origins: Origin of the notebook's page, for a hub: `https://hub.example.org`.
        node_threshold, edge_threshold: As in `create_graph_files`.

    Raises:
        CircuitTracerError: The graph or folder can't be read.
    """
    from circuit_tracer_cli.server.serve import serve

    prefix = _proxy_prefix(base_url)
    origins = list(allow_origins)
    with ExitStack() as cleanup:
        if isinstance(graph, str | os.PathLike) and Path(graph).is_dir():
            directory, scan = Path(graph), None
        else:
            directory = Path(
                folder or cleanup.enter_context(tempfile.TemporaryDirectory(prefix="circuit-tracer-"))
            )
            slug = slug or "graph"
            scan = _write(graph, slug, directory, node_threshold, edge_threshold)
        server = serve(
            directory,
            features_dir=Path(features_dir) if features_dir is not None else examples_folder(scan),
            port=0,
            allow_origins=origins,
            frame_origins=(*LOCAL_NOTEBOOKS, *(COLAB if "google.colab" in sys.modules else ()), *origins),
            model=model,
        )
        cleanup.callback(server.stop)
        return GraphView(server, _address(server, slug, prefix), height, cleanup.pop_all())


def _write(
    graph: Graph | str | os.PathLike[str],
    slug: str,
    directory: Path,
    node_threshold: float | None,
    edge_threshold: float | None,
) -> str | list[str] | None:
    """Write the viewer's files of a graph, and return its scan."""
    from circuit_tracer_cli.export import Destination
    from circuit_tracer_cli.export.viewer import export
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.graph.prune import pruned_graph
    from circuit_tracer_cli.graph.store import load_graph

    record = graph if isinstance(graph, Graph) else load_graph(graph)
    export(pruned_graph(record, node_threshold, edge_threshold), Destination(slug, directory))
    return record.scan


def _proxy_prefix(base_url: str | None) -> str | None:
    """The notebook server's path, if its proxy is between browser and kernel. Raises InvalidValue for an invalid path."""
    prefix = base_url or os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    if prefix is not None and not prefix.startswith("/"):
        raise InvalidValue(f"base_url {prefix!r} doesn't begin with /", "for example /user/me/")
    return prefix


def _address(server: Server, slug: str | None, prefix: str | None) -> str:
    """The page's URL for the browser: direct, or through the notebook server's proxy."""
    query = "?" + urlencode({"slug": slug}, quote_via=quote) if slug else ""
    return f"{server.url}{query}" if prefix is None else f"{prefix.rstrip('/')}/proxy/{server.port}/{query}"
