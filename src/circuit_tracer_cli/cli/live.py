"""How a trace ended, told to the page that `attribute --server` shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from circuit_tracer_cli.errors import CircuitTracerError

if TYPE_CHECKING:
    from circuit_tracer_cli.server.live import LiveTrace


@contextmanager
def told(live: LiveTrace) -> Iterator[None]:
    """Around the work: the page learns how it ended. An interruption ends the server at once."""
    try:
        yield
    except CircuitTracerError as error:
        live.fail(error.message, error.hint)
        live.farewell()
        raise
    except Exception as error:
        live.fail(f"the trace failed: {type(error).__name__}", "the terminal that it runs in says more")
        live.farewell()
        raise
    live.finish()
