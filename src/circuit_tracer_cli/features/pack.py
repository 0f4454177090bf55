"""Feature records as bytes: one binary file per layer, an index that says where each record lies, and all labels.

    index.json.gz     per layer {"filename", "offsets"} or null; record f lies at offsets[f] … offsets[f + 1]
    layer_L-HASH.bin  records: 4-byte little-endian length, then so many bytes of zlib data, which inflate to JSON
    labels.json.gz    {"layer/feature": {text, provenance, confidence}}
    features.json     what the examples were made from

A layer's file is named by its content, so that a new build never changes a file which the old index points into: the
index takes its place in one step, and until then the old examples can be read. Imports no torch.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuit_tracer_cli.features.records import FeatureRecord
from circuit_tracer_cli.files.atomic import atomic_writer, output_error, write_bytes

INDEX, LABELS, ABOUT = "index.json.gz", "labels.json.gz", "features.json"
_LAYER_FILE = re.compile(r"layer_\d+-[0-9a-f]{8}\.bin")


@dataclass(frozen=True, slots=True)
class LayerFile:
    """A written layer file and where its records lie."""

    filename: str
    offsets: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the index."""
        return {"filename": self.filename, "offsets": list(self.offsets)}


def pack_record(record: FeatureRecord) -> bytes:
    """The record with its length in front."""
    text = json.dumps(record.to_dict(), ensure_ascii=False, separators=(",", ":"))
    body = zlib.compress(text.encode("utf-8", "replace"), 6)
    return struct.pack("<I", len(body)) + body


def write_layer(folder: Path, layer: int, records: Iterable[FeatureRecord], scratch: Path) -> LayerFile:
    """Write a layer's records, which come in the order of their features, by way of a scratch folder on the same disk.

    Raises OutputError.
    """
    temporary = scratch / f"layer_{layer}.bin"
    offsets, digest = [0], hashlib.sha256()
    try:
        with atomic_writer(temporary) as stream:
            for record in records:
                content = pack_record(record)
                stream.write(content)
                digest.update(content)
                offsets.append(offsets[-1] + len(content))
        filename = f"layer_{layer}-{digest.hexdigest()[:8]}.bin"
        os.replace(temporary, folder / filename)
    except OSError as error:
        raise output_error(folder / f"layer_{layer}.bin", error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return LayerFile(filename, tuple(offsets))


def write_json(path: Path, value: Any) -> None:
    """Compressed JSON, the same bytes for the same value. Raises OutputError."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    write_bytes(path, gzip.compress(text.encode("utf-8", "replace"), mtime=0))


def publish(
    folder: Path,
    layers: Mapping[int, LayerFile],
    labels: Mapping[str, Any],
    about: Mapping[str, Any],
    scratch: Path,
) -> None:
    """Let the index point at these layers, and drop layer files that it no longer names. Raises OutputError.

    All is written into the scratch folder first, so that a full disk changes nothing.
    """
    index = [layers[n].to_dict() if n in layers else None for n in range(max(layers, default=-1) + 1)]
    write_json(scratch / LABELS, dict(labels))
    write_bytes(scratch / ABOUT, (json.dumps(about, indent=1, sort_keys=True) + "\n").encode())
    write_json(scratch / INDEX, index)
    try:
        for name in (LABELS, ABOUT, INDEX):
            os.replace(scratch / name, folder / name)
    except OSError as error:
        raise output_error(folder / INDEX, error) from error
    named = {layer.filename for layer in layers.values()}
    for path in folder.iterdir():
        if _LAYER_FILE.fullmatch(path.name) and path.name not in named:
            path.unlink(missing_ok=True)
