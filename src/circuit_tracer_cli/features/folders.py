"""Where the feature examples of a transcoder set lie on this machine. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from circuit_tracer_cli.features.pack import INDEX


def examples_folder(scan: object) -> Path | None:
    """The examples that come with a set, in the folder `features` inside its own, or None.

    Args:
        scan: The set's identifier, as graphs carry it, or its reference: `demo`, `demo-clt`, `demo-plt`, a folder.
    """
    return next((folder for folder in _candidates(scan) if (folder / INDEX).is_file()), None)


def _candidates(scan: object) -> Iterator[Path]:
    if not isinstance(scan, str) or not scan or "\0" in scan or len(scan) > 4096:
        return
    if scan in {"demo", "demo-clt", "demo-plt"}:
        from circuit_tracer_cli.demo import transcoder_dir

        yield transcoder_dir("plt" if scan == "demo-plt" else "clt") / "features"
    else:
        yield Path(scan).expanduser() / "features"
