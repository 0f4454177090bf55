"""`doctor`: report versions, devices, and what is missing."""

from __future__ import annotations

import os
import platform
import sys
from importlib.resources import files
from typing import Annotated, Any

import typer

from circuit_tracer_cli import __version__
from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.files.capacity import size_in_words, total_memory

_LIBRARIES = (
    "torch", "transformers", "transformer-lens", "safetensors", "huggingface_hub", "typer", "rich", "starlette", "uvicorn",
)  # fmt: skip
_OPTIONAL = ("nnsight", "networkx", "pandas")
_GIB = 1 << 30


ModelsOpt = Annotated[bool, typer.Option("--models", help="List the models that can be traced, and how.")]


def doctor(models: ModelsOpt = False, json_: opt.JsonOpt = False) -> None:
    """Print versions, devices, memory and folders, and whether the embedded demo is complete.

    Paste the output into bug reports. With --models, print which models can be traced instead.
    """
    output = Output()
    silence_libraries(output)
    if models:
        from circuit_tracer_cli.cli.model_table import show_models

        show_models(output, as_json=json_)
        return
    report = examine()
    if json_:
        output.data(report)
        return
    for title, entries in report.items():
        rows = [(name, _shown(value)) for name, value in entries.items()]
        output.table(title.capitalize(), ("", ""), rows)
        output.result()


def examine() -> dict[str, dict[str, Any]]:
    """The report: `versions`, `machine`, `folders`, `parts`."""
    return {"versions": _versions(), "machine": _machine(), "folders": _folders(), "parts": _parts()}


def _versions() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, Any] = {"circuit-tracer-cli": __version__, "python": platform.python_version()}
    for name in (*_LIBRARIES, *_OPTIONAL):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _machine() -> dict[str, Any]:
    import torch

    memory = total_memory() / _GIB
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = ["cpu"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append(f"cuda:{index} {properties.name}, {size_in_words(properties.total_memory)}")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores,
        "torch threads": torch.get_num_threads(),
        "memory (GiB)": round(memory, 1),
        "devices": devices,
    }


def _folders() -> dict[str, Any]:
    cache = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface"
    )
    return {"package": str(files("circuit_tracer_cli")), "hub cache": cache, "python": sys.prefix}


def _parts() -> dict[str, Any]:
    """Check the parts that the package must contain: the viewer and the demo."""
    from circuit_tracer_cli.errors import MissingFile
    from circuit_tracer_cli.viewer_files import static_folder

    try:
        viewer = str(static_folder())
    except MissingFile:
        viewer = None
    data = files("circuit_tracer_cli.demo") / "data"
    demo = {name: (data / name / "config.yaml").is_file() for name in ("clt", "plt")}
    return {
        "viewer": viewer,
        "demo model": (data / "model" / "config.json").is_file(),
        **{f"demo {k}": v for k, v in demo.items()},
    }


def _shown(value: Any) -> str:
    if value is None or value is False:
        return "missing"
    if isinstance(value, list):
        return ", ".join(value)
    return "there" if value is True else str(value)
