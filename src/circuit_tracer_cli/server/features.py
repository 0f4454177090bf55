"""Feature examples from a local folder: `index.json.gz` and the binary files that it names.

A layer's item in the index is `{"filename", "offsets"}`; the record of feature f lies at
`offsets[f] … offsets[f+1]` and is a 4-byte little-endian length followed by that many bytes of zlib or gzip
data, which inflate to UTF-8 JSON.
"""

from __future__ import annotations

import gzip
import json
import struct
import threading
import zlib
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import BadGraphFile
from circuit_tracer_cli.server.paths import contained

INDEX_NAME = "index.json.gz"
_MAX_RECORD = 64 << 20
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, OverflowError, RecursionError)
_REBUILD = "build the folder again with `circuit-tracer features build`"


@dataclass(frozen=True, slots=True)
class LayerIndex:
    """Where one layer's records are."""

    filename: str
    offsets: array[int]


class FeatureFolder:
    """The feature examples of one transcoder set. Every method blocks on the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._index: tuple[tuple[int, int], dict[int, LayerIndex]] | None = None
        self._lock = threading.Lock()

    def record(self, layer: int, feature: int) -> bytes | None:
        """The feature's JSON text, or None if the folder holds no examples of it (it was never active).

        Raises:
            MissingFile: The index, or a file that it names, isn't there.
            BadGraphFile: Index or record can't be read.
        """
        item = self._layers().get(layer)
        if item is None or not 0 <= feature < len(item.offsets) - 1:
            return None
        start, stop = item.offsets[feature], item.offsets[feature + 1]
        if stop <= start:
            return None
        with contained(self.root, item.filename).open("rb") as file:
            file.seek(start)
            return _inflate(file.read(min(stop - start, _MAX_RECORD)))

    def _layers(self) -> dict[int, LayerIndex]:
        path = contained(self.root, INDEX_NAME)
        status = path.stat()
        version = (status.st_mtime_ns, status.st_size)
        with self._lock:
            if self._index is None or self._index[0] != version:
                self._index = (version, _read_index(path))
            return self._index[1]


def _read_index(path: Path) -> dict[int, LayerIndex]:
    try:
        document = json.loads(gzip.decompress(path.read_bytes()))
        return {layer: _layer_index(item) for layer, item in _items(document)}
    except (*_UNREADABLE, zlib.error) as error:
        raise BadGraphFile(f"{INDEX_NAME} can't be read: {error}", _REBUILD) from error


def _layer_index(item: Any) -> LayerIndex:
    return LayerIndex(str(item["filename"]), array("Q", item["offsets"]))


def _items(document: Any) -> list[tuple[int, Any]]:
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    return [(int(layer), item) for layer, item in pairs if item]


def _inflate(record: bytes) -> bytes:
    try:
        (length,) = struct.unpack_from("<I", record)
        engine = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        text = engine.decompress(record[4 : 4 + length], _MAX_RECORD)
    except (struct.error, zlib.error) as error:
        raise BadGraphFile(f"a feature record can't be read: {error}", _REBUILD) from error
    if not engine.eof:
        raise BadGraphFile("a feature record is truncated or too large", _REBUILD)
    return text
