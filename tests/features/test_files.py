"""Records survive packing; the index points at them; damage is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit_tracer_cli.errors import BadFeatureFiles, MissingFile
from circuit_tracer_cli.features.packed import FeatureFiles, pack_record, publish, unpack_record, write_layer
from circuit_tracer_cli.features.records import Example, ExampleGroup, FeatureRecord, Label
from circuit_tracer_cli.server.features import FeatureFolder

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
NUMBER = st.floats(0, 1e6, allow_nan=False)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    tokens = draw(st.lists(TEXT, min_size=1, max_size=5))
    acts = draw(st.lists(NUMBER, min_size=len(tokens), max_size=len(tokens)))
    return Example(tuple(tokens), tuple(acts), draw(st.integers(0, len(tokens) - 1)), draw(st.booleans()))


RECORDS = st.builds(
    FeatureRecord,
    transcoder_id=TEXT,
    index=st.integers(0, 2**31),
    examples_quantiles=st.lists(
        st.builds(ExampleGroup, TEXT, st.lists(examples(), max_size=3).map(tuple)), max_size=3
    ).map(tuple),
    top_logits=st.lists(TEXT, max_size=3).map(tuple),
    act_max=NUMBER,
    quantile_values=st.lists(NUMBER, max_size=4).map(tuple),
    histogram=st.lists(st.integers(0, 100), max_size=4).map(tuple),
    label=st.none() | st.builds(Label, TEXT, TEXT, st.floats(0, 1)),
)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(RECORDS)
def test_a_record_survives(record: FeatureRecord) -> None:
    packed = pack_record(record)
    assert unpack_record(packed) == json.loads(json.dumps(record.to_dict()))
    assert unpack_record(packed + b"\x07") == unpack_record(packed)  # the viewer asks for one byte too many
    assert int.from_bytes(packed[:4], "little") == len(packed) - 4


def record(index: int, text: str = "x") -> FeatureRecord:
    return FeatureRecord(
        transcoder_id="t", index=index, top_logits=(text,), label=Label(text, "auto: test", 0.5)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    layers = {n: write_layer(tmp_path, n, [record(i, "é" * i) for i in range(5)], tmp_path) for n in (0, 2)}
    labels: dict[str, Any] = {"0/1": {"text": "é", "provenance": "auto: test", "confidence": 0.5}}
    publish(tmp_path, layers, labels, {"documents": 3}, tmp_path)
    return tmp_path


def test_offsets_lead_to_the_records(folder: Path) -> None:
    index = json.loads(gzip.decompress((folder / "index.json.gz").read_bytes()))
    assert index[1] is None
    for layer in (0, 2):
        content = (folder / index[layer]["filename"]).read_bytes()
        offsets = index[layer]["offsets"]
        assert (len(offsets), offsets[0], offsets[-1]) == (6, 0, len(content))
        for feature in range(5):
            part = content[offsets[feature] : offsets[feature + 1] + 1]
            assert unpack_record(part)["top_logits"] == ["é" * feature]


def test_reader_and_server_read_the_same(folder: Path) -> None:
    files, server = FeatureFiles(folder), FeatureFolder(folder)
    assert files.feature(2, 3) == server.record(2, 3) == record(3, "é" * 3).to_dict()
    assert files.n_features(2) == 5
    assert files.n_features(1) == files.n_features(9) == 0
    assert files.label(0, 1) == {"text": "é", "provenance": "auto: test", "confidence": 0.5}
    assert files.label(0, 2) is None
    assert files.about() == {"documents": 3}


def test_the_same_records_make_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    layers = {n: write_layer(tmp_path, n, [record(i, "é" * i) for i in range(5)], tmp_path) for n in (0, 2)}
    publish(tmp_path, layers, FeatureFiles(folder).labels(), {"documents": 3}, tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_files_that_the_index_no_longer_names_go(folder: Path) -> None:
    old = set(folder.glob("layer_*.bin"))
    (folder / "notes.txt").write_text("mine")
    publish(folder, {0: write_layer(folder, 0, [record(0, "new")], folder)}, {}, {}, folder)
    assert old.isdisjoint(folder.glob("layer_*.bin"))
    assert (folder / "notes.txt").exists()
    assert FeatureFiles(folder).labels() == {}


@pytest.mark.parametrize("feature", [(1, 0), (0, 5), (0, -1), (7, 0)])
def test_features_that_are_not_there(folder: Path, feature: tuple[int, int]) -> None:
    with pytest.raises(MissingFile, match="no examples of feature"):
        FeatureFiles(folder).feature(*feature)


def test_an_index_may_be_an_object(folder: Path) -> None:
    index = json.loads(gzip.decompress((folder / "index.json.gz").read_bytes()))
    content = json.dumps({"2": index[2]}).encode()
    (folder / "index.json.gz").write_bytes(gzip.compress(content))
    assert FeatureFiles(folder).feature(2, 1)["index"] == 1


def packed(content: bytes) -> bytes:
    """Without the time, so that a test has the same name in every process."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize("content", [b"", b"no gzip", packed(b"[1]"), packed(b"{")])
def test_a_damaged_index_is_named(folder: Path, content: bytes) -> None:
    (folder / "index.json.gz").write_bytes(content)
    with pytest.raises(BadFeatureFiles, match="index"):
        FeatureFiles(folder)


def test_no_index(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no feature examples"):
        FeatureFiles(tmp_path)


@pytest.mark.parametrize("cut", [0, 3, 10, -1])
def test_a_damaged_record_is_named(cut: int) -> None:
    with pytest.raises(BadFeatureFiles, match="feature record"):
        unpack_record(pack_record(record(1))[:cut])


def test_reading_loads_no_torch() -> None:
    import subprocess
    import sys

    source = Path(__file__).resolve().parents[2] / "src"
    code = "import sys, circuit_tracer_cli.features.packed as r; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(source)}, check=False)
    assert done.returncode == 0
