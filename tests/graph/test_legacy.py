from __future__ import annotations

import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from circuit_tracer_cli.errors import BadGraphFile
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.legacy import read_pt
from circuit_tracer_cli.graph.store import load_graph
from circuit_tracer_cli.types import LogitTarget
from tests.graph.builders import assert_same, golden_case, random_graph


class TargetTuple(NamedTuple):
    token_str: str
    vocab_idx: int


class Config:
    """Pickled as its attributes, as a dataclass is."""

    def __init__(self, **facts: Any) -> None:
        self.__dict__.update(facts)


MakeClass = Callable[[type, str, str], Any]


@pytest.fixture
def class_in() -> Iterator[MakeClass]:
    """Makes a class that pickle finds under another package's module path, for as long as the test runs."""
    added: list[str] = []

    def make(base: type, module: str, name: str) -> Any:
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            if path not in sys.modules:
                sys.modules[path] = types.ModuleType(path)
                added.append(path)
        made = type(name, (base,), {"__module__": module, "__qualname__": name})
        setattr(sys.modules[module], name, made)
        return made

    yield make
    for path in added:
        del sys.modules[path]


def reference_values(graph: Graph) -> dict[str, Any]:
    """What the reference stores, but for the entries that differ between its generations."""
    return {
        "input_string": graph.input_string,
        "adjacency_matrix": graph.adjacency_matrix,
        "active_features": graph.active_features,
        "logit_probabilities": graph.logit_probabilities,
        "input_tokens": graph.input_tokens,
        "selected_features": graph.selected_features,
        "activation_values": graph.activation_values,
        "scan": graph.scan,
    }


def unified_config(class_in: MakeClass) -> Any:
    made = class_in(Config, "circuit_tracer.utils.tl_nnsight_mapping", "UnifiedConfig")
    facts = random_graph().cfg.to_dict()
    return made(**{**facts, "dtype": torch.float32, "n_key_value_heads": None})


def expected(**changes: Any) -> Graph:
    return random_graph(metadata={}, **changes)


def test_current_generation(tmp_path: Path, class_in: MakeClass) -> None:
    target = class_in(TargetTuple, "circuit_tracer.attribution.targets", "LogitTarget")
    graph = expected()
    values = {**reference_values(graph), "cfg": unified_config(class_in), "vocab_size": 50}
    values["logit_targets"] = [target(*pair) for pair in graph.logit_targets]
    torch.save(values, tmp_path / "g.pt")
    assert_same(load_graph(tmp_path / "g.pt"), graph)


@pytest.mark.parametrize("key", ["logit_targets", "logit_tokens"])
@pytest.mark.parametrize("scan_key", ["scan", "scan_name"])
def test_targets_as_ids(tmp_path: Path, class_in: MakeClass, key: str, scan_key: str) -> None:
    graph = expected(logit_targets=torch.tensor([20, 21]))
    values = {**reference_values(graph), "cfg": unified_config(class_in), key: torch.tensor([20, 21])}
    values[scan_key] = values.pop("scan")
    torch.save(values, tmp_path / "g.pt")
    loaded = load_graph(tmp_path / "g.pt")
    assert_same(loaded, graph)
    assert loaded.logit_targets == [LogitTarget("", 20), LogitTarget("", 21)]
    assert loaded.vocab_size == 50


@pytest.mark.parametrize(
    "module", ["transformer_lens.HookedTransformerConfig", "transformer_lens.config.HookedTransformerConfig"]
)
def test_oldest_generation(tmp_path: Path, class_in: MakeClass, module: str) -> None:
    made = class_in(Config, module, "HookedTransformerConfig")
    facts = {
        **{name: 8 for name in ("d_model", "d_head", "n_heads", "d_mlp", "n_ctx")},
        "n_layers": 2,
        "d_vocab": 77,
        "model_name": "gemma-2-2b",
        "tokenizer_name": "google/gemma-2-2b",
        "original_architecture": None,
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "act_fn": "gelu_pytorch_tanh",
        "attn_types": ["global", "local"],
        "rotary_base": 10000.0,
    }
    graph = random_graph()
    values = {**reference_values(graph), "cfg": made(**facts), "logit_tokens": torch.tensor([20, 21])}
    torch.save(values, tmp_path / "g.pt")
    loaded = load_graph(tmp_path / "g.pt")
    assert (loaded.cfg.n_layers, loaded.cfg.dtype, loaded.cfg.tokenizer_name) == (
        2,
        "bfloat16",
        "google/gemma-2-2b",
    )
    assert loaded.cfg.original_architecture == "unknown"
    assert loaded.vocab_size == 77
    assert torch.equal(loaded.adjacency_matrix, graph.adjacency_matrix)


def test_reference_file(golden: Path) -> None:
    case = golden_case(golden, "llama-plt-relu-limited")
    loaded = load_graph(case.folder / "graph.pt")
    assert loaded.logit_targets == case.graph.logit_targets
    assert torch.equal(loaded.adjacency_matrix, case.graph.adjacency_matrix)
    assert torch.equal(loaded.active_features, case.graph.active_features)
    assert (loaded.scan, loaded.vocab_size) == (case.facts["scan"], case.facts["vocab_size"])
    assert (loaded.cfg.model_name, loaded.cfg.n_key_value_heads) == ("Llama-3.2-1B", 2)


class RunsCode:
    """Unpickles by calling something."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, exec, os.mkdir, open, bytearray, __import__])
def test_hostile_pickle_never_runs(tmp_path: Path, function: Callable[..., Any]) -> None:
    mark = tmp_path / "mark"
    argument = {os.system: f"touch {mark}", os.mkdir: str(mark), bytearray: 1 << 45}.get(
        function, f"open({str(mark)!r}, 'w')"
    )
    torch.save({"input_string": RunsCode(function, argument)}, tmp_path / "g.pt")
    with pytest.raises(BadGraphFile, match="refused"):
        load_graph(tmp_path / "g.pt")
    assert not mark.exists()


def with_pickle(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    """An archive laid out as torch does it, around any pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("g/data.pkl", content)
        archive.writestr("g/byteorder", "little")
        archive.writestr("g/version", "3\n")
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_hostile_pickle_of_any_protocol(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "mark"
    content = pickle.dumps({"a": RunsCode(os.mkdir, str(mark))}, protocol)
    with pytest.raises(BadGraphFile):
        load_graph(with_pickle(tmp_path / "g.pt", content))
    assert not mark.exists()


class TensorPickler(pickle.Pickler):
    """Writes any claim about a tensor as torch writes a true one."""

    def persistent_id(self, obj: Any) -> Any:
        return obj.call if isinstance(obj, StorageClaim) else None


class StorageClaim:
    def __init__(self, numel: int) -> None:
        self.call = ("storage", torch.FloatStorage, "0", "cpu", numel)


@pytest.mark.parametrize(
    ("numel", "shape", "strides", "good"),
    [
        (16, (4, 4), (4, 1), True),
        (16, (10**6, 10**6), (0, 0), False),
        (16, (10**6, 10**6), (10**6, 1), False),
        (10**12, (10**6, 10**6), (10**6, 1), False),
        (10**12, (4, 4), (10**10, 1), False),
    ],
)
def test_tensor_is_never_read_from_beyond_the_file(
    tmp_path: Path, numel: int, shape: tuple[int, int], strides: tuple[int, int], good: bool
) -> None:
    """Nor may one that repeats its storage fill the memory."""
    stream = io.BytesIO()
    claim = (StorageClaim(numel), 0, shape, strides, False, OrderedDict())
    TensorPickler(stream, 2).dump({"adjacency_matrix": RunsCode(torch._utils._rebuild_tensor_v2, *claim)})
    path = tmp_path / "g.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("g/data.pkl", stream.getvalue())
        archive.writestr("g/byteorder", "little")
        archive.writestr("g/data/0", bytes(64))
        archive.writestr("g/version", "3\n")
    if good:
        assert read_pt(path, "it")["adjacency_matrix"].tolist() == [[0.0] * 4] * 4
        return
    with pytest.raises(BadGraphFile):
        read_pt(path, "it")


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps([1, 2], 2),
        pickle.dumps({1: 2}, 2),
        pickle.dumps("text", 2),
        b"\x80\x02(dVa\nr\xff\xff\xff\xff.",
        b"\x80\x02}" + b"(" * 10_000 + b".",
        b"",
        b"not a pickle",
    ],
)
def test_other_pickles(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadGraphFile):
        load_graph(with_pickle(tmp_path / "g.pt", content))


def test_compressed_archive_is_refused(tmp_path: Path) -> None:
    """It could unfold to any size."""
    path = with_pickle(tmp_path / "g.pt", pickle.dumps({"a": "x" * 100_000}, 2), zipfile.ZIP_DEFLATED)
    with pytest.raises(BadGraphFile, match="compressed"):
        load_graph(path)


def test_archive_without_pickle(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("document.xml", "<a/>")
    with pytest.raises(BadGraphFile, match=r"torch\.save"):
        load_graph(io.BytesIO(stream.getvalue()))
