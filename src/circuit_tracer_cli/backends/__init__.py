"""Backends by name. Each turns a loaded model into frozen quantities for the engine."""

from __future__ import annotations

import importlib
from typing import Any

from circuit_tracer_cli.backends.base import Backend
from circuit_tracer_cli.errors import InvalidValue

BACKENDS: dict[str, str] = {
    "transformerlens": "circuit_tracer_cli.backends.transformerlens:TransformerLensBackend",
    "nnsight": "circuit_tracer_cli.backends.nnsight:NnsightBackend",
}


def backend_class(name: str) -> Any:
    """The class of a backend. Raises InvalidValue (a ValueError) for an unknown name."""
    if name not in BACKENDS:
        raise InvalidValue(f"unknown backend {name!r}", hint=f"choose one of: {', '.join(BACKENDS)}")
    module, _, attribute = BACKENDS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


__all__ = ["BACKENDS", "Backend", "backend_class"]
