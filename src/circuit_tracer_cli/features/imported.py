"""Labels and examples that others made, brought into the layout that the viewer reads. Imports no torch.

Read are

    *.jsonl, *.jsonl.gz   Neuronpedia's exports (`features`, `activations`, `explanations`), one object a line, in any folders
    *.json                features as Neuronpedia's API gives them, and the batches that SAE dashboards are written in
    *_latentN.txt         explanations of delphi, one feature a file
    *.csv                 columns `layer`, `feature` (or `index`) and `label`

Which of the first kinds a row is, its keys say. A row that is none of them is refused, never passed over.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import math
import re
import shutil
import tempfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circuit_tracer_cli.errors import BadFeatureFiles, MissingFile, OutputError
from circuit_tracer_cli.features.packed import FeatureFiles, LayerFile, publish, write_layer
from circuit_tracer_cli.features.records import Label
from circuit_tracer_cli.files.atomic import output_error

EXAMPLES = 20
"""Examples that are kept of each range of activations."""
CONTEXT = 64
"""Tokens that are kept of an example, around its peak."""
_LONGEST_LINE, _LARGEST_JSON = 64 << 20, 1 << 30
_ABOUT_SETS = ("model.jsonl", "release.jsonl", "source.jsonl", "sourceset.jsonl")
_DELPHI = re.compile(r"(?P<module>.*)_(?:latent|feature)(?P<feature>\d{1,9})\.txt", re.DOTALL)
_TOP = "Top activations"
_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".txt")
Place = tuple[int, int]


@dataclass(slots=True)
class _Known:
    """What has been read of one feature. Examples are kept compressed: a set has millions."""

    values: dict[str, Any] = field(default_factory=dict)
    label: Label | None = None
    labelled_at: str = ""
    groups: dict[tuple[float, str], list[tuple[float, bytes]]] = field(default_factory=dict)

    def record(self, before: Mapping[str, Any], transcoder_id: str, index: int) -> dict[str, Any]:
        """The feature's record: what was read, over what was known before."""
        empty = {
            "top_logits": [],
            "bottom_logits": [],
            "examples_quantiles": [],
            "act_min": 0.0,
            "act_max": 0.0,
        }
        record = {"transcoder_id": transcoder_id, "index": index, **empty, **before, **self.values}
        if self.groups:
            ranked = sorted(self.groups.items(), key=lambda item: -item[0][0])
            record["examples_quantiles"] = [
                {"quantile_name": name, "examples": [json.loads(zlib.decompress(text)) for _, text in found]}
                for (_, name), found in ranked
            ]
            highest = max(peak for found in self.groups.values() for peak, _ in found)
            if "histogram" not in self.values and highest > record["act_max"]:
                record["act_max"] = highest
        if self.label is not None:
            record["label"] = self.label.to_dict()
        return record


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What came in, by kind and number of features."""

    directory: Path
    layers: tuple[int, ...]
    features: int
    labels: int
    examples: int
    statistics: int
    skipped: int  # rows of features that aren't among the wanted ones


class FeatureImport:
    """Collects what files say of features; `write` then puts it into a folder.

    Args:
        wanted: (layer, feature) of those to take; None for all.
        source: The one source (`20-gemmascope-transcoder-16k`) or set (`gemmascope-transcoder-16k`) to take; None for any.
    """

    def __init__(self, wanted: Collection[Place] | None = None, source: str | None = None) -> None:
        self._wanted, self._source = wanted, source
        self._known: dict[Place, _Known] = {}
        self._sources: dict[int, str] = {}
        self.skipped = 0

    def read(self, path: Path) -> None:
        """Read a file, or all files below a folder.

        Raises:
            MissingFile: There is no such file, or nothing in the folder that is understood.
            BadFeatureFiles: A row isn't understood, or two sources claim one layer.
        """
        if not path.exists():
            raise MissingFile(f"{path} doesn't exist")
        if path.is_file():
            return self._read_file(path)
        files = sorted(file for file in path.rglob("*") if file.is_file() and _is_known(file))
        if not files:
            raise MissingFile(
                f"{path} holds no feature data that is understood",
                "it should hold .jsonl(.gz), .json, .csv or delphi's .txt files",
            )
        for file in files:
            self._read_file(file)

    def _read_file(self, path: Path) -> None:
        name = path.name.lower()
        try:
            if name.endswith((".jsonl", ".jsonl.gz")):
                for where, row in _lines(path):
                    self._take(row, where)
            elif name.endswith(".json"):
                self._take_document(_document(path), str(path))
            elif name.endswith(".csv"):
                self._take_table(path)
            elif name.endswith(".txt"):
                self._take_delphi(path)
            else:
                raise BadFeatureFiles(
                    f"{path} is of no kind that is understood", f"known are {', '.join(_SUFFIXES)}"
                )
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, RecursionError) as error:
            raise BadFeatureFiles(f"{path} can't be read: {error}") from error

    def _take_document(self, document: Any, where: str) -> None:
        if isinstance(document, dict) and isinstance(document.get("features"), list):
            layer, of_set = document.get("layer"), document.get("sae_set") or ""
            for row in document["features"]:
                self._take({**_object(row, where), "layer": f"{layer}-{of_set}" if of_set else layer}, where)
        else:
            for row in document if isinstance(document, list) else [document]:
                self._take(_object(row, where), where)

    def _take(self, row: dict[str, Any], where: str) -> None:
        """One row of whatever kind, with what is nested in it."""
        place = self._place(row, where)
        nested = [*_objects(row, "activations", where), *_objects(row, "explanations", where)]
        is_feature = any(
            key in row for key in ("pos_str", "frac_nonzero", "maxActApprox", "freq_hist_data_bar_heights")
        )
        if not (nested or is_feature or "description" in row or ("tokens" in row and "values" in row)):
            raise BadFeatureFiles(
                f"{where}: the row is neither a feature nor an activation nor an explanation"
            )
        if place is None:
            self.skipped += 1
            return
        for part in [row, *nested]:
            if isinstance(part.get("description"), str):
                self._label(place, part)
            elif isinstance(part.get("tokens"), list) and isinstance(part.get("values"), list):
                self._example(place, part, where)
        if is_feature:
            self._of(place).values.update(_statistics(row))

    def _place(self, row: Mapping[str, Any], where: str) -> Place | None:
        """Layer and feature of a row; None if it isn't wanted. Raises BadFeatureFiles."""
        source = str(row.get("layer", ""))
        number, _, of_set = source.partition("-")
        index = str(row.get("index", row.get("feature_index", row.get("feature", ""))))
        if not (number.isdecimal() and index.isdecimal() and len(number) < 5 and len(index) < 10):
            raise BadFeatureFiles(
                f"{where}: layer {source[:60]!r}, feature {index[:60]!r}: these should be numbers"
            )
        layer = int(number)
        if self._source is not None and of_set and self._source not in (source, of_set):
            return None
        if of_set and self._sources.setdefault(layer, source) != source:
            raise BadFeatureFiles(
                f"{where}: layer {layer} is there from two sources, {self._sources[layer]} and {source}",
                f"name the one to take: --source {of_set}",
            )
        place = (layer, int(index))
        return place if self._wanted is None or place in self._wanted else None

    def _of(self, place: Place) -> _Known:
        return self._known.setdefault(place, _Known())

    def _label(self, place: Place, row: Mapping[str, Any]) -> None:
        """The newest explanation counts; of equally new ones the last."""
        text = " ".join(str(row["description"]).split())
        known, made = self._of(place), str(row.get("createdAt") or "")
        if text and made >= known.labelled_at:
            by = [str(row[key]) for key in ("explanationModelName", "typeName") if row.get(key)]
            known.label = Label(text, f"imported: {', '.join(by) or 'Neuronpedia'}", _score(row))
            known.labelled_at = made

    def _example(self, place: Place, row: Mapping[str, Any], where: str) -> None:
        tokens = [str(token) for token in row["tokens"]]
        values = [float(value) if _is_number(value) else 0.0 for value in row["values"]]
        if len(tokens) != len(values):
            raise BadFeatureFiles(f"{where}: {len(tokens)} tokens with {len(values)} values")
        if not tokens:
            return
        peak = max(range(len(values)), key=values.__getitem__)
        start = max(0, min(peak - CONTEXT // 2, len(tokens) - CONTEXT))
        example = {
            "tokens": tokens[start : start + CONTEXT],
            "tokens_acts_list": values[start : start + CONTEXT],
            "train_token_ind": peak - start,
            "is_repeated_datapoint": False,
        }
        group = _group_of(row)
        found = self._of(place).groups.setdefault(group, [])
        entry = (
            values[peak],
            zlib.compress(json.dumps(example, ensure_ascii=False).encode("utf-8", "replace")),
        )
        if entry not in found:
            found.append(entry)
            found.sort(key=lambda one: -one[0])
            del found[EXAMPLES:]

    def _take_table(self, path: Path) -> None:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
        columns = {str(name).strip().lower(): name for name in reader.fieldnames or ()}
        feature = next((columns[name] for name in ("feature", "index") if name in columns), None)
        label = next(
            (columns[name] for name in ("label", "description", "explanation") if name in columns), None
        )
        if "layer" not in columns or feature is None or label is None:
            raise BadFeatureFiles(f"{path} lacks a column", "it needs layer, feature (or index) and label")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            given = {"layer": (row[columns["layer"]] or "").strip(), "index": (row[feature] or "").strip()}
            place = self._place(given, where)
            if place is None:
                self.skipped += 1
            elif text := row[label]:
                self._label(place, {"description": text, "typeName": path.name})

    def _take_delphi(self, path: Path) -> None:
        match = _DELPHI.fullmatch(path.name)
        numbers = re.findall(r"\d+", match["module"]) if match else []
        if match is None or len(numbers) != 1:
            raise BadFeatureFiles(
                f"{path}: the name should be like layers.12.mlp_latent345.txt, with one number before _latent"
            )
        text = path.read_text(encoding="utf-8").strip()
        with contextlib.suppress(ValueError):  # plain text
            text = json.loads(text)
        if not isinstance(text, str):
            raise BadFeatureFiles(f"{path} holds no text")
        place = self._place({"layer": numbers[0], "index": match["feature"]}, str(path))
        if place is None:
            self.skipped += 1
        else:
            self._label(place, {"description": text, "typeName": "delphi"})

    def write(self, directory: Path) -> ImportSummary:
        """Put what was read into a folder of feature examples. The rest of what the folder has stays.

        Raises:
            MissingFile: Nothing was read.
            BadFeatureFiles: The folder's examples are damaged.
            OutputError: It can't be written; then nothing has changed.
        """
        if not self._known:
            raise MissingFile("the files say nothing of the features that are wanted")
        if directory.exists() and not directory.is_dir():
            raise OutputError(f"{directory} is a file", "name a folder with --output-dir")
        before = _earlier(directory)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".import-", dir=directory))
        except OSError as error:
            raise output_error(directory, error) from error
        try:
            self._publish(directory, before, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        known = self._known.values()
        return ImportSummary(
            directory=directory,
            layers=tuple(sorted({layer for layer, _ in self._known})),
            features=len(self._known),
            labels=sum(one.label is not None for one in known),
            examples=sum(len(found) for one in known for found in one.groups.values()),
            statistics=sum(bool(one.values) for one in known),
            skipped=self.skipped,
        )

    def _publish(self, directory: Path, before: FeatureFiles | None, scratch: Path) -> None:
        entries = {} if before is None else before.layers
        files = {layer: LayerFile(entry.filename, entry.offsets) for layer, entry in entries.items()}
        labels = {} if before is None else dict(before.labels())
        for layer in sorted({layer for layer, _ in self._known}):
            files[layer] = write_layer(directory, layer, self._records(layer, before), scratch)
        for (layer, feature), one in self._known.items():
            if one.label is not None:
                labels[f"{layer}/{feature}"] = one.label.to_dict()
        about = {} if before is None else before.about()
        sources = sorted({*about.get("imported", ()), *self._sources.values()})
        publish(directory, files, labels, about | {"imported": sources, "layers": sorted(files)}, scratch)

    def _records(self, layer: int, before: FeatureFiles | None) -> Iterator[Mapping[str, Any] | None]:
        highest = max(feature for at, feature in self._known if at == layer)
        there = 0 if before is None else before.n_features(layer)
        for feature in range(max(highest + 1, there)):
            old = before.known_feature(layer, feature) if before is not None else None
            one = self._known.get((layer, feature))
            yield old if one is None else one.record(old or {}, self._sources.get(layer, str(layer)), feature)


def _is_known(path: Path) -> bool:
    name = path.name.lower()
    if name in _ABOUT_SETS or name.startswith("."):
        return False
    return name.endswith((".jsonl", ".jsonl.gz", ".json", ".csv")) or bool(_DELPHI.fullmatch(path.name))


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file, one object a line, with where each stands. Raises BadFeatureFiles, OSError."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
        number = 0
        while line := stream.readline(_LONGEST_LINE):
            number += 1
            if line.strip():
                where = f"{path}, line {number}"
                yield where, _object(_parsed(line, where), where)


def _document(path: Path) -> Any:
    if path.stat().st_size > _LARGEST_JSON:
        raise BadFeatureFiles(
            f"{path} is too large for one JSON document", "split it, or use lines of JSON (.jsonl)"
        )
    return _parsed(path.read_bytes(), str(path))


def _parsed(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise BadFeatureFiles(f"{where}: this isn't JSON: {error}") from error


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadFeatureFiles(f"{where}: a JSON object should stand here")
    return value


def _objects(row: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    found = row.get(key)
    return [_object(one, where) for one in found] if isinstance(found, list) else []


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(row: Mapping[str, Any], *keys: str) -> float | None:
    return next((float(row[key]) for key in keys if _is_number(row.get(key))), None)


def _numbers(row: Mapping[str, Any], key: str) -> list[float]:
    found = row.get(key)
    return (
        [float(value) for value in found] if isinstance(found, list) and all(map(_is_number, found)) else []
    )


def _score(row: Mapping[str, Any]) -> float:
    """The first score of an explanation between 0 and 1; 0 without one."""
    scores = row.get("scores")
    found = (
        [_number(one, "value") for one in scores if isinstance(one, dict)] if isinstance(scores, list) else []
    )
    return next((value for value in found if value is not None and 0 <= value <= 1), 0.0)


def _group_of(row: Mapping[str, Any]) -> tuple[float, str]:
    """Where the examples of a range of activations stand, and what they are called; first come those of the top."""
    low, high = _number(row, "binMin", "bin_min"), _number(row, "binMax", "bin_max")
    if low is None or high is None or low < 0 or high <= low:
        return math.inf, _TOP
    return high, f"Activations {low:.3g} to {high:.3g}"


def _statistics(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of a feature besides label and examples, under the keys of a record."""
    found: dict[str, Any] = {}
    for name, key in (("top_logits", "pos_str"), ("bottom_logits", "neg_str")):
        if isinstance(row.get(key), list):
            found[name] = [str(token) for token in row[key]]
    if (density := _number(row, "frac_nonzero")) is not None:
        found["activation_frequency"] = density
    if (highest := _number(row, "maxActApprox")) is not None and highest > 0:
        found["act_max"] = highest
    heights, bars = _numbers(row, "freq_hist_data_bar_heights"), _numbers(row, "freq_hist_data_bar_values")
    ends = _ends(bars, len(heights))
    if ends is not None:
        found |= {"histogram": heights, "act_min": ends[0], "act_max": ends[1]}
    return found


def _ends(bars: Sequence[float], count: int) -> tuple[float, float] | None:
    """Where a histogram of `count` bars begins and ends; `bars` are their middles or their edges."""
    if count < 2 or len(bars) not in (count, count + 1) or bars[-1] <= bars[0]:
        return None
    half = (bars[1] - bars[0]) / 2 if len(bars) == count else 0.0
    return bars[0] - half, bars[-1] + half


def _earlier(directory: Path) -> FeatureFiles | None:
    try:
        return FeatureFiles(directory)
    except MissingFile:
        return None
