"""For a graph, where the examples of its features come from: a folder that was named, the set's own, or the hub."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from circuit_tracer_cli.errors import CircuitTracerError, MissingFile
from circuit_tracer_cli.features.folders import examples_folder
from circuit_tracer_cli.files.locations import cache_root
from circuit_tracer_cli.server.features import FeatureFolder
from circuit_tracer_cli.server.hub_features import HubFeatures

_RETRY_SECONDS = 30.0
_HINT = "serve with --features-dir FOLDER; circuit-tracer features build makes them"
_NEURONPEDIA = {"mwhanna/gemma-scope-transcoders": ("gemma-2-2b", "gemmascope-transcoder-16k")}


class Records(Protocol):
    """Somewhere that has feature records."""

    def record(self, layer: int, feature: int) -> dict[str, Any] | None:
        """One record, None if there is none of the feature. Raises CircuitTracerError."""


Source = TypeVar("Source", bound=Records)


class FeatureSources:
    """The examples of any set. A set without them is asked for again after a while.

    Args:
        chosen: A folder that is used whatever the graph's set is.
        cache: Where records from the hub are kept.
    """

    def __init__(self, chosen: Path | None, cache: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._chosen = None if chosen is None else FeatureFolder(chosen)
        self._cache, self._clock = cache, clock
        self._known: dict[str, Records] = {}
        self._failed: dict[str, tuple[float, CircuitTracerError]] = {}
        self._lock = threading.Lock()

    def folder(self, scan: object) -> FeatureFolder | None:
        """The examples of a set on this machine."""
        if self._chosen is not None or not isinstance(scan, str):
            return self._chosen
        known = self._known.get(scan)
        found = None if known is not None else examples_folder(scan)
        if found is not None:
            known = self._remember(scan, FeatureFolder(found.resolve()))
        return known if isinstance(known, FeatureFolder) else None

    def answer(self, metadata: Mapping[str, Any], layer: int, feature: int) -> dict[str, Any]:
        """The record of a feature of a graph, or why there is none, and where else it is shown.

        Returns:
            `record` (or null), `reason` and `hint` (or null), `set`, `link` (or null).
        """
        scan = _set_of(metadata, layer)
        answer: dict[str, Any] = {
            "record": None,
            "reason": None,
            "hint": None,
            "set": scan,
            "link": _link(metadata, layer, feature),
        }
        try:
            answer["record"] = self._record(scan, layer, feature)
        except CircuitTracerError as error:
            return {**answer, "reason": error.message, "hint": error.hint}
        if answer["record"] is None:
            answer["reason"] = (
                "the examples hold nothing of this feature: it wasn't active on the texts they are from"
            )
        return answer

    def _record(self, scan: str, layer: int, feature: int) -> dict[str, Any] | None:
        source: Records = self.folder(scan) or self._on_the_hub(scan)
        failed = self._failed.get(scan)
        if failed is not None and self._clock() - failed[0] < _RETRY_SECONDS:
            raise failed[1]
        try:
            return source.record(layer, feature)
        except CircuitTracerError as error:
            if isinstance(source, HubFeatures):
                self._failed[scan] = (self._clock(), error)
            raise

    def _on_the_hub(self, scan: str) -> Records:
        from circuit_tracer_cli.transcoders.references import hub_reference

        known = self._known.get(scan)
        if known is not None:
            return known
        found = None if scan.startswith(("/", ".", "~")) else hub_reference(scan.replace("//", "/", 1))
        if found is None:
            raise MissingFile(f"no feature examples are known for the set {scan[:200]!r}", _HINT)
        return self._remember(scan, HubFeatures(found.repo_id, found.path, found.revision, self._cache))

    def _remember(self, scan: str, source: Source) -> Source:
        with self._lock:
            self._known[scan] = source
        return source


def feature_cache() -> Path:
    """Where records from the hub are kept: `features` in `CIRCUIT_TRACER_CACHE_DIR`, else in the user's cache folder."""
    return cache_root() / "features"


def _set_of(metadata: Mapping[str, Any], layer: int) -> str:
    """The set that a layer's features belong to: a graph over several sets lists one for each layer."""
    sets = metadata.get("transcoder_list")
    if isinstance(sets, list) and 0 <= layer < len(sets):
        return str(sets[layer])
    return str(metadata.get("scan", ""))


def _link(metadata: Mapping[str, Any], layer: int, feature: int) -> str | None:
    """The feature's page on Neuronpedia, where the set is one of those shown there."""
    scan = _set_of(metadata, layer)
    details = metadata.get("feature_details")
    sources = details.get("neuronpedia_source_set") if isinstance(details, dict) else None
    model, source = _NEURONPEDIA.get(scan.partition("@")[0], (scan, sources))
    if not isinstance(source, str) or not source or "/" in model or not model:
        return None
    return f"https://www.neuronpedia.org/{quote(model, safe='')}/{layer}-{quote(source, safe='')}/{feature}"
