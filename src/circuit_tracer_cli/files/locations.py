"""Where this program keeps its own files: one cache folder and one data folder, and where earlier versions had them."""

from __future__ import annotations

import os
from pathlib import Path

_CACHE, _DATA = "circuit_tracer", "circuit-tracer"


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """The cache's folder: `cache_dir`, else `CIRCUIT_TRACER_CACHE_DIR`, else `circuit_tracer` in the user's cache folder.

    That folder is `XDG_CACHE_HOME`, else the system's usual place (`~/.cache` on Linux, `~/Library/Caches` on macOS).
    """
    named = cache_dir or os.environ.get("CIRCUIT_TRACER_CACHE_DIR")
    if named:
        return Path(named).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path(_CACHE, appauthor=False).absolute()


def cache_roots(cache_dir: str | Path | None = None) -> list[Path]:
    """The cache's folder, and behind it the one of earlier versions, if that is another one and exists.

    Earlier versions kept converted sets in `~/.cache/circuit_tracer` whatever the system or `XDG_CACHE_HOME` said, and so
    does the reference. Nothing is moved from there, since the reference may be in use; it is still found.
    """
    roots = [cache_root(cache_dir)]
    if cache_dir is None and not os.environ.get("CIRCUIT_TRACER_CACHE_DIR"):
        earlier = Path("~/.cache").expanduser().absolute() / _CACHE
        if earlier != roots[0] and earlier.is_dir():
            roots.append(earlier)
    return roots


def data_folder() -> Path:
    """The folder of what a user made and would miss: `circuit-tracer` in `XDG_DATA_HOME`, else in the system's usual place.

    Where an earlier version wrote to `~/.local/share` on a system that has another usual place, it stays there.
    """
    from platformdirs import user_data_path

    folder = user_data_path(_DATA, appauthor=False).absolute()
    earlier = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser().absolute() / _DATA
    return earlier if earlier.is_dir() and not folder.is_dir() else folder
