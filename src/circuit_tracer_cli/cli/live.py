"""How a trace ended, told to the page that `attribute --server` shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuit_tracer_cli.server.live import LiveTrace


@contextmanager
def told(live: LiveTrace) -> Iterator[None]:
    """Around the work: the page learns how it ended, before the server goes too. An interruption ends the server at once."""
    from circuit_tracer_cli.server.partial import ended

    try:
        with ended(live, "the terminal that it runs in says more"):
            yield
    except Exception:
        live.farewell()
        raise
