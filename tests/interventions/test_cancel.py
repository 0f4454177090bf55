"""A generation that is given up: its key-value cache is freed and the model has no hook more, whoever gives it up and however."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from circuit_tracer_cli.interventions.experiment import run_experiment
from circuit_tracer_cli.interventions.generate import Sampling, generate_steps
from circuit_tracer_cli.interventions.plan import Plan
from circuit_tracer_cli.interventions.run import Constraints
from circuit_tracer_cli.interventions.spec import as_interventions
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.server.edits import plan_edits
from circuit_tracer_cli.server.graphs import GraphFolder
from circuit_tracer_cli.server.live import LiveStage
from circuit_tracer_cli.server.model import Desk, ModelRunner
from circuit_tracer_cli.server.runs import ENDED, Cancelled, RunQueue
from circuit_tracer_cli.types import SilentProgress
from tests.builders import PROMPT, replacement

IDS = list(PROMPT)
EDITS = as_interventions([(1, slice(2, None), 4, 3.0)])
LONG = Sampling(max_new_tokens=40, do_sample=False)


class Watched:
    """A model whose caches are watched without being kept.

    Args:
        model: The model.
        monkeypatch: Puts itself between the model and its runs.
    """

    def __init__(self, model: ReplacementModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model, self.backend = model, model.model
        self.caches: list[weakref.ref[Any]] = []
        self.at_run: dict[int, Any] = {}
        inner = self.backend.run

        def run(*given: Any) -> Any:
            logits, cache = inner(*given)
            self.caches.append(weakref.ref(cache))
            self.at_run.get(len(self.caches), lambda: None)()
            return logits, cache

        monkeypatch.setattr(self.backend, "run", run)
        self.hooks_before = self.hooks()

    def hooks(self) -> int:
        """Hooks on all modules, and modules whose `forward` was exchanged."""
        found = 0
        for module in (*self.backend.hf_model.modules(), *self.bridge_modules()):
            found += len(module._forward_hooks) + len(module._forward_pre_hooks) + ("forward" in vars(module))
        return found

    def bridge_modules(self) -> Iterator[nn.Module]:
        """The modules of the library that wraps the model, if it has any."""
        yield from getattr(self.backend, "bridge", nn.Module()).modules()

    def living(self) -> int:
        """Caches that somebody still holds."""
        gc.collect()
        return sum(cache() is not None for cache in self.caches)

    def check_freed(self) -> None:
        """Nothing is left of what ran."""
        assert len(self.caches) > 1
        assert self.living() == 0
        assert self.hooks() == self.hooks_before


@pytest.fixture(params=["transformerlens", "nnsight"])
def watched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    model = replacement("llama", "plt", backend_name=request.param)
    model.interventions.unmodified(model.tokenize(IDS))
    gc.freeze()  # a collection then looks at what the test itself leaves, not at every imported module
    yield Watched(model, monkeypatch)
    gc.unfreeze()


def steps_of(model: ReplacementModel) -> Any:
    return generate_steps(model.interventions, model.tokenize(IDS), EDITS, Constraints(), LONG)


def test_a_running_generation_is_seen(watched: Watched) -> None:
    """The checks below can fail."""
    steps = steps_of(watched.model)
    next(steps), next(steps)
    assert watched.living() > 0
    with pytest.raises(AssertionError):
        watched.check_freed()
    steps.close()


def test_closing_frees_it(watched: Watched) -> None:
    steps = steps_of(watched.model)
    next(steps), next(steps), next(steps)
    steps.close()
    watched.check_freed()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_thrown_into_it_frees_it(watched: Watched, error: type[BaseException]) -> None:
    steps = steps_of(watched.model)
    next(steps), next(steps)
    with pytest.raises(error):
        steps.throw(error)
    watched.check_freed()


def test_who_leaves_the_loop_frees_it_while_the_error_is_still_looked_at(watched: Watched) -> None:
    try:
        with closing(steps_of(watched.model)) as steps:
            for count, _ in enumerate(steps):
                if count == 3:
                    raise RuntimeError
    except RuntimeError:
        watched.check_freed()


class Impatient(SilentProgress):
    """Cancels after some tokens."""

    def __init__(self) -> None:
        self.left = 5

    def advance(self, steps: int = 1) -> None:
        self.left -= steps
        if self.left == 0:
            raise Cancelled


def test_an_experiment_that_is_cancelled_frees_it(watched: Watched) -> None:
    model, plan = watched.model, Plan(edits=EDITS)
    with pytest.raises(Cancelled):
        run_experiment(model.interventions, model.tokenize(IDS), plan, sampling=LONG, progress=Impatient())
    watched.check_freed()


def test_a_run_that_the_server_cancels_frees_it(watched: Watched, tmp_path: Path) -> None:
    runner, started = ModelRunner(model=watched.model), threading.Event()
    queue = RunQueue(runner)
    queue.start()
    desk = Desk(runner, GraphFolder(tmp_path, tmp_path), LiveStage())
    body = {"prompt": "3 42 7 7 29 35", "edits": ["1/4@2:=3"], "generate": 40}
    run = queue.add(plan_edits(desk, body, {}))
    watched.at_run[6] = lambda: (queue.cancel(run.id), started.set())
    assert started.wait(60)
    while run.state not in ENDED:
        started.wait(0.01)
    queue.close()
    queue._thread.join(60)
    assert run.state == "cancelled"
    assert run.result is None
    assert len(watched.caches) < 40
    watched.check_freed()
    assert queue.find(run.id) is run
