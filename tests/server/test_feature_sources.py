"""Whose examples a graph's features are shown with: a named folder's, the set's own, the hub's, or nobody's and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from starlette.testclient import TestClient

from circuit_tracer_cli.server.features import FeatureSources, feature_cache
from tests.hub.fake_hub import FakeHub, Repository, serving

from .builders import make_client, make_graph, write_features

REPO = "somebody/a-set"


def write(folder: Path, scan: Any, slug: str = "demo", **metadata: Any) -> None:
    graph = make_graph(slug)
    graph["metadata"].update(scan=scan, **metadata)
    (folder / f"{slug}.json").write_text(json.dumps(graph))


def ask(client: TestClient, layer: int = 1, feature: int = 3, slug: str = "demo") -> dict[str, Any]:
    reply = client.get(f"/api/graphs/{slug}/features/{layer}/{feature}")
    assert reply.status_code == 200, reply.text
    return reply.json()


def packed(record: Any = None) -> dict[str, bytes]:
    """Index and binary files of a set that knows feature 3 of layer 1 alone."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        write_features(Path(name), {(1, 3): record or {"index": 3, "top_logits": ["x" * 300]}})
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with one set that has examples."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "huggingface"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(FakeHub()) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        files = {f"sub/features/{name}": content for name, content in packed().items()}
        files |= {"sub/features/layer_1.bin": files["sub/features/layer_1.bin"] + b"\0" * 500}
        served.repositories[REPO] = Repository(files)
        yield served


def test_each_graph_has_its_own_sets_examples(data_dir: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "features").mkdir(parents=True)
        write_features(tmp_path / name / "features", {(1, 3): {"index": 3, "transcoder_id": name}})
        write(data_dir, str(tmp_path / name), name)
    client = make_client(data_dir)
    for name in ("one", "two"):
        answer = ask(client, slug=name)
        assert answer["record"]["transcoder_id"] == name
        assert (answer["reason"], answer["set"]) == (None, str(tmp_path / name))
    assert client.get("/healthz").json()["features"] is True
    assert client.get("/api/features/1/3").status_code == 200


def test_a_graph_over_several_sets_asks_that_of_the_layer(data_dir: Path, tmp_path: Path) -> None:
    for layer in (0, 1):
        (tmp_path / str(layer) / "features").mkdir(parents=True)
        write_features(tmp_path / str(layer) / "features", {(layer, 3): {"index": layer}})
    write(data_dir, "custom-1", transcoder_list=[str(tmp_path / "0"), str(tmp_path / "1")])
    client = make_client(data_dir)
    assert [ask(client, layer)["record"] for layer in (0, 1)] == [{"index": 0}, {"index": 1}]


def test_a_named_folder_is_for_all(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "named").mkdir()
    write_features(tmp_path / "named", {(1, 3): {"index": 3}})
    write(data_dir, "somebody/whose-hub-is-not-asked")
    assert ask(make_client(data_dir, features_dir=tmp_path / "named"))["record"] == {"index": 3}


def test_a_feature_without_a_record(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "set" / "features").mkdir(parents=True)
    write_features(tmp_path / "set" / "features", {(1, 3): {"index": 3}})
    write(data_dir, str(tmp_path / "set"))
    answer = ask(make_client(data_dir), feature=2)
    assert answer["record"] is None
    assert "wasn't active" in answer["reason"]


@pytest.mark.parametrize("scan", ["gemma-2-2b", "", "/nowhere", "../x", "http://127.0.0.1:1/x", "a/b/../../c", "a" * 9000, "\0",
                                  "user/repo@../../x", "//127.0.0.1/x", "~root/x"])  # fmt: skip
def test_a_set_that_nobody_knows_is_nowhere_asked_for(data_dir: Path, hub: FakeHub, scan: str) -> None:
    write(data_dir, scan)
    answer = ask(make_client(data_dir))
    assert answer["record"] is None
    assert "no feature examples are known" in answer["reason"]
    assert "--features-dir" in answer["hint"]
    assert hub.requests == []


def test_the_hub_is_asked_once_and_never_again(
    data_dir: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(data_dir, f"{REPO}//sub@v1")
    client = make_client(data_dir)
    answer = ask(client)
    assert answer["record"]["index"] == 3
    assert len(hub.asked("layer_1.bin")) == 1
    assert hub.ranges
    assert ask(client)["record"] == answer["record"]
    assert ask(client, feature=2)["record"] is None
    assert len(hub.asked("layer_1.bin")) == 1
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(hub.requests)
    assert ask(make_client(data_dir))["record"] == answer["record"]
    assert len(hub.requests) == asked


def test_without_a_network_the_page_can_say_why(
    data_dir: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write(data_dir, f"{REPO}//sub")
    answer = ask(make_client(data_dir))
    assert answer["record"] is None
    assert "network access is off" in answer["reason"]
    assert hub.requests == []


def test_a_repository_without_examples(data_dir: Path, hub: FakeHub) -> None:
    hub.repositories["somebody/plain"] = Repository({"config.yaml": b"x"})
    write(data_dir, "somebody/plain")
    answer = ask(make_client(data_dir))
    assert "has no feature examples" in answer["reason"]
    asked = len(hub.requests)
    client = make_client(data_dir)
    for _ in range(3):
        ask(client)
    assert len(hub.requests) < asked * 3


def test_a_set_that_failed_is_asked_again_later(data_dir: Path, hub: FakeHub, tmp_path: Path) -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()
    sources = FeatureSources(None, tmp_path / "records", clock)
    metadata = {"scan": f"{REPO}//sub"}
    hub.status = 500
    assert sources.answer(metadata, 1, 3)["record"] is None
    hub.status = None
    assert sources.answer(metadata, 1, 3)["record"] is None
    clock.now += 31
    assert sources.answer(metadata, 1, 3)["record"]["index"] == 3


@pytest.mark.parametrize(
    "filename", ["../../../secret.bin", "/etc/passwd", "a/b.bin", "..", ".hidden", "x?y=1"]
)
def test_an_index_leads_to_no_other_file(data_dir: Path, hub: FakeHub, filename: str) -> None:
    import gzip

    index = [None, {"filename": filename, "offsets": [0, 100, 200, 300, 400]}]
    files = {"features/index.json.gz": gzip.compress(json.dumps(index).encode())}
    hub.repositories["somebody/evil"] = Repository(files)
    write(data_dir, "somebody/evil")
    answer = ask(make_client(data_dir))
    assert "damaged" in answer["reason"]
    assert not hub.asked("secret|passwd|hidden|b.bin")


@pytest.mark.parametrize(
    ("metadata", "link"),
    [
        ({"scan": "mwhanna/gemma-scope-transcoders"}, "gemma-2-2b/1-gemmascope-transcoder-16k/3"),
        ({"scan": "mwhanna/gemma-scope-transcoders@abc"}, "gemma-2-2b/1-gemmascope-transcoder-16k/3"),
        (
            {"scan": "llama", "feature_details": {"neuronpedia_source_set": "res-16k"}},
            "llama/1-res-16k/3",
        ),
        (
            {"scan": "x", "feature_details": {"neuronpedia_source_set": 'a"/../<b>'}},
            "x/1-a%22%2F..%2F%3Cb%3E/3",
        ),
        ({"scan": "demo-clt"}, None),
        ({"scan": "user/repo", "feature_details": {"neuronpedia_source_set": "s"}}, None),
        ({"scan": "", "feature_details": {"neuronpedia_source_set": "s"}}, None),
        ({"scan": "demo-clt", "feature_details": ["s"]}, None),
    ],
)
def test_links_to_neuronpedia(tmp_path: Path, metadata: dict[str, Any], link: str | None) -> None:
    sources = FeatureSources(
        tmp_path, tmp_path
    )  # an empty folder that is named, so that nothing else is asked
    found = sources.answer(metadata, 1, 3)["link"]
    assert found == (None if link is None else f"https://www.neuronpedia.org/{link}")


def test_where_records_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.delenv("CIRCUIT_TRACER_CACHE_DIR", raising=False)
    assert feature_cache() == Path("/cache/circuit_tracer/features")
    monkeypatch.setenv("CIRCUIT_TRACER_CACHE_DIR", "/elsewhere")
    assert feature_cache() == Path("/elsewhere/features")
