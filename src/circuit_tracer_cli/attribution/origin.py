"""Where a graph comes from, as its file says it: program, model, transcoders, library versions, devices, time."""

from __future__ import annotations

import platform
import time
from importlib import metadata as packages
from typing import Any

from circuit_tracer_cli import __version__
from circuit_tracer_cli.backends.devices import in_words
from circuit_tracer_cli.replacement import ReplacementModel

LIBRARIES = ("torch", "transformers", "transformer_lens")
OF_BACKEND = {"nnsight": ("nnsight",)}
"""Libraries that only one backend runs through."""


def origin(model: ReplacementModel) -> dict[str, Any]:
    """What made a graph, for its metadata."""
    transcoders = model.transcoders
    return {
        "generator": {"name": "circuit-tracer-cli", "version": __version__},
        "model": model.cfg.model_name,
        **({} if model.revision is None else {"model_revision": model.revision}),
        "transcoders": {
            "scan": model.scan,
            "kind": transcoders.kind,
            "feature_input_hook": transcoders.feature_input_hook,
            "feature_output_hook": transcoders.feature_output_hook,
            **({"ln2_hook_normalized": transcoders.normalized} if transcoders.normalized else {}),
            **({"layers_without": list(transcoders.missing_layers)} if transcoders.missing_layers else {}),
        },
        "backend": model.backend,
        "dtype": model.cfg.dtype,
        "device": in_words(model.model.layer_devices),
        "versions": {
            "python": platform.python_version(),
            **versions(*LIBRARIES, *OF_BACKEND.get(model.backend, ())),
        },
        "create_time_ms": int(time.time() * 1000),
    }


def versions(*names: str) -> dict[str, str]:
    """Installed versions."""
    return {name: packages.version(name) for name in names}
