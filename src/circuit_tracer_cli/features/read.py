"""Reads feature examples: one record, or all labels. Imports no torch."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import BadFeatureFiles, MissingFile
from circuit_tracer_cli.features.pack import ABOUT, INDEX, LABELS

_MAX_RECORD = 64 << 20
_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_AGAIN = "build the folder again with circuit-tracer features build"


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """One layer's item of the index."""

    filename: str
    offsets: tuple[int, ...]


class FeatureFiles:
    """A folder of feature examples in the layout of `pack`, or of other makers in the same layout.

    Args:
        directory: The folder that holds `index.json.gz`.

    Raises:
        MissingFile: The folder has no index.
        BadFeatureFiles: The index is damaged.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.layers = _read_index(self.directory / INDEX)
        self._labels: dict[str, dict[str, Any]] | None = None

    def feature(self, layer: int, index: int) -> dict[str, Any]:
        """A feature's record with the keys of the format.

        Raises:
            MissingFile: The set has no such feature, or its layer's file isn't there.
            BadFeatureFiles: The record is damaged.
        """
        entry = self.layers.get(layer)
        if entry is None or not 0 <= index < len(entry.offsets) - 1:
            raise MissingFile(f"{self.directory} has no examples of feature {index} in layer {layer}")
        start, stop = entry.offsets[index], entry.offsets[index + 1]
        path = self.directory / Path(entry.filename).name
        try:
            with path.open("rb") as stream:
                stream.seek(start)
                content = stream.read(max(0, min(stop - start, _MAX_RECORD)))
        except OSError as error:
            raise MissingFile(f"{path} can't be read: {error.strerror}") from error
        return unpack_record(content)

    def n_features(self, layer: int) -> int:
        """How many records a layer has; 0 for one that isn't there."""
        entry = self.layers.get(layer)
        return 0 if entry is None else len(entry.offsets) - 1

    def labels(self) -> dict[str, dict[str, Any]]:
        """All labels by `layer/feature`; none in a folder of another maker. Raises BadFeatureFiles."""
        if self._labels is None:
            path = self.directory / LABELS
            self._labels = _read_gzipped(path) if path.exists() else {}
        return self._labels

    def label(self, layer: int, index: int) -> dict[str, Any] | None:
        """One label (text, provenance, confidence), or None."""
        return self.labels().get(f"{layer}/{index}")

    def about(self) -> dict[str, Any]:
        """What the examples were made from; empty in a folder of another maker. Raises BadFeatureFiles."""
        path = self.directory / ABOUT
        if not path.exists():
            return {}
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except _DAMAGED as error:
            raise BadFeatureFiles(f"{path} can't be read: {error}", hint=_AGAIN) from error


def unpack_record(content: bytes) -> dict[str, Any]:
    """The record at the beginning of some bytes; what follows it doesn't matter. Raises BadFeatureFiles."""
    try:
        (length,) = struct.unpack_from("<I", content)
        engine = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # zlib or gzip
        text = engine.decompress(content[4 : 4 + length], _MAX_RECORD)
        if not engine.eof:
            raise BadFeatureFiles("a feature record is cut off or too large", hint=_AGAIN)
        return dict(json.loads(text))
    except (struct.error, zlib.error, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, BadFeatureFiles):
            raise
        raise BadFeatureFiles(f"a feature record can't be read: {error}", hint=_AGAIN) from error


def _read_index(path: Path) -> dict[int, LayerEntry]:
    if not path.is_file():
        raise MissingFile(
            f"{path.parent} holds no feature examples (no {INDEX})",
            hint="make them with circuit-tracer features build",
        )
    document = _read_gzipped(path)
    try:
        pairs = document.items() if isinstance(document, dict) else enumerate(document)
        return {
            int(layer): LayerEntry(str(item["filename"]), tuple(int(offset) for offset in item["offsets"]))
            for layer, item in pairs
            if item
        }
    except _DAMAGED as error:
        raise BadFeatureFiles(f"{path} isn't an index of feature examples: {error}", hint=_AGAIN) from error


def _read_gzipped(path: Path) -> Any:
    try:
        return json.loads(gzip.decompress(path.read_bytes()))
    except (*_DAMAGED, zlib.error) as error:
        raise BadFeatureFiles(f"{path} can't be read: {error}", hint=_AGAIN) from error
