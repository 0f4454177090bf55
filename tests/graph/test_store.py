from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save as safetensors_save

from circuit_tracer_cli.errors import BadGraphFile, CircuitTracerError, MissingFile, OutOfMemory, UsageError
from circuit_tracer_cli.graph import edges as edges_module
from circuit_tracer_cli.graph.edges import Edges
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.graph.store import FORMAT, HEADER_KEY, load_graph, save_graph
from tests.graph.builders import assert_same, graphs, random_graph, worked_example


def as_bytes(graph: Graph) -> bytes:
    stream = io.BytesIO()
    save_graph(graph, stream)
    return stream.getvalue()


@settings(max_examples=30)
@given(graphs(), st.booleans(), st.sampled_from(["safetensors", "pt"]))
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, graph: Graph, pruned: bool, suffix: str
) -> None:
    graph = pruned_graph(graph, 0.9, 0.95) if pruned else graph
    path = tmp_path_factory.mktemp("graphs") / f"graph.{suffix}"
    graph.save(path)
    assert_same(load_graph(path), graph)
    assert_same(load_graph(io.BytesIO(path.read_bytes())), graph)


@pytest.mark.parametrize("density", [0.0, 0.05, 1.0])
def test_smaller_storage_is_chosen(tmp_path: Path, density: float) -> None:
    """A full matrix is stored dense, an empty one sparse, and both give the same object."""
    graph = random_graph(density=density)
    if density == 1.0:
        full = torch.rand(graph.n_nodes, graph.n_nodes) + 1
        graph.adjacency_matrix = full
    graph.save(tmp_path / "graph.safetensors")
    with safe_open(tmp_path / "graph.safetensors", "pt") as file:
        names = set(file.keys())
    assert ("adjacency_matrix" in names) == (density == 1.0)
    assert_same(load_graph(tmp_path / "graph.safetensors"), graph)


def test_safetensors_keys(tmp_path: Path) -> None:
    pruned_graph(random_graph(density=0.1)).save(tmp_path / "g.safetensors")
    with safe_open(tmp_path / "g.safetensors", "pt") as file:
        assert set(file.keys()) == {
            "input_tokens", "active_features", "activation_values", "selected_features", "logit_probabilities",
            "adjacency_indptr", "adjacency_indices", "adjacency_values", "node_mask", "cumulative_scores",
            "node_stability", "edge_stability",
        }  # fmt: skip
        metadata = file.metadata()
        assert file.get_tensor("input_tokens").dtype == torch.int64
    assert list(metadata) == [HEADER_KEY]
    header = json.loads(metadata[HEADER_KEY])
    assert (header["format"], header["format_version"]) == (FORMAT, 1)
    assert header["logit_targets"] == [[" token0", 20], [" token1", 21]]
    assert set(header) == {
        "format", "format_version", "input_string", "scan", "vocab_size", "cfg", "logit_targets", "metadata",
        "node_threshold", "edge_threshold", "replacement_score", "completeness_score", "n_edges_before",
    }  # fmt: skip


def test_pt_is_plain(tmp_path: Path) -> None:
    graph = random_graph(metadata={"dtype": torch.float32, "path": Path("x")})
    graph.to_pt(tmp_path / "named.anything")
    values = torch.load(tmp_path / "named.anything", weights_only=True)
    assert values["format"] == FORMAT
    assert torch.equal(values["adjacency_matrix"], graph.adjacency_matrix)
    assert values["logit_targets"] == [[" token0", 20], [" token1", 21]]
    assert values["metadata"] == {"dtype": "torch.float32", "path": "x"}
    assert values["cfg"]["n_layers"] == 2
    assert Graph.from_pt(tmp_path / "named.anything").n_nodes == graph.n_nodes


def test_kind_is_recognised_by_content(tmp_path: Path) -> None:
    graph = random_graph()
    graph.save(tmp_path / "g.pt")
    (tmp_path / "g.pt").rename(tmp_path / "g.safetensors")
    assert_same(load_graph(tmp_path / "g.safetensors"), graph)


def test_half_precision_values_survive(tmp_path: Path) -> None:
    half = torch.rand(12).to(torch.bfloat16)
    graph = random_graph(
        activation_values=half, logit_probabilities=torch.tensor([0.5, 0.25]).to(torch.bfloat16)
    )
    for name in ("g.pt", "g.safetensors"):
        graph.save(tmp_path / name)
        loaded = load_graph(tmp_path / name)
        assert torch.equal(loaded.activation_values, half)
        assert loaded.logit_probabilities.dtype == torch.float32


def test_scan_may_be_a_list(tmp_path: Path) -> None:
    for scan in (["a", "b"], None):
        random_graph(scan=scan).save(tmp_path / "g.safetensors")
        assert load_graph(tmp_path / "g.safetensors").scan == scan


def test_strange_text_survives(tmp_path: Path) -> None:
    text = 'a\ud800 \u202e\U0001f600\n"quoted"'
    graph = random_graph(input_string=text, metadata={"note": text})
    graph.save(tmp_path / "g.safetensors")
    assert_same(load_graph(tmp_path / "g.safetensors"), graph)


@pytest.mark.parametrize("name", ["graph", "graph.json", "graph.safetensor", "graph.pth", ".pt"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        random_graph().save(tmp_path / name)
    assert caught.value.exit_code == 2
    assert ".safetensors" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.pt"):
        with pytest.raises(MissingFile):
            load_graph(path)


def test_named_pipe(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs named pipes")
    graph = random_graph()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(as_bytes(graph)))
    writer.start()
    assert_same(load_graph(pipe), graph)
    writer.join()


def test_output_may_replace_its_own_input(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    random_graph(density=1.0).save(path)
    graph = load_graph(path)
    pruned_graph(graph).save(path)
    assert load_graph(path).pruning is not None
    assert_same(graph, random_graph(density=1.0))


def test_loading_maps_the_file(tmp_path: Path) -> None:
    """The stored tensors aren't copied: the loaded ones are views of one mapping."""
    path = tmp_path / "g.safetensors"
    random_graph(density=0.05).save(path)
    graph = load_graph(path)
    start = graph.edges.values.data_ptr()
    assert abs(start - graph.edges.indices.data_ptr()) < path.stat().st_size


def loads_or_is_refused(content: bytes) -> None:
    with contextlib.suppress(BadGraphFile):
        load_graph(io.BytesIO(content))


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"g.{suffix}"
    pruned_graph(random_graph(n_layers=1, n_pos=2, density=0.3)).save(path)
    content = path.read_bytes()
    for length in range(0, len(content), 64):
        with pytest.raises(BadGraphFile):
            load_graph(io.BytesIO(content[:length]))


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_flipped_bytes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"g.{suffix}"
    pruned_graph(random_graph(n_layers=1, n_pos=2, density=0.3)).save(path)
    content = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(0, len(content), (300,), generator=generator).tolist()
    for place, flip in zip(places, torch.randint(1, 256, (300,), generator=generator).tolist(), strict=True):
        broken = bytearray(content)
        broken[place] ^= flip
        loads_or_is_refused(bytes(broken))


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    with pytest.raises(BadGraphFile):
        load_graph(io.BytesIO(content))


def test_foreign_files() -> None:
    weights = safetensors_save({"W_enc": torch.zeros(2, 2)})
    with pytest.raises(BadGraphFile, match="without a graph"):
        load_graph(io.BytesIO(weights))
    with pytest.raises(BadGraphFile, match="not a graph file"):
        load_graph(io.BytesIO(b"hello, world: this is text"))
    with pytest.raises(BadGraphFile, match="JSON"):
        load_graph(io.BytesIO(b'{"metadata": {}, "nodes": []}'))
    with pytest.raises(BadGraphFile, match="empty"):
        load_graph(io.BytesIO(b""))


def rewritten(change: Any) -> bytes:
    """A good file with its header changed."""
    content = as_bytes(random_graph(density=0.1))
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    graph = json.loads(header["__metadata__"][HEADER_KEY])
    header, graph = change(header, graph) or (header, graph)
    if graph is not None:
        header["__metadata__"] = {HEADER_KEY: json.dumps(graph)}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


HOSTILE = {
    "later version": lambda header, graph: graph.update(format_version=99),
    "version is text": lambda header, graph: graph.update(format_version="1"),
    "other format": lambda header, graph: graph.update(format="something"),
    "no prompt": lambda header, graph: graph.pop("input_string") and None,
    "no tokens": lambda header, graph: header.pop("input_tokens") and None,
    "config is a list": lambda header, graph: graph.update(cfg=[1]),
    "layers without end": lambda header, graph: graph["cfg"].update(n_layers=10**18),
    "scan is a number": lambda header, graph: graph.update(scan=3),
    "targets are numbers": lambda header, graph: graph.update(logit_targets=[1, 2]),
    "targets are text": lambda header, graph: graph.update(logit_targets="ab"),
    "vocabulary is text": lambda header, graph: graph.update(vocab_size="x"),
    "metadata is text": lambda header, graph: graph.update(metadata="x"),
    "tensor in the header": lambda header, graph: graph.update(input_tokens=[1]),
    "threshold is text": lambda header, graph: graph.update(node_mask=[1], node_threshold="x"),
    "header is a list": lambda header, graph: (header, [1]),
    "tensor of a petabyte": lambda header, graph: header["input_tokens"].update(
        shape=[1 << 47], data_offsets=[0, 1 << 50]
    ),
    "shape beyond counting": lambda header, graph: header["input_tokens"].update(shape=[1 << 61, 1 << 61]),
    "negative shape": lambda header, graph: header["input_tokens"].update(shape=[-3]),
    "shape is text": lambda header, graph: header["input_tokens"].update(shape="3"),
    "offsets backwards": lambda header, graph: header["input_tokens"].update(data_offsets=[24, 0]),
    "offsets overlap": lambda header, graph: header["active_features"].update(
        shape=[1, 3], data_offsets=header["input_tokens"]["data_offsets"]
    ),
    "unknown dtype": lambda header, graph: header["input_tokens"].update(dtype="F4"),
    "wrong dtype": lambda header, graph: header["input_tokens"].update(dtype="F64"),
    "entry is a list": lambda header, graph: header.update(input_tokens=[]),
    "metadata of numbers": lambda header, graph: (header | {"__metadata__": {"a": 1}}, None),
}


def test_unchanged_header_loads() -> None:
    assert_same(load_graph(io.BytesIO(rewritten(lambda header, graph: None))), random_graph(density=0.1))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_header(name: str) -> None:
    with pytest.raises(BadGraphFile) as caught:
        load_graph(io.BytesIO(rewritten(HOSTILE[name])))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("length", [0, 1, 1 << 40, (1 << 64) - 1])
def test_header_length_is_not_believed(length: int) -> None:
    with pytest.raises(BadGraphFile):
        load_graph(io.BytesIO(struct.pack("<Q", length) + b"{" + b" " * 100))


def test_deeply_nested_header() -> None:
    text = b"[" * 100_000
    with pytest.raises(BadGraphFile):
        load_graph(io.BytesIO(struct.pack("<Q", len(text) + 1) + b"{" + text))


def test_dense_format_needs_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = worked_example()
    monkeypatch.setattr(edges_module, "free_memory", lambda device: 10)
    with pytest.raises(OutOfMemory):
        graph.save(tmp_path / "g.pt")
    assert list(tmp_path.iterdir()) == []
    graph.save(tmp_path / "g.safetensors")


def test_every_error_is_one_of_ours() -> None:
    assert issubclass(BadGraphFile, CircuitTracerError)
    assert issubclass(BadGraphFile, ValueError)


class Endless(io.RawIOBase):
    """A stream that begins as told and goes on for ever; it counts what was taken."""

    def __init__(self, start: bytes, then: bytes = b"\0") -> None:
        self.start, self.then, self.taken = start, then, 0

    def read(self, count: int = -1) -> bytes:
        assert count > 0, "an endless stream was read to its end"
        part = self.start[self.taken : self.taken + count]
        part += self.then * (count - len(part))
        self.taken += count
        return part


@pytest.mark.parametrize("start", [b"", b"PK\x03\x04", b"\xff" * 9, b"\x10" + bytes(7) + b"{"])
def test_an_endless_stream_is_refused_by_its_beginning(start: bytes) -> None:
    stream = Endless(start)
    with pytest.raises(BadGraphFile):
        load_graph(stream)  # type: ignore[arg-type]
    assert stream.taken < 100


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_a_stream_that_does_not_end_with_its_graph_is_refused(kind: Any) -> None:
    whole = io.BytesIO()
    save_graph(random_graph(), whole, kind=kind)
    stream = Endless(whole.getvalue())
    with pytest.raises(BadGraphFile, match="is longer than its header says"):
        load_graph(stream)  # type: ignore[arg-type]
    assert stream.taken < len(whole.getvalue()) + (1 << 20)


def test_a_graph_led_into_the_program_needs_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_graph().save(tmp_path / "g.safetensors")
    random_graph().save(tmp_path / "g.pt")

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("copied")

    monkeypatch.setattr("circuit_tracer_cli.files.inputs.tempfile.TemporaryFile", refuse)
    for name in ("g.safetensors", "g.pt"):
        with (tmp_path / name).open("rb") as stream:
            assert_same(load_graph(stream), random_graph())


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/urandom", "/dev/full", "/proc/self/mem"])
def test_what_is_not_a_file_is_named(path: str) -> None:
    with pytest.raises(MissingFile, match=r"is a device, not a file|can't be read: input/output error"):
        load_graph(path)


def test_a_named_pipe_is_read_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(as_bytes(random_graph()),))
    writer.start()
    graph = load_graph(tmp_path / "pipe")
    writer.join()
    assert list((tmp_path / "temporary").iterdir()) == []
    assert_same(graph, random_graph())


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_edges_without_a_finite_weight_are_left_out_and_counted(tmp_path: Path, suffix: str) -> None:
    graph = worked_example()
    dense = graph.adjacency_matrix.clone()
    (row, column), (other_row, other_column) = dense.nonzero()[0].tolist(), dense.nonzero()[-1].tolist()
    dense[row, column], dense[other_row, other_column] = float("nan"), float("-inf")
    odd = worked_example()
    odd._edges = Edges.from_dense(dense)
    path = tmp_path / f"odd.{suffix}"
    save_graph(odd, path)
    loaded = load_graph(path)
    assert loaded.metadata["edges_left_out"] == 2
    dense[row, column] = dense[other_row, other_column] = 0
    assert torch.equal(loaded.adjacency_matrix, dense)
    save_graph(graph, path)
    assert "edges_left_out" not in load_graph(path).metadata
