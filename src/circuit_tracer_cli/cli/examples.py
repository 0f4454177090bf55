"""Where a transcoder set's feature examples are, and the labels in them."""

from __future__ import annotations

from pathlib import Path

from circuit_tracer_cli.features.packed import examples_folder


def labels_of(scan: object, features_dir: str | None) -> dict[tuple[int, int], str]:
    """Return short labels by (layer, feature), from a named folder or the set's own; empty if there are none.

    Raises MissingFile or BadFeatureFiles for a named folder without examples.
    """
    folder = Path(features_dir) if features_dir is not None else examples_folder(scan)
    if folder is None:
        return {}
    from circuit_tracer_cli.features.packed import FeatureFiles

    found = {}
    for name, label in FeatureFiles(folder).labels().items():
        layer, _, feature = name.partition("/")
        text = label.get("text")
        if layer.isdigit() and feature.isdigit() and isinstance(text, str) and text:
            found[int(layer), int(feature)] = text
    return found
