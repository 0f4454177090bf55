"""Where a transcoder set's feature examples are, and the labels in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

_INDEX = "index.json.gz"
_LIST = "graph-metadata.json"


def examples_folder(scan: object) -> Path | None:
    """The examples that come with a set, in the folder `features` inside its own, or None.

    Args:
        scan: The set's identifier, as graphs carry it, or its reference: `demo`, `demo-clt`, `demo-plt`, a folder.
    """
    return next((folder for folder in _candidates(scan) if (folder / _INDEX).is_file()), None)


def examples_of_graphs(directory: Path) -> Path | None:
    """The examples of the set that the newest graph in a folder was made with, or None."""
    try:
        graphs = json.loads((directory / _LIST).read_text(encoding="utf-8"))["graphs"]
        scans = [entry.get("scan") for entry in graphs]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return next((found for scan in reversed(scans) if (found := examples_folder(scan))), None)


def labels_of(scan: object, features_dir: str | None) -> dict[tuple[int, int], str]:
    """Short labels by (layer, feature), from a named folder or from the set's own; empty where there are none.

    Raises MissingFile or BadFeatureFiles for a named folder that holds no examples.
    """
    folder = Path(features_dir) if features_dir is not None else examples_folder(scan)
    if folder is None:
        return {}
    from circuit_tracer_cli.features.read import FeatureFiles

    found = {}
    for name, label in FeatureFiles(folder).labels().items():
        layer, _, feature = name.partition("/")
        text = label.get("text")
        if layer.isdigit() and feature.isdigit() and isinstance(text, str) and text:
            found[int(layer), int(feature)] = text
    return found


def _candidates(scan: object) -> Iterator[Path]:
    if not isinstance(scan, str) or not scan:
        return
    if scan in {"demo", "demo-clt", "demo-plt"}:
        from circuit_tracer_cli.demo import transcoder_dir

        yield transcoder_dir("plt" if scan == "demo-plt" else "clt") / "features"
    else:
        yield Path(scan).expanduser() / "features"
