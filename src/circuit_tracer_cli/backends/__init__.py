"""Backends by name. Each turns a loaded model into frozen quantities for the engine."""

from __future__ import annotations

import importlib
from typing import Any

from circuit_tracer_cli.backends.base import Backend
from circuit_tracer_cli.errors import InvalidValue

BACKENDS: dict[str, str] = {
    "transformers": "circuit_tracer_cli.backends.transformers:TransformersBackend",
    "transformerlens": "circuit_tracer_cli.backends.transformerlens:TransformerLensBackend",
    "nnsight": "circuit_tracer_cli.backends.nnsight:NnsightBackend",
}

_FASTEST = "transformers"


def backend_name(name: str) -> str:
    """Return the backend's full name: `auto` is the one that starts fastest."""
    return _FASTEST if name == "auto" else name


def backend_class(name: str) -> Any:
    """Return the class of a backend; `auto` is the one that starts fastest. Raises InvalidValue for an unknown name."""
    name = backend_name(name)
    if name not in BACKENDS:
        raise InvalidValue(f"unknown backend {name!r}", hint=f"choose one of: auto, {', '.join(BACKENDS)}")
    module, _, attribute = BACKENDS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


__all__ = ["BACKENDS", "Backend", "backend_class", "backend_name"]
