"""Transcoder sets on a hub: looked at through their headers, downloaded once, loaded without a network."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from circuit_tracer_cli import hub as client
from circuit_tracer_cli.errors import (
    AccessDenied,
    BadTranscoders,
    HubUnavailable,
    MissingFile,
    OutputError,
    UnknownReference,
)
from circuit_tracer_cli.transcoders import remote
from circuit_tracer_cli.transcoders.loading import inspect_transcoders, load_transcoders
from tests.hub.fake_hub import FakeHub, Repository
from tests.transcoders.conftest import RandomSet
from tests.transcoders.layouts import LAYOUTS, write


def files_of(folder: Path, prefix: str = "") -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {prefix + path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def publish(
    hub: FakeHub, folder: Path, name: str = "user/set", prefix: str = "", **changes: Any
) -> Repository:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    hub.repositories[name] = Repository({"README.md": b"hello"} | files_of(folder, prefix))
    return hub.repositories[name]


@pytest.fixture(params=["plt", "clt"])
def tiny(request: pytest.FixtureRequest) -> RandomSet:
    return RandomSet(request.param, "jumprelu", (1,))


@pytest.fixture(autouse=True)
def no_headers_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


def test_a_set_is_downloaded_once_and_equals_the_folder(
    hub: FakeHub, tiny: RandomSet, tmp_path: Path
) -> None:
    folder = tiny.write(tmp_path / "set")
    publish(hub, folder, scan="somewhere/else")
    loaded, local = load_transcoders("user/set"), load_transcoders(folder)
    for layer, x in enumerate(tiny.inputs()):
        assert torch.equal(
            loaded.transcoders.encode_layer(x, layer), local.transcoders.encode_layer(x, layer)
        )
    assert loaded.commit == "c" * 40
    assert loaded.config.scan == loaded.transcoders.scan == "user/set"
    assert not hub.asked("README")
    hub.requests.clear()
    load_transcoders("user/set")
    assert not hub.asked("resolve|blobs")


def test_inspecting_fetches_headers_only(hub: FakeHub, tiny: RandomSet, tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "set")
    publish(hub, folder)
    seen, local = inspect_transcoders("user/set"), inspect_transcoders(folder)
    assert (seen.shape, seen.format) == (local.shape, local.format)
    assert (seen.commit, seen.config.scan) == ("c" * 40, "user/set")
    assert (seen.folder / "config.yaml").is_file()
    assert not list(seen.folder.glob("*.safetensors"))
    load_transcoders("user/set")
    hub.requests.clear()
    assert inspect_transcoders("user/set").shape == local.shape
    assert not hub.asked("resolve|blobs")


@pytest.mark.parametrize("first_bytes", [16, 100, 2**16])
def test_headers_of_any_length(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_bytes: int
) -> None:
    tiny = RandomSet("plt", "topk")
    folder = tiny.write(tmp_path / "set")
    (folder / "layer_0.safetensors").rename(tmp_path / "layer")
    tensors = load_file(tmp_path / "layer") | {"k": torch.tensor(4)}
    save_file(tensors, folder / "layer_0.safetensors")
    publish(hub, folder, k=None)
    monkeypatch.setattr(remote, "_FIRST_BYTES", first_bytes)
    with pytest.raises(
        BadTranscoders, match=r"neither config\.yaml nor user/set/layer_1\.safetensors says k"
    ):
        inspect_transcoders("user/set")


def test_a_subfolder_at_a_revision(hub: FakeHub, tiny: RandomSet, tmp_path: Path) -> None:
    publish(hub, tiny.write(tmp_path / "set"), prefix="a/b/")
    for reference in ("user/set/a/b@v1", "hf://user/set/a/b?revision=v1"):
        assert inspect_transcoders(reference).config.scan == "user/set//a/b@v1"
        assert load_transcoders(reference).transcoders.n_layers == 3
    with pytest.raises(
        MissingFile, match=r"user/set is not a transcoder set: it has no config\.yaml"
    ) as caught:
        load_transcoders("user/set")
    assert caught.value.hint == "name one of its folders, such as user/set/a/b"
    with pytest.raises(UnknownReference, match="no revision 'v2'"):
        load_transcoders("user/set/a/b@v2")


def test_files_listed_in_other_repositories(hub: FakeHub, tmp_path: Path) -> None:
    tiny = RandomSet("plt", "relu")
    folder = tiny.write(tmp_path / "set")
    weights = files_of(folder)
    config = weights.pop("config.yaml")
    other_files = {".gitattributes": b""} | {f"w/{name}": body for name, body in weights.items()}
    hub.repositories["other/weights"] = Repository(other_files, commit="d" * 40)
    listed = [f"hf://other/weights/w/layer_{layer}.safetensors?revision=v1" for layer in (2, 0)]
    text = yaml.safe_dump(yaml.safe_load(config) | {"transcoders": [*listed, "own.safetensors"]})
    hub.repositories["user/set"] = Repository(
        {"x/config.yaml": text.encode(), "x/own.safetensors": weights["layer_1.safetensors"]}
    )
    assert inspect_transcoders("user/set/x").shape.n_layers == 3
    loaded = load_transcoders("user/set/x").transcoders
    for layer, source in enumerate((2, 0, 1)):
        assert torch.equal(loaded.bias(layer), tiny.b_dec[source].float())
    other = hub.repositories["other/weights"]
    other.files.pop("w/layer_0.safetensors")
    other.commit = "e" * 40
    with pytest.raises(
        MissingFile, match=r"lists w/layer_0\.safetensors, which other/weights doesn't contain"
    ):
        inspect_transcoders("user/set/x")
    other.gated = True
    shutil.rmtree(tmp_path / "huggingface")
    with pytest.raises(AccessDenied, match="other/weights is gated"):
        inspect_transcoders("user/set/x")


def test_a_list_that_leads_out_of_the_set(hub: FakeHub, tmp_path: Path) -> None:
    folder = RandomSet("plt", "relu").write(tmp_path / "set")
    for entry in ("/etc/passwd", "../x.safetensors"):
        publish(hub, folder, transcoders=[entry])
        shutil.rmtree(tmp_path / "huggingface", ignore_errors=True)
        with pytest.raises(BadTranscoders, match="is outside the set's folder"):
            inspect_transcoders("user/set")


def test_offline_works_when_everything_is_here(
    hub: FakeHub, tiny: RandomSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, tiny.write(tmp_path / "set"))
    inspect_transcoders("user/set")
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnavailable, match="network access is off"):
        load_transcoders("user/set")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    load_transcoders("user/set")
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert load_transcoders("user/set").transcoders.n_layers == 3
    assert inspect_transcoders("user/set").shape.n_layers == 3
    with pytest.raises(HubUnavailable, match="network access is off"):
        inspect_transcoders("user/other")
    assert hub.requests == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert load_transcoders("user/set").transcoders.n_layers == 3


def test_damaged_headers_are_named_as_on_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    repository = publish(hub, RandomSet("plt", "relu").write(tmp_path / "set"))
    whole = repository.files["layer_1.safetensors"]
    for commit, damaged, said in (
        ("1", whole[:-10], "is truncated"),
        ("2", b"\xff" * len(whole), "is not a safetensors file"),
        ("3", whole[:8] + b"x" * 300, "is not a safetensors file"),
    ):
        repository.files["layer_1.safetensors"] = damaged
        repository.commit = commit * 40
        with pytest.raises(BadTranscoders, match=rf"^user/set/layer_1\.safetensors .*{said}"):
            inspect_transcoders("user/set")


def test_a_set_that_does_not_fit(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(hub, RandomSet("plt", "relu").write(tmp_path / "set"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 100, 0))  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match="not enough disk space in"):
        load_transcoders("user/set")


def test_a_mistyped_known_set(hub: FakeHub) -> None:
    with pytest.raises(
        UnknownReference, match=r"no repository mntss/clt-llama-3\.2-1b-524 on the hub"
    ) as caught:
        load_transcoders("mntss/clt-llama-3.2-1b-524")
    assert caught.value.hint == "did you mean mntss/clt-llama-3.2-1b-524k?"


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_layout_is_seen_through_its_headers(hub: FakeHub, tmp_path: Path, layout: str) -> None:
    kind, activation, can_skip = LAYOUTS[layout]
    tiny = RandomSet(kind, activation, (0, 1, 2) if can_skip else ())
    folder = write(tiny, layout, tmp_path / "set")
    hub.repositories["user/set"] = Repository({".gitattributes": b""} | files_of(folder, "in/"))
    seen, local = inspect_transcoders("user/set/in"), inspect_transcoders(folder)
    assert (seen.shape, seen.format) == (local.shape, local.format)
    assert not any(path.suffix in {".npz", ".safetensors"} for path in client.cache_folder().rglob("*"))
    loaded, there = load_transcoders("user/set/in").transcoders, load_transcoders(folder).transcoders
    for layer, x in enumerate(tiny.inputs()):
        assert torch.equal(loaded.encode_layer(x, layer), there.encode_layer(x, layer))
    assert loaded.scan == "user/set//in"


def test_a_name_near_a_known_one_is_proposed_without_a_network(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnavailable) as caught:
        load_transcoders("mntss/clt-gemma-2-2b-2.5")
    assert "without --offline" in (caught.value.hint or "")
    assert "did you mean mntss/clt-gemma-2-2b-2.5M?" in (caught.value.hint or "")
    with pytest.raises(HubUnavailable) as known:
        load_transcoders("gemma")
    assert "did you mean" not in (known.value.hint or "")
