"""How prompts are shared out to Ray actors, with a pretended Ray: failures are tried again, lost actors are passed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from circuit_tracer_cli.batch import engines
from circuit_tracer_cli.batch.plan import BatchSettings, PlannedBatch
from circuit_tracer_cli.batch.store import ATTEMPTS, Failure, Item, Store
from circuit_tracer_cli.batch.worker import Outcome
from circuit_tracer_cli.request import TraceRequest

Run = Callable[[str], Outcome]


class PretendedRay(SimpleNamespace):
    """Actors that run at once, in this process. The first to get a key in `lost` never answers."""

    def __init__(self, run: Run, lost: set[str]) -> None:
        super().__init__()
        self._run, self.lost = run, lost
        self.asked: list[str] = []

    def remote(self, **options: Any) -> Callable[[type], Any]:
        self.options = options
        return lambda _: SimpleNamespace(remote=lambda root: self._actor())

    def _actor(self) -> SimpleNamespace:
        def run(key: str) -> tuple[str, Outcome | None, int]:
            self.asked.append(key)
            if key in self.lost:
                self.lost.discard(key)
                return key, None, len(self.asked)
            return key, self._run(key), len(self.asked)

        return SimpleNamespace(run=SimpleNamespace(remote=run))

    def wait(self, waiting: Sequence[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        done = [one for one in waiting if one[1] is not None][:num_returns]
        return done, [one for one in waiting if one not in done]

    def get(self, reference: Any) -> Any:
        return reference[1]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8.0, "GPU": 2.0}

    def nodes(self) -> list[dict[str, bool]]:
        return [{"Alive": True}, {"Alive": True}]


class Pretended:
    """A batch of three prompts whose results are written by `run`."""

    def __init__(self, root: Path) -> None:
        items = [Item(key, {"prompt": key, "slug": key}) for key in "abc"]
        settings = BatchSettings(TraceRequest(), "raw", None, None, 1, {})
        self.batch = PlannedBatch(Store(root), settings, items)
        self.told: list[tuple[str, Outcome]] = []

    def run(self, key: str) -> Outcome:
        result = self.batch.store.result(key)
        result.parent.mkdir(parents=True, exist_ok=True)
        result.touch()
        graphs = self.batch.store.root / "graphs"
        graphs.mkdir(exist_ok=True)
        (graphs / f"{key}.json").touch()
        return "done"

    def tell(self, item: Item, outcome: Outcome) -> None:
        self.told.append((item.key, outcome))

    def share(self, ray: PretendedRay, **resources: Any) -> None:
        engines._share_by_ray(ray, self.batch, self.tell, engines.Resources(**resources))


def test_each_prompt_is_given_out_once_with_a_gpu_each(tmp_path: Path) -> None:
    pretended = Pretended(tmp_path)
    ray = PretendedRay(pretended.run, set())
    pretended.share(ray)
    assert sorted(ray.asked) == ["a", "b", "c"]
    assert sorted(pretended.told) == [("a", "done"), ("b", "done"), ("c", "done")]
    assert (ray.options["num_gpus"], ray.options["max_restarts"]) == (1.0, -1)


def test_a_failure_that_may_pass_is_tried_again_and_told_once(tmp_path: Path) -> None:
    pretended = Pretended(tmp_path)

    def run(key: str) -> Outcome:
        if key != "b":
            return pretended.run(key)
        pretended.batch.store.record_failure(Failure(key, key, "it broke", None, "RuntimeError", final=False))
        return "failed"

    ray = PretendedRay(run, set())
    pretended.share(ray, workers=1)
    assert ray.asked.count("b") == ATTEMPTS
    assert sorted(pretended.told) == [("a", "done"), ("b", "failed"), ("c", "done")]


def test_a_prompt_whose_actor_is_lost_is_given_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "FRESH", 0.0)
    pretended = Pretended(tmp_path)
    ray = PretendedRay(pretended.run, {"a"})
    pretended.share(ray, workers=2)
    assert ray.asked.count("a") == 2
    assert sorted(pretended.told) == [("a", "done"), ("b", "done"), ("c", "done")]
