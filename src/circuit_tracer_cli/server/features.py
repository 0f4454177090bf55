"""Feature examples of a folder, read again when the folder is built again, and the labels of a graph's features."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from circuit_tracer_cli.features.pack import INDEX
from circuit_tracer_cli.features.read import FeatureFiles
from circuit_tracer_cli.server.paths import contained


class FeatureFolder:
    """The feature examples of one transcoder set. Every method blocks on the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: tuple[tuple[int, int], FeatureFiles] | None = None
        self._lock = threading.Lock()

    def record(self, layer: int, feature: int) -> dict[str, Any] | None:
        """What is known of a feature, or None if the folder holds nothing about it.

        Raises:
            MissingFile: The index, or a file that it names, isn't there.
            BadFeatureFiles: Index or record can't be read.
        """
        files = self._current()
        entry = files.layers.get(layer)
        if entry is None or not 0 <= feature < len(entry.offsets) - 1:
            return None
        if entry.offsets[feature + 1] <= entry.offsets[feature]:
            return None
        contained(self.root, entry.filename)
        return files.feature(layer, feature)

    def labels(self, features: Iterable[tuple[int, int]]) -> dict[int, dict[str, Any]]:
        """The proposed labels of these (layer, feature) pairs, by Cantor code. Raises as `record`."""
        files = self._current()
        pairs = [(layer, feature, files.label(layer, feature)) for layer, feature in set(features)]
        return {cantor(layer, feature): label for layer, feature, label in pairs if label is not None}

    def _current(self) -> FeatureFiles:
        status = contained(self.root, INDEX).stat()
        version = (status.st_mtime_ns, status.st_size)
        with self._lock:
            if self._files is None or self._files[0] != version:
                self._files = (version, FeatureFiles(self.root))
            return self._files[1]


def cantor(layer: int, feature: int) -> int:
    """The code by which graph files name a feature."""
    return (layer + feature) * (layer + feature + 1) // 2 + feature


def uncantor(code: int) -> tuple[int, int]:
    """The layer and feature of a code."""
    total = (math.isqrt(8 * code + 1) - 1) // 2
    feature = code - total * (total + 1) // 2
    return total - feature, feature


def feature_codes(content: bytes) -> set[int]:
    """The codes of all features that a graph file holds. Entries of another form are passed over."""
    codes = (node.get("feature") for node in json.loads(content)["nodes"] if _is_feature(node))
    return {code for code in codes if isinstance(code, int) and code >= 0}


def feature_node_codes(nodes: list[Any]) -> list[int]:
    """The codes of the features among the nodes of a graph file, those of the smallest cumulative influence first."""
    found = [node for node in nodes if _is_feature(node) and isinstance(node.get("feature"), int)]
    rank = [node.get("influence") for node in found]
    order = sorted(range(len(found)), key=lambda i: rank[i] if isinstance(rank[i], int | float) else 2.0)
    return [code for i in order if (code := found[i]["feature"]) >= 0]


def _is_feature(node: Any) -> bool:
    kind = node.get("feature_type") if isinstance(node, dict) else None
    return isinstance(kind, str) and kind not in ("embedding", "logit") and "error" not in kind
