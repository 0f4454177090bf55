"""Traces of new prompts over HTTP, on the embedded model."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from circuit_tracer_cli import pipeline
from circuit_tracer_cli.attribution.offload import Offload
from circuit_tracer_cli.attribution.targets import TokenReader
from circuit_tracer_cli.errors import InvalidType, InvalidValue
from circuit_tracer_cli.graph.defaults import EDGE_THRESHOLD, NODE_THRESHOLD
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.prepare import Prepared
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.request import TraceRequest
from circuit_tracer_cli.server import runs
from circuit_tracer_cli.server.bodies import parsed
from circuit_tracer_cli.server.model import ModelRunner
from circuit_tracer_cli.server.runs import RunQueue
from circuit_tracer_cli.server.traces import TraceBody, _as_target, command_line, defaults

from .builders import make_client, write_graph

PROMPT = "Fact: the capital of the state containing Dallas is"
OTHER = "The opposite of small is"
LIMIT = 120.0


@pytest.fixture(scope="module")
def model() -> ReplacementModel:
    return ReplacementModel.from_pretrained("demo", "demo", device="cpu")


@pytest.fixture
def queue(model: ReplacementModel) -> Iterator[RunQueue]:
    queue = RunQueue(ModelRunner(model=model))
    queue.start()
    yield queue
    queue.close()


@pytest.fixture
def folder(data_dir: Path) -> Path:
    return data_dir


@pytest.fixture
def client(folder: Path, queue: RunQueue) -> TestClient:
    return make_client(folder, runs=queue)


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < limit, "it took too long"
        time.sleep(0.005)


def started(client: TestClient, body: dict[str, Any], route: str = "/api/traces") -> str:
    reply = client.post(route, json=body)
    assert reply.status_code == 202, reply.text
    return str(reply.headers["location"])


def ended(client: TestClient, address: str) -> dict[str, Any]:
    until(lambda: client.get(address).json()["state"] in runs.ENDED)
    found: dict[str, Any] = client.get(address).json()
    return found


def draft(client: TestClient, **body: Any) -> dict[str, Any]:
    reply = client.post("/api/traces/draft", content=json.dumps({"prompt": PROMPT, **body}))
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


class Held:
    """A model's first trace that waits after its logit rows until it's let go; what pages see meanwhile."""

    def __init__(self, client: TestClient, monkeypatch: pytest.MonkeyPatch, end: Callable[[], None]) -> None:
        real = pipeline.trace_with

        def trace_with(model: Any, prepared: Any, progress: Any, on_partial: Any) -> Any:
            def look(make: Any) -> None:
                on_partial(make)
                if not self.seen:
                    self.seen = [client.get(path).json() for path in ("/api/live", "/api/live/graph")]
                    end()

            client.get("/api/live")  # a page watches
            return real(model, prepared, progress, look)

        self.seen: list[Any] = []
        monkeypatch.setattr(pipeline, "trace_with", trace_with)


def test_a_second_prompt_is_traced_and_a_third_on_the_same_model(client: TestClient, folder: Path) -> None:
    for prompt, slug in ((PROMPT, "dallas"), (OTHER, None)):
        found = ended(client, started(client, {"prompt": prompt, "slug": slug, "max_feature_nodes": 20}))
        assert found["state"] == "done", found["error"]
        name = found["result"]["slug"]
        assert name == (slug or "the-opposite-of-small-is")
        graph = client.get(f"/api/graphs/{name}").json()
        assert graph["metadata"]["prompt"] == f"<bos>{prompt}"
        assert graph["metadata"]["generation_settings"]["max_feature_nodes"] == 20
        typed, kept = (shlex.split(one) for one in (found["result"]["command"], graph["metadata"]["command"]))
        assert str(folder) in typed
        assert kept == [folder.name if word == str(folder) else word for word in typed]
        assert len(graph["metadata"]["top_predictions"]) == 10
        assert client.get("/api/live").json()["state"] == "done"
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
        "demo.json", "dallas.json", "the-opposite-of-small-is.json", "graph-metadata.json"
    }  # fmt: skip


def test_the_file_is_the_one_that_the_command_would_write(
    client: TestClient, folder: Path, tmp_path: Path
) -> None:
    from circuit_tracer_cli.cli.app import run

    body = {"prompt": PROMPT, "slug": "same", "targets": [" Austin", "Texas"], "node_threshold": 0.5}
    command = ended(client, started(client, body))["result"]["command"]
    ours = json.loads((folder / "same.json").read_bytes())
    words = shlex.split(command)
    assert words[:2] == ["circuit-tracer", "attribute"]
    words[words.index("--graph-file-dir") + 1] = str(tmp_path / "there")
    assert run(words[1:]) == 0
    theirs = json.loads((tmp_path / "there" / "same.json").read_bytes())
    for file in (ours, theirs):
        file["metadata"].pop("command", None)
        file["metadata"]["info"].pop("create_time_ms")
    assert ours == theirs


def test_a_page_sees_the_graph_grow(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(client, monkeypatch, lambda: None)
    address = started(client, {"prompt": PROMPT, "slug": "growing", "max_feature_nodes": 30, "batch_size": 2})
    assert ended(client, address)["state"] == "done"
    status, partial = held.seen
    assert (status["state"], status["slug"], status["run"]) == (
        "running",
        "growing",
        address.rpartition("/")[2],
    )
    assert partial["metadata"]["partial"] is True


def test_a_cancelled_trace_leaves_nothing(
    client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    address = ""
    Held(client, monkeypatch, lambda: client.delete(address) and None)
    body = {"prompt": PROMPT, "slug": "unwanted", "max_feature_nodes": 30, "batch_size": 1}
    with pytest.MonkeyPatch.context() as patch:  # the run begins when its address is known
        patch.setattr(runs.RunQueue, "add", _adding_late(lambda run: _set(run.id)))

        def _set(run_id: str) -> None:
            nonlocal address
            address = f"/api/runs/{run_id}"

        run = started(
            client, body
        )  # known here before the run itself, which may not have begun yet, has told its own
    assert ended(client, run)["state"] == "cancelled"
    assert client.get("/api/live").json()["state"] == "cancelled"
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert ended(client, started(client, {**body, "max_feature_nodes": 5}))["state"] == "done"


def _adding_late(tell: Callable[[Any], None]) -> Any:
    real = runs.RunQueue.add

    def add(self: RunQueue, work: Any) -> Any:
        def told(run: Any) -> Any:
            tell(run)
            return work(run)

        return real(self, told)

    return add


def test_running_out_of_memory_is_one_line_and_the_next_trace_runs(
    client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB\nmuch more")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "trace_with", broken)
        found = ended(client, started(client, {"prompt": PROMPT, "slug": "huge"}))
    assert found["state"] == "failed"
    assert found["error"]["error"] == "not enough memory for this prompt"
    assert "shorten it" in found["error"]["hint"]
    assert client.get("/api/live").json()["error"] == found["error"]["error"]
    assert not (folder / "huge.json").exists()
    assert ended(client, started(client, {"prompt": PROMPT, "max_feature_nodes": 5}))["state"] == "done"


def test_traces_and_edits_wait_in_one_queue(client: TestClient) -> None:
    first = started(client, {"prompt": PROMPT, "max_feature_nodes": 10})
    second = started(client, {"prompt": PROMPT, "edits": ["0/1@1=off"]}, "/api/runs")
    third = started(client, {"prompt": OTHER}, "/api/predictions")
    assert [ended(client, address)["state"] for address in (first, second, third)] == ["done"] * 3


def test_the_most_likely_next_tokens(client: TestClient, model: ReplacementModel) -> None:
    found = ended(client, started(client, {"prompt": PROMPT}, "/api/predictions"))["result"][
        "top_predictions"
    ]
    assert (found[0]["token"], found[0]["target"], len(found)) == (" Austin", " Austin", 10)
    asked = {"prompt": PROMPT, "targets": [entry["target"] for entry in found], "max_feature_nodes": 5}
    slug = ended(client, started(client, asked))["result"]["slug"]
    nodes = client.get(f"/api/graphs/{slug}").json()["nodes"]
    assert [node["feature"] for node in nodes if node["feature_type"] == "logit"] == [
        entry["id"] for entry in found
    ]
    logits, _ = model.feature_intervention(PROMPT, [])
    assert found[0]["probability"] == pytest.approx(float(logits[0, -1].double().softmax(-1).max()), rel=1e-5)


def test_a_token_whose_text_means_another_is_named_by_number(model: ReplacementModel) -> None:
    reader = TokenReader(model.tokenizer, model.model.shape.d_vocab)
    (texas,) = model.tokenizer.encode(" Texas", add_special_tokens=False)
    assert _as_target(reader, " Texas", texas) == " Texas"
    assert _as_target(reader, " Texas", texas + 1) == f"id:{texas + 1}"
    assert _as_target(reader, " - ", 5) == "id:5"
    assert _as_target(reader, "\ufffd", 5) == "id:5"


def test_a_conversation_is_put_into_the_template(
    client: TestClient, model: ReplacementModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = (
        "{% for m in messages %}{{ m.content }}: {% endfor %}{% if add_generation_prompt %} is{% endif %}"
    )
    monkeypatch.setattr(model.tokenizer, "chat_template", template)
    assert client.get("/api/traces").json()["chat"] is True
    found = draft(client, prompt="the capital", chat=True, system="Fact", prefill=" Texas")
    assert "".join(token["text"] for token in found["tokens"]) == "<bos>Fact: the capital:  is Texas"
    assert "--chat" in found["command"]
    assert draft(client, prompt="Fact: the", system="Fact")["tokens"][-1]["text"] == " the"


def test_a_draft_shows_tokens_name_and_command(client: TestClient) -> None:
    found = draft(client)
    assert [token["text"] for token in found["tokens"]][:3] == ["<bos>", "Fact", ":"]
    assert found["tokens"][0]["id"] == 0
    assert (found["zeroed"], found["problem"], found["replaces"]) == (1, None, False)
    assert found["slug"] == "fact-the-capital-of-the-state-containing-dallas-is"
    assert shlex.split(found["command"])[:6] == [
        "circuit-tracer",
        "attribute",
        "-p",
        PROMPT,
        "-t",
        "demo-clt",
    ]
    assert "-m" not in shlex.split(found["command"])
    assert draft(client, prompt=" ")["tokens"] is None


@pytest.mark.parametrize(
    ("body", "part", "words"),
    [
        ({"prompt": "a " * 100}, "prompt", "at most 64"),
        ({"prompt": "half \ud800"}, "prompt", "a lone surrogate"),
        ({"chat": True}, "prompt", "no chat template"),
        ({"targets": ["no such word"]}, "targets", "no such word"),
        ({"targets": [" Austin", " Austin - Texas"]}, "targets", "mixed"),
        ({"targets": [" Austin - Austin"]}, "targets", "minus itself"),
        ({"targets": ["\ud800"]}, "targets", "a lone surrogate"),
        ({"max_n_logits": 5000}, "settings", "1170"),
        ({"desired_logit_prob": 0}, "settings", "desired_logit_prob"),
        ({"slug": "../x"}, "slug", "can't name"),
        ({"slug": "demo"}, "slug", "another prompt"),
    ],
)
def test_what_is_wrong_is_told_before_and_refused(
    client: TestClient, folder: Path, body: dict[str, Any], part: str, words: str
) -> None:
    problem = draft(client, **body)["problem"]
    assert problem["part"] == part
    assert words in problem["error"]
    content = json.dumps({"prompt": PROMPT, **body})
    reply = client.post("/api/traces", content=content)
    assert reply.status_code == 422
    assert reply.json() == {"error": problem["error"], "hint": problem["hint"]}
    assert [path.name for path in folder.iterdir()] == ["demo.json"]


def test_a_taken_name_gets_a_proposal(client: TestClient, folder: Path) -> None:
    write_graph(folder, "demo-2")
    assert draft(client, slug="demo")["problem"]["proposal"] == "demo-3"
    write_graph(folder, "the-opposite-of-small-is")
    (folder / "the-opposite-of-small-is-2.json").write_text("damaged")
    assert draft(client, prompt=OTHER)["slug"] == "the-opposite-of-small-is-3"


def test_the_same_prompt_may_be_traced_again_and_keeps_its_annotations(client: TestClient) -> None:
    body = {"prompt": OTHER, "slug": "again", "max_feature_nodes": 10}
    ended(client, started(client, body))
    reply = client.get("/api/graphs/again")
    pinned = reply.json()["nodes"][0]["node_id"]
    saved = client.put(
        "/api/graphs/again/annotations",
        json={"pinnedIds": [pinned]},
        headers={"If-Match": reply.headers["etag"]},
    )
    assert saved.status_code == 200
    assert draft(client, prompt=OTHER, slug="again")["replaces"] is True
    found = ended(client, started(client, body))
    assert (found["state"], found["result"]["aside"], found["result"]["note"]) == ("done", None, None)
    assert client.get("/api/graphs/again").json()["qParams"]["pinnedIds"] == [pinned]


def test_a_trace_that_loses_pins_says_where_they_are_kept(client: TestClient, folder: Path) -> None:
    body = {"prompt": OTHER, "slug": "again", "max_feature_nodes": 40, "node_threshold": 0.9}
    ended(client, started(client, body))
    nodes = client.get("/api/graphs/again").json()["nodes"]
    pins = [node["node_id"] for node in nodes]
    headers = {"If-Match": "*"}
    client.put("/api/graphs/again/annotations", json={"pinnedIds": pins}, headers=headers)
    result = ended(client, started(client, {**body, "node_threshold": 0.3}))["result"]
    left = client.get("/api/graphs/again").json()["qParams"]["pinnedIds"]
    assert 0 < len(left) < len(pins)
    assert result["aside"] == "again.json.bak"
    assert result["aside"] in result["note"]
    assert str(folder) not in result["note"]
    assert json.loads((folder / result["aside"]).read_text())["qParams"]["pinnedIds"] == pins


def test_every_prompt_is_planned_and_weights_are_back_before_the_next_run(
    client: TestClient, model: ReplacementModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no memory is free, weights wait on the disk; nothing of that is in the command."""
    planned: list[tuple[int, str]] = []
    moved: list[int] = []
    real_trace, real_restore = pipeline.trace_with, Offload.restore

    def trace_with(one: ReplacementModel, prepared: Prepared, *rest: Any) -> Graph:
        planned.append((len(prepared.tokens or ()), prepared.plan.choices.offload))
        return real_trace(one, prepared, *rest)

    def restore(self: Offload) -> None:
        moved.append(self.moved_bytes)
        real_restore(self)

    def size() -> int:
        return sum(parameter.numel() for parameter in model.model.hf_model.parameters())  # type: ignore[attr-defined]

    before = size()
    monkeypatch.setattr(pipeline, "trace_with", trace_with)
    monkeypatch.setattr(Offload, "restore", restore)
    monkeypatch.setattr("circuit_tracer_cli.attribution.places.free_memory", lambda device=None: 0)
    for prompt in (PROMPT, OTHER):
        found = ended(client, started(client, {"prompt": prompt, "max_feature_nodes": 5}))
        assert found["state"] == "done", found["error"]
        assert "--offload" not in found["result"]["command"]
    edited = ended(client, started(client, {"prompt": PROMPT, "edits": ["0/1@1=off"]}, "/api/runs"))
    assert edited["state"] == "done", edited["error"]
    assert planned == [(len(model.tokenize(prompt)), "disk") for prompt in (PROMPT, OTHER)]
    assert len(moved) == 2
    assert min(moved) > 0
    assert size() == before


def test_a_name_taken_in_the_meantime_is_not_overwritten(
    client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Held(client, monkeypatch, lambda: write_graph(folder, "mine") and None)
    found = ended(client, started(client, {"prompt": PROMPT, "slug": "mine", "max_feature_nodes": 5}))
    assert found["result"]["slug"] == "mine-2"
    assert json.loads((folder / "mine.json").read_text())["metadata"]["prompt"] == " a"


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"prompt": 3},
        {"prompt": PROMPT, "steps": 3},
        {"prompt": PROMPT, "targets": " Austin"},
        {"prompt": PROMPT, "targets": ["a"] * 300},
        {"prompt": PROMPT, "chat": 1},
        {"prompt": PROMPT, "max_n_logits": 0},
        {"prompt": PROMPT, "batch_size": 1.5},
        {"prompt": PROMPT, "max_feature_nodes": -1},
        {"prompt": PROMPT, "node_threshold": 1.5},
        {"prompt": PROMPT, "desired_logit_prob": "0.9"},
    ],
)
def test_a_body_that_cannot_be_meant_is_refused(client: TestClient, body: object) -> None:
    for route in ("/api/traces", "/api/traces/draft", "/api/predictions"):
        reply = client.post(route, json=body)
        assert reply.status_code == 422
        assert set(reply.json()) == {"error", "hint"}
    with pytest.raises((InvalidType, InvalidValue)):
        parsed(TraceBody, body)


def test_an_empty_prompt_is_refused(client: TestClient) -> None:
    for route in ("/api/traces", "/api/predictions"):
        assert client.post(route, json={"prompt": " \n"}).json()["error"] == "the prompt is empty"


def test_predictions_refuse_a_prompt_that_traces_refuse(client: TestClient) -> None:
    for route in ("/api/traces", "/api/predictions"):
        reply = client.post(route, json={"prompt": "a " * 100})
        assert reply.status_code == 422
        assert "at most 64" in reply.json()["error"]


def test_without_a_model_the_routes_say_what_to_type(folder: Path) -> None:
    client = make_client(folder)
    assert client.get("/api/traces").json() == {"possible": False}
    for route in ("/api/traces", "/api/traces/draft", "/api/predictions"):
        reply = client.post(route, json={"prompt": PROMPT})
        assert reply.status_code == 409
        assert "--transcoder-set" in reply.json()["hint"]


def test_other_pages_and_strangers_are_refused(folder: Path, queue: RunQueue) -> None:
    client = make_client(folder, runs=queue, max_body=1000)
    for route in ("/api/traces", "/api/traces/draft", "/api/predictions"):
        body = {"prompt": PROMPT}
        assert client.post(route, json=body, headers={"Origin": "https://evil.example"}).status_code == 403
        assert client.post(route, json=body, headers={"Host": "evil.example"}).status_code == 403
        assert client.post(route, json={"prompt": "a" * 2000}).status_code == 413
        assert client.post(route, content="{").status_code == 400
    stranger = make_client(
        folder, runs=queue, host="0.0.0.0", base="http://192.168.1.5:8041", token="s3cret", peer="192.168.1.9"
    )
    assert stranger.post("/api/traces", json={"prompt": PROMPT}).status_code == 401


def test_a_model_that_is_loading_takes_a_trace_and_traces_it_later(
    folder: Path, model: ReplacementModel
) -> None:
    runner = ModelRunner(is_busy=True)
    queue = RunQueue(runner)
    queue.start()
    client = make_client(folder, runs=queue)
    try:
        assert client.get("/api/traces").json()["n_ctx"] is None
        assert draft(client)["tokens"] is None
        assert draft(client)["slug"] == "fact-the-capital-of-the-state-containing-dallas-is"
        assert draft(client, slug="a/b")["problem"]["part"] == "slug"
        late, bad = (
            started(client, {"prompt": PROMPT, "slug": slug, "max_feature_nodes": 5})
            for slug in ("late", "demo")
        )
        assert client.get(late).json()["state"] == "queued"
        runner.adopt(model)
        assert ended(client, late)["state"] == "done"
        assert "another prompt" in ended(client, bad)["error"]["error"]
        assert client.get("/api/traces").json()["n_ctx"] == 64
    finally:
        queue.close()


def test_what_was_loaded_by_command_is_named_in_the_command(folder: Path) -> None:
    base = TraceRequest(
        transcoder_set="some/set@v1", model="my/model", dtype="bfloat16", device="cuda:1", offload="cpu",
        lazy_encoder=False, offline=True,
    )  # fmt: skip
    body = TraceBody(
        prompt="it's", chat=True, system="be kind", prefill="Sure", targets=[" a - b"], max_n_logits=3,
        desired_logit_prob=0.5, max_feature_nodes=0, batch_size=8, edge_threshold=0.9,
    )  # fmt: skip
    assert command_line(body.request(base), body, "x", folder) == (
        """circuit-tracer attribute -p 'it'"'"'s' -t some/set@v1 -m my/model --system 'be kind' --prefill Sure """
        "--max-n-logits 3 --desired-logit-prob 0.5 "
        "--max-feature-nodes 0 --batch-size 8 --dtype bfloat16 --device cuda:1 --offload cpu --chat "
        f"--target ' a - b' --no-lazy-encoder --offline --edge-threshold 0.9 --slug x --graph-file-dir {folder}"
    )
    follow = TraceBody(prompt="a", completion=" b c")
    assert "--completion ' b c'" in command_line(follow.request(base), follow, "x", folder)
    assert (body.request(base).system, TraceBody(prompt="a", system="b").request(base).system) == (
        "be kind",
        None,
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8, "0.8"), (0.9999999, "0.9999999"), (1.0, "1"), (0.1 + 0.2, "0.30000000000000004"), (1e-7, "1e-07")],
)
def test_numbers_of_a_command_are_read_as_the_same(value: float, text: str, folder: Path) -> None:
    body = TraceBody(prompt="a", desired_logit_prob=value, node_threshold=value, edge_threshold=value)
    words = shlex.split(command_line(body.request(TraceRequest()), body, "x", folder))
    for option in ("--desired-logit-prob", "--edge-threshold"):
        assert words[words.index(option) + 1] == text
        assert float(text) == value
    assert ("--node-threshold" in words) is (value != NODE_THRESHOLD)


def test_the_defaults_are_those_of_the_command_line() -> None:
    assert (defaults()["node_threshold"], defaults()["edge_threshold"]) == (NODE_THRESHOLD, EDGE_THRESHOLD)
    body, request = TraceBody(prompt="a"), TraceRequest(prompt="a")
    assert body.request(TraceRequest()) == request
    assert all(getattr(body, name) == value for name, value in defaults().items())


def test_a_completion_is_traced_under_the_name_of_the_whole_text(client: TestClient) -> None:
    body = {"completion": " Austin, Texas", "slug": "answer", "max_feature_nodes": 20}
    assert "--completion ' Austin, Texas'" in draft(client, **body)["command"]
    assert draft(client, completion="ing")["problem"]["error"].startswith("the completion 'ing' merges")
    found = ended(client, started(client, {"prompt": PROMPT, **body}))
    assert found["state"] == "done", found["error"]
    graph = client.get("/api/graphs/answer").json()
    assert graph["metadata"]["prompt"] == f"<bos>{PROMPT} Austin,"
    outputs = [node["ctx_idx"] for node in graph["nodes"] if node["feature_type"] == "logit"]
    last = len(graph["metadata"]["prompt_tokens"]) - 1
    assert outputs == [last - 2, last - 1, last]
    assert draft(client, **body)["replaces"] is True
    assert draft(client, slug="answer")["problem"]["part"] == "slug"
