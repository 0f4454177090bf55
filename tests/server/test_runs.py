"""Runs of edits: the queue on a fake model, the routes, and the embedded model behind them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from circuit_tracer_cli.errors import InvalidType, InvalidValue, MissingFile, ModelMismatch
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.request import TraceRequest
from circuit_tracer_cli.server import runs
from circuit_tracer_cli.server.bodies import parsed
from circuit_tracer_cli.server.edits import RunRequest
from circuit_tracer_cli.server.model import ModelRunner
from circuit_tracer_cli.server.runs import QueueFull, Run, RunQueue, Work
from circuit_tracer_cli.types import Progress

from .builders import make_client

PROMPT = "Fact: the capital of the state containing Dallas is"
LIMIT = 60.0


class FakeModel:
    """A model whose runs wait until they are let go."""

    def __init__(self, load: Callable[[], None] = lambda: None) -> None:
        self.load, self.go = load, threading.Event()
        self.order: list[object] = []

    def describe(self) -> dict[str, Any]:
        return {"model": "fake"}

    def prepare(self, progress: Progress) -> None:
        progress.phase("loading the fake")
        self.load()

    def plan(self, body: object) -> Work:
        if body == "wrong":
            raise InvalidValue("the body is wrong", "send another")

        def work(progress: Progress) -> dict[str, Any]:
            progress.phase("thinking", 3)
            while not self.go.wait(0.01):
                progress.advance(0)
            if body == "break":
                raise RuntimeError("out of fake memory\nlong story")
            if body == "mismatch":
                raise ModelMismatch("it doesn't fit", "use another")
            self.order.append(body)
            return {"echo": body}

        return work


@pytest.fixture
def fake() -> Any:
    model = FakeModel()
    queue = RunQueue(model)
    queue.start()
    yield model, queue
    queue.close()
    model.go.set()


def submit(queue: RunQueue, body: object) -> Run:
    """Puts a run of the fake into its queue."""
    assert isinstance(queue.runner, FakeModel)
    return queue.add(queue.runner.plan(body))


def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition."""
    limit = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < limit, "it took too long"
        time.sleep(0.005)


def ended(run: Run) -> Run:
    until(lambda: run.state in runs.ENDED)
    return run


def test_runs_are_done_one_at_a_time_in_order(fake: tuple[FakeModel, RunQueue]) -> None:
    model, queue = fake
    first, second, third = (submit(queue, number) for number in (1, 2, 3))
    until(lambda: first.state == "running")
    assert [queue.status(run)["ahead"] for run in (first, second, third)] == [0, 0, 1]
    until(lambda: queue.status(first)["phase"] == "thinking")
    assert queue.status(first)["total"] == 3
    model.go.set()
    assert ended(third).result == {"echo": 3}
    assert model.order == [1, 2, 3]
    assert queue.status(third)["state"] == "done"


def test_what_waits_and_what_runs_can_be_cancelled(fake: tuple[FakeModel, RunQueue]) -> None:
    model, queue = fake
    running, waiting = submit(queue, "a"), submit(queue, "b")
    until(lambda: running.state == "running")
    assert queue.cancel(waiting.id).state == "cancelled"
    queue.cancel(running.id)
    assert ended(running).state == "cancelled"
    assert running.result is None
    model.go.set()
    assert ended(submit(queue, "c")).result == {"echo": "c"}
    assert queue.cancel(running.id).state == "cancelled"
    assert model.order == ["c"]


def test_a_failing_run_says_why_and_the_next_one_runs(fake: tuple[FakeModel, RunQueue]) -> None:
    model, queue = fake
    model.go.set()
    broken = ended(submit(queue, "break"))
    assert broken.state == "failed"
    assert broken.error == {
        "error": "the run failed: out of fake memory",
        "hint": "the server's log has the details",
    }
    assert ended(submit(queue, "mismatch")).error == {"error": "it doesn't fit", "hint": "use another"}
    assert ended(submit(queue, "fine")).state == "done"


def test_a_model_that_cannot_be_loaded_fails_every_run() -> None:
    def broken() -> None:
        raise MissingFile("the fake is gone", "look for it")

    queue = RunQueue(FakeModel(broken))
    queue.start()
    until(lambda: queue.describe()["state"] == "failed")
    assert queue.describe()["error"] == {"error": "the fake is gone", "hint": "look for it"}
    assert ended(submit(queue, 1)).error == {"error": "the fake is gone", "hint": "look for it"}
    queue.close()


def test_the_queue_has_an_end_and_forgets(
    fake: tuple[FakeModel, RunQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, queue = fake
    monkeypatch.setattr(runs, "MOST_WAITING", 2)
    monkeypatch.setattr(runs, "MOST_KEPT", 2)
    first = submit(queue, 0)
    until(lambda: first.state == "running")
    submit(queue, 1)
    last = submit(queue, 2)
    with pytest.raises(QueueFull, match="too many runs"):
        submit(queue, 3)
    model.go.set()
    ended(last)
    ended(submit(queue, 4))
    with pytest.raises(MissingFile, match="no run"):
        queue.find(first.id)


def test_closing_ends_the_thread(fake: tuple[FakeModel, RunQueue]) -> None:
    _, queue = fake
    run = submit(queue, 1)
    until(lambda: run.state == "running")
    queue.close()
    assert ended(run).state == "cancelled"
    until(lambda: not queue._thread.is_alive())


def test_a_model_in_use_is_waited_for() -> None:
    runner = ModelRunner(is_busy=True)
    queue = RunQueue(runner)
    queue.start()
    until(lambda: "waiting" in queue.describe()["phase"])
    runner.adopt(demo_model())
    until(lambda: queue.describe()["state"] == "ready")
    assert queue.describe()["scan"] == "demo-clt"
    queue.close()


def test_a_set_that_is_named_is_loaded() -> None:
    """As `serve -t` does: there is no prompt yet."""
    queue = RunQueue(ModelRunner(TraceRequest(transcoder_set="demo-plt", device="cpu")))
    queue.start()
    until(lambda: queue.describe()["state"] != "loading")
    assert (queue.describe()["state"], queue.describe()["error"]) == ("ready", None)
    assert queue.describe()["scan"] == "demo-plt"
    queue.close()


def demo_model() -> ReplacementModel:
    return ReplacementModel.from_pretrained("demo", "demo", device="cpu")


@pytest.fixture(scope="module")
def demo() -> Any:
    queue = RunQueue(ModelRunner(model=demo_model()))
    queue.start()
    yield queue
    queue.close()


@pytest.fixture
def client_with_model(data_dir: Path, demo: RunQueue) -> TestClient:
    return make_client(data_dir, runs=demo)


def run_to_end(client: TestClient, body: dict[str, Any]) -> dict[str, Any]:
    reply = client.post("/api/runs", json=body)
    assert reply.status_code == 202, reply.text
    address = reply.headers["location"]
    until(lambda: client.get(address).json()["state"] in runs.ENDED)
    found: dict[str, Any] = client.get(address).json()
    return found


def test_without_a_model_the_routes_say_what_to_type(client: TestClient) -> None:
    assert client.get("/api/model").json() == {"state": "none"}
    for reply in (
        client.post("/api/runs", json={"prompt": "a", "edits": ["0/1@0=off"]}),
        client.get("/api/runs/x"),
        client.delete("/api/runs/x"),
    ):
        assert reply.status_code == 409
        assert "--transcoder-set" in reply.json()["hint"]


def test_edits_of_the_demo_over_http(client_with_model: TestClient) -> None:
    client = client_with_model
    until(lambda: client.get("/api/model").json()["state"] == "ready")
    assert client.get("/api/model").json()["scan"] == "demo-clt"
    model = demo_model()
    _, activations = model.get_activations(PROMPT)
    layer, position, feature = activations[:, 5:].nonzero()[0].tolist()
    position += 5
    node, error = f"{layer}_{feature}_{position}", f"0_-1_{position}"
    austin = int(model.tokenizer(" Austin", add_special_tokens=False)["input_ids"][-1])
    logit = f"{model.cfg.n_layers + 1}_{austin}_{len(model.tokenize(PROMPT)) - 1}"
    edit = f"{layer}/{feature}@{position}=x-2"
    found = run_to_end(
        client,
        {
            "prompt": PROMPT,
            "edits": [edit],
            "watch": [node, logit, error, "E_1_1"],
            "generate": 3,
            "scan": "demo-clt",
            "prompt_tokens": list(model.tokenize(PROMPT).strings),
        },
    )
    assert found["state"] == "done", found["error"]
    result = found["result"]
    before = float(activations[layer, position, feature])
    assert set(result["nodes"]) == {node, logit}
    assert result["nodes"][node] == {
        "kind": "feature",
        "before": pytest.approx(before),
        "after": pytest.approx(-2 * before),
    }
    logits, _ = model.feature_intervention(PROMPT, [edit])
    assert result["nodes"][logit]["after"] == pytest.approx(
        float(logits[0, -1].double().softmax(-1)[austin]), rel=1e-4
    )
    assert result["continuation_before"].startswith(" Austin")
    assert len(result["continuation_after"]) > 0
    assert result["edits"] == [f"{layer}/{feature}@{position}=x-2.0"]


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"prompt": PROMPT, "edits": ["0/1@99=off"]}, "position 99"),
        ({"prompt": PROMPT, "edits": ["9/1@1=off"]}, "layer 9"),
        ({"prompt": PROMPT, "edits": ["0/1@1=off", "0/1@1=x2"]}, "different values"),
        ({"prompt": PROMPT, "edits": ["0/1@1=off"], "scan": "demo-plt"}, "demo-plt"),
        ({"prompt": PROMPT, "edits": ["0/1@1=off"], "prompt_tokens": ["<bos>"]}, "differ from the graph's"),
        ({"prompt": PROMPT, "edits": ["0/1@1=off"], "constrained_layers": [9, None]}, "empty range"),
    ],
)
def test_what_only_the_model_knows_fails_the_run(
    client_with_model: TestClient, body: dict[str, Any], part: str
) -> None:
    found = run_to_end(client_with_model, body)
    assert found["state"] == "failed"
    assert part in found["error"]["error"]


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"prompt": PROMPT},
        {"edits": ["0/1@1=off"]},
        {"prompt": PROMPT, "edits": ["0/1"]},
        {"prompt": PROMPT, "edits": ["0/1@1=nan"]},
        {"prompt": PROMPT, "edits": "0/1@1=off"},
        {"prompt": PROMPT, "edits": ["0/1@1=off"], "steps": 4},
        {"prompt": PROMPT, "edits": ["0/1@1=off"], "generate": 10**6},
        {"prompt": PROMPT, "edits": ["0/1@1=off"], "generate": True},
        {"prompt": PROMPT, "edits": ["0/1@1=off"], "temperature": "hot"},
        {"prompt": PROMPT, "edits": ["0/1@1=off"], "temperature": -1},
        {"prompt": PROMPT, "edits": ["0/1@1=off"], "constrained_layers": [0]},
        {"prompt": PROMPT, "edits": ["0/1@1=off"], "freeze_attention": 1},
        {"prompt": 3, "edits": ["0/1@1=off"]},
    ],
)
def test_a_bad_body_never_gets_into_the_queue(client_with_model: TestClient, body: object) -> None:
    reply = client_with_model.post("/api/runs", json=body)
    assert reply.status_code == 422
    assert reply.json()["error"]


def test_other_pages_cannot_start_runs(client_with_model: TestClient) -> None:
    body = {"prompt": PROMPT, "edits": ["0/1@1=off"]}
    foreign = {"Origin": "https://evil.example"}
    assert client_with_model.post("/api/runs", json=body, headers=foreign).status_code == 403
    assert client_with_model.delete("/api/runs/x", headers=foreign).status_code == 403
    assert client_with_model.delete("/api/runs/x").status_code == 404


def test_a_request_is_read_strictly() -> None:
    request = parsed(RunRequest, {"prompt": "a", "edits": ["0/1@1=off"], "scan": None, "top_k": 3})
    assert (request.scan, request.top_k, request.generate) == (None, 3, 0)
    with pytest.raises(InvalidType, match="watch"):
        parsed(RunRequest, {"prompt": "a", "edits": [], "watch": [1]})
    with pytest.raises(InvalidValue, match="watch"):
        parsed(RunRequest, {"prompt": "a", "edits": [], "watch": ["x"] * 2000})
