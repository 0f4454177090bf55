"""Feature examples on disk: writing, reading and finding those of a set. Imports no torch.

    index.json.gz     per layer {"filename", "offsets"} or null; record f is at offsets[f] … offsets[f + 1]
    layer_L-HASH.bin  records: 4-byte little-endian length, then that many bytes of zlib data, which inflate to JSON
    labels.json.gz    {"layer/feature": {text, provenance, confidence}}
    features.json     what the examples were made from
    drivers.json.gz   optional {"transcoders", "documents", "drivers": {"layer/feature": [[layer, feature, weight, together], …]}}

A layer's file is named by its content, so that a new build never changes a file that the old index points to. The new index
replaces the old one atomically, and until then the old examples can be read.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import BadFeatureFiles, MissingFile
from circuit_tracer_cli.features.records import FeatureRecord
from circuit_tracer_cli.files.atomic import atomic_writer, output_error, write_bytes

INDEX, LABELS, ABOUT = "index.json.gz", "labels.json.gz", "features.json"
DRIVERS = "drivers.json.gz"
_LAYER_FILE = re.compile(r"layer_\d+-[0-9a-f]{8}\.bin")


@dataclass(frozen=True, slots=True)
class LayerFile:
    """A written layer file and the offsets of its records."""

    filename: str
    offsets: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the entry for the index."""
        return {"filename": self.filename, "offsets": list(self.offsets)}


def pack_record(record: FeatureRecord | Mapping[str, Any]) -> bytes:
    """The record, preceded by its length."""
    values = record.to_dict() if isinstance(record, FeatureRecord) else dict(record)
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    body = zlib.compress(text.encode("utf-8", "replace"), 6)
    return struct.pack("<I", len(body)) + body


def write_layer(
    folder: Path, layer: int, records: Iterable[FeatureRecord | Mapping[str, Any] | None], scratch: Path
) -> LayerFile:
    """Write a layer's records, in the order of their features, via a scratch folder on the same disk.

    None stands for a feature of which nothing is known.

    Raises OutputError.
    """
    temporary = scratch / f"layer_{layer}.bin"
    offsets, digest = [0], hashlib.sha256()
    try:
        with atomic_writer(temporary) as stream:
            for record in records:
                content = b"" if record is None else pack_record(record)
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
    """Write compressed JSON, the same bytes for the same value. Raises OutputError."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    write_bytes(path, gzip.compress(text.encode("utf-8", "replace"), mtime=0))


def publish(
    folder: Path,
    layers: Mapping[int, LayerFile],
    labels: Mapping[str, Any],
    about: Mapping[str, Any],
    scratch: Path,
) -> None:
    """Write an index of these layers, and remove layer files that it no longer names. Raises OutputError.

    Everything is written to the scratch folder first, so that a full disk changes nothing.
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


_MAX_RECORD = 64 << 20
_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_AGAIN = "build the folder again with circuit-tracer features build"


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """One layer's item of the index."""

    filename: str
    offsets: tuple[int, ...]


class FeatureFiles:
    """A folder of feature examples in the layout of `pack`, whatever program made it.

    Args:
        directory: The folder that contains `index.json.gz`.

    Raises:
        MissingFile: The folder has no index.
        BadFeatureFiles: The index is damaged.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.layers = _read_index(self.directory / INDEX)
        self._labels: dict[str, dict[str, Any]] | None = None
        self._drivers: dict[str, Any] | None = None

    def feature(self, layer: int, index: int) -> dict[str, Any]:
        """A feature's record with the keys of the format.

        Raises:
            MissingFile: The set has no such feature, or its layer's file is missing.
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
        drivers = self.drivers().get(f"{layer}/{index}")
        record = unpack_record(content)
        return record if drivers is None else {**record, "usual_drivers": drivers}

    def drivers(self) -> dict[str, Any]:
        """What usually drives features, by `layer/feature`; empty if it wasn't gathered for this set. Raises BadFeatureFiles."""
        if self._drivers is None:
            path = self.directory / DRIVERS
            found = _read_gzipped(path) if path.exists() else {}
            of_set = isinstance(found, dict) and found.get("transcoders") == self.about().get("transcoders")
            drivers = found.get("drivers") if of_set else None
            self._drivers = drivers if isinstance(drivers, dict) else {}
        return self._drivers

    def known_feature(self, layer: int, index: int) -> dict[str, Any] | None:
        """The same, None for a feature of which nothing is known. Raises MissingFile for a lost file, BadFeatureFiles."""
        entry = self.layers.get(layer)
        if (
            entry is None
            or not 0 <= index < len(entry.offsets) - 1
            or entry.offsets[index + 1] <= entry.offsets[index]
        ):
            return None
        return self.feature(layer, index)

    def n_features(self, layer: int) -> int:
        """Number of records of a layer; 0 for a missing layer."""
        entry = self.layers.get(layer)
        return 0 if entry is None else len(entry.offsets) - 1

    def labels(self) -> dict[str, dict[str, Any]]:
        """All labels by `layer/feature`; empty in a folder of another program. Raises BadFeatureFiles."""
        if self._labels is None:
            path = self.directory / LABELS
            self._labels = _read_gzipped(path) if path.exists() else {}
        return self._labels

    def label(self, layer: int, index: int) -> dict[str, Any] | None:
        """One label (text, provenance, confidence), or None."""
        return self.labels().get(f"{layer}/{index}")

    def about(self) -> dict[str, Any]:
        """What the examples were made from; empty in a folder of another program. Raises BadFeatureFiles."""
        path = self.directory / ABOUT
        if not path.exists():
            return {}
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except _DAMAGED as error:
            raise BadFeatureFiles(f"{path} can't be read: {error}", hint=_AGAIN) from error


def unpack_record(content: bytes) -> dict[str, Any]:
    """The record at the beginning of some bytes, ignoring what follows. Raises BadFeatureFiles."""
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
            f"{path.parent} has no feature examples: {INDEX} is missing",
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


def examples_folder(scan: object) -> Path | None:
    """The examples that come with a set, in its subfolder `features`, or None.

    Args:
        scan: The set's identifier, as in graphs, or its reference: `demo`, `demo-clt`, `demo-plt`, a folder.
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
