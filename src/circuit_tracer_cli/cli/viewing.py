"""Start the viewer, print its address, and keep it up until Ctrl-C."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from circuit_tracer_cli.cli.options import DEFAULT_HOST, DEFAULT_PORT
from circuit_tracer_cli.cli.output import Output

if TYPE_CHECKING:
    from circuit_tracer_cli.server.live import LiveTrace
    from circuit_tracer_cli.server.model import ModelRunner
    from circuit_tracer_cli.server.serve import Server


@dataclass(frozen=True, slots=True)
class Viewer:
    """Settings of a viewer on a folder of graph files.

    Args:
        directory: The folder.
        features_dir: Feature examples; those next to a graph's transcoders, or on the hub, are found without it.
        host, port: Where to listen; port 0 takes a free one.
        allow_origin: Origins of notebook proxies that may show the page.
        runner: The model that the page runs interventions on.
        root_path: Path prefix that a proxy keeps in every request.
        token: True if clients need a token; None requires one only if other machines can reach the host.
    """

    directory: Path
    features_dir: Path | str | None = None
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    allow_origin: tuple[str, ...] = ()
    runner: ModelRunner | None = None
    root_path: str = ""
    token: bool | None = None

    def start(self, live: LiveTrace | None = None) -> Server:
        """Start serving in a background thread. Raises MissingFile for a missing folder, ServerError for a port in use."""
        from circuit_tracer_cli.server.serve import serve

        return serve(
            self.directory,
            features_dir=self.features_dir,
            host=self.host,
            port=self.port,
            allow_origins=self.allow_origin,
            live=live,
            model=self.runner,
            root_path=self.root_path,
            token=self.token,
        )

    def announce(self, server: Server, output: Output, slug: str | None = None) -> None:
        """The URL on stdout, of one graph if its slug is given; on stderr what is served, and how to reach it from elsewhere."""
        output.note(f"serving {self.directory.resolve()}")
        opened = "" if slug is None else f"{'&' if '?' in server.link else '?'}slug={quote(slug)}"
        output.result(f"{server.link}{opened}")
        sys.stdout.flush()
        if self.host in {"127.0.0.1", "localhost", "::1"}:
            output.note(
                f"from another machine: ssh -L {server.port}:127.0.0.1:{server.port} {socket.gethostname()}"
            )
        output.note("Ctrl-C stops the viewer")
