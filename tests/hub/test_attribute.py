"""The whole journey with a set of the hub: judged by its headers, downloaded, traced, traced again without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from circuit_tracer_cli import hub as client
from circuit_tracer_cli.errors import ModelMismatch
from circuit_tracer_cli.pipeline import trace
from circuit_tracer_cli.prepare import prepare
from circuit_tracer_cli.request import TraceRequest
from circuit_tracer_cli.types import SilentProgress
from tests.cli.conftest import PROMPT, Tiny, tiny
from tests.hub.fake_hub import FakeHub, Repository

__all__ = ["tiny"]


def publish(hub: FakeHub, folder: Path, commit: str) -> None:
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    hub.repositories["user/set"] = Repository(files, commit=commit)


def test_a_graph_with_a_set_of_the_hub(hub: FakeHub, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(hub, tiny.transcoders, "c" * 40)
    request = TraceRequest(prompt=PROMPT, transcoder_set="user/set", model=str(tiny.model), device="cpu")
    prepare(request)
    assert not list(client.cache_folder().rglob("*.safetensors"))
    graph = trace(prepare(request), SilentProgress())
    assert graph.scan == "user/set"
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = trace(prepare(request), SilentProgress())
    assert hub.requests == []
    assert torch.equal(graph.adjacency_matrix, again.adjacency_matrix)


def test_a_graph_says_which_commits_it_was_made_with(
    hub: FakeHub, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A branch moves on; the commit that it stood for stays. All files of the model are of that commit."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    publish(hub, tiny.transcoders, "c" * 40)
    files = {path.name: path.read_bytes() for path in tiny.model.iterdir() if path.is_file()}
    hub.repositories["user/model"] = Repository(files, commit="d" * 40)
    request = TraceRequest(prompt=PROMPT, transcoder_set="user/set", model="user/model@v1", device="cpu")
    graph = trace(prepare(request), SilentProgress())
    assert (graph.metadata["model_revision"], graph.metadata["model_commit"]) == ("v1", "d" * 40)
    assert graph.metadata["transcoders"]["commit"] == "c" * 40
    assert all(f"/{'d' * 40}/" in asked for asked in hub.asked("GET /user/model/resolve/.*model.safetensors"))


def test_a_set_for_another_model_is_refused_by_its_headers(hub: FakeHub, tiny: Tiny) -> None:
    publish(hub, tiny.transcoders, "d" * 40)
    files = hub.repositories["user/set"].files
    layers = [name for name in files if name.startswith("layer_")]
    files[f"layer_{len(layers)}.safetensors"] = files[layers[0]]
    request = TraceRequest(prompt=PROMPT, transcoder_set="user/set", model=str(tiny.model), device="cpu")
    with pytest.raises(ModelMismatch):
        prepare(request)
