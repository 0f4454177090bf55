"""A worker: one loaded model that turns prompts of a batch into results. Independent of the engine."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Container
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from circuit_tracer_cli.batch.plan import NUMBERS_VERSION, BatchSettings, PlannedBatch, failure_of
from circuit_tracer_cli.batch.store import ANOTHER_FOLDER, Item, Store, make_folder, read_items, read_settings
from circuit_tracer_cli.errors import (
    BadGraphFile,
    CircuitTracerError,
    ModelMismatch,
    NoActiveFeatures,
    OutOfMemory,
    OutputError,
    UnsuitableValue,
    UsageError,
)
from circuit_tracer_cli.many.align import SLOTS_KEY
from circuit_tracer_cli.types import SilentProgress

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.replacement import ReplacementModel

Outcome = Literal["done", "failed", "there"]
FINAL = (UsageError, NoActiveFeatures)
"""Errors that a retry can't fix."""


def open_batch(root: Path) -> PlannedBatch:
    """Return the batch in a folder. Raises MissingFile, BadGraphFile, and UnsuitableValue for one of another version."""
    values = read_settings(root)
    try:
        settings = BatchSettings.from_dict(values)
    except ValueError as error:
        raise BadGraphFile(f"{root}/batch.json is damaged: {error}", ANOTHER_FOLDER) from error
    if values["numbers_version"] != NUMBERS_VERSION:
        raise UnsuitableValue(
            f"{root} contains a batch of another version of circuit-tracer, with different numbers",
            ANOTHER_FOLDER,
        )
    return PlannedBatch(Store(root, settings.keep), settings, read_items(root))


class DeviceLost(CircuitTracerError):
    """Raised if a GPU no longer works in this process; a new process may succeed."""


class Worker:
    """Traces prompts of one batch, loading the model with the first one.

    Args:
        root: The batch's folder.
        device: Device to trace on; None for the batch's own.
    """

    def __init__(self, root: Path, device: str | None = None) -> None:
        self.batch = open_batch(root)
        self.device = device
        self._model: ReplacementModel | None = None
        self._list_from = 0.0

    def run(self, item: Item) -> Outcome:
        """Trace one prompt and store it, or record why that failed. Never raises for an error of the prompt.

        Raises:
            CircuitTracerError: The model or set can't be loaded, or the folder can't be written to.
            DeviceLost: The device no longer works in this process; the prompt's failure is recorded.
        """
        store = self.batch.store
        if store.is_done(item.key) and not self.batch.missing_slugs(item.key):
            return "there"
        with store.working_on(item.key) as alive:
            if store.is_done(item.key) and store.keep != "tables" and self._export_stored(item):
                return "there"
            model = self._loaded(alive)
            try:
                self._store(self._trace(item, model, alive), item)
            except OutputError:
                raise
            except CircuitTracerError as error:
                final = isinstance(error, FINAL) and not isinstance(error, OutOfMemory)
                store.record_failure(failure_of(item, error, final=final))
                return "failed"
            except Exception as error:  # one prompt's error never ends the batch
                store.record_failure(failure_of(item, error, final=False))
                if _lost(error):
                    raise DeviceLost(
                        f"the device failed: {str(error).splitlines()[0]}", "run the batch again to continue"
                    ) from error
                return "failed"
        store.forget_failure(item.key)
        self._list_graphs()
        return "done"

    def _loaded(self, alive: Callable[[], None]) -> ReplacementModel:
        if self._model is None:
            from circuit_tracer_cli.batch.content import content_ids
            from circuit_tracer_cli.pipeline import load_model
            from circuit_tracer_cli.prepare import prepare, set_up

            request = self.batch.settings.request
            if self.device is not None:
                request = dataclasses.replace(request, device=self.device, device_map=None)
            longest = max((int(item.record.get("n_tokens", 0)) for item in self.batch.items), default=0)
            setup = set_up(request)
            for name, content in content_ids(setup, offline=request.offline).items():
                if content != self.batch.settings.content.get(name):
                    raise ModelMismatch(
                        f"the {name} of this batch has changed since the batch was made",
                        "start a batch in another folder",
                    )
            prepared = prepare(request, setup, n_tokens=longest or None)
            self._model = load_model(prepared, _SignsOfLife(alive))
        return self._model

    def _trace(self, item: Item, model: ReplacementModel, alive: Callable[[], None]) -> Graph:
        from circuit_tracer_cli.pipeline import trace_with
        from circuit_tracer_cli.prepare import prepare, setup_of

        settings = self.batch.settings
        prepared = prepare(settings.request_for(item.record), setup_of(model))
        plan = prepared.plan
        choices = dataclasses.replace(plan.choices, work=settings.compute_block or plan.choices.work)
        prepared = dataclasses.replace(prepared, plan=dataclasses.replace(plan, choices=choices))
        graph = trace_with(model, prepared, _SignsOfLife(alive))
        if SLOTS_KEY in item.record:
            graph.metadata[SLOTS_KEY] = list(item.record[SLOTS_KEY])
        return graph

    def _store(self, graph: Graph, item: Item) -> None:
        """Write the viewer file, then the object, whose existence means that everything is done. Raises OutputError."""
        store = self.batch.store
        pruned = self._export(graph, item)
        target = store.result(item.key)
        make_folder(target.parent)
        if store.keep == "tables":
            self._write_tables(graph, item)
        else:
            (graph if store.keep == "raw" else pruned).save(target)

    def _export(self, graph: Graph, item: Item) -> Graph:
        """Write the viewer file under every slug of the prompt; return the pruned graph."""
        from circuit_tracer_cli.export import Destination
        from circuit_tracer_cli.export.viewer import export
        from circuit_tracer_cli.graph.prune import pruned_graph

        settings = self.batch.settings
        pruned = pruned_graph(graph, settings.node_threshold, settings.edge_threshold)
        for slug in self.batch.slugs[item.key]:
            export(pruned, Destination(slug, self.batch.store.graphs), listed=False)
        return pruned

    def _list_graphs(self) -> None:
        """Update the viewer's list, rarely enough that its cost stays proportional to the batch."""
        begun = time.monotonic()
        if begun >= self._list_from:
            self.batch.store.list_graphs()
            took = time.monotonic() - begun
            self._list_from = begun + max(_LIST_EVERY, took / _LIST_SHARE)

    def _export_stored(self, item: Item) -> bool:
        """Write the viewer file of a stored graph; return False if that is damaged and must be traced again."""
        from circuit_tracer_cli.graph.store import load_graph

        try:
            self._export(load_graph(self.batch.store.result(item.key)), item)
        except OutputError:
            raise
        except (CircuitTracerError, OSError):  # damaged, or removed in the meantime
            return False
        return True

    def _write_tables(self, graph: Graph, item: Item) -> None:
        from circuit_tracer_cli.many.facts import facts_of_graph
        from circuit_tracer_cli.many.tables import write_graph_tables

        settings = self.batch.settings
        facts = facts_of_graph(graph, item.key, settings.node_threshold, settings.edge_threshold)
        write_graph_tables(facts, self.batch.store.root / "tables", dict(item.record))


_LIST_EVERY = 10.0
_LIST_SHARE = 0.01
"""Minimum seconds between two updates of the viewer's list, and the largest share of time that they take."""


class _SignsOfLife(SilentProgress):
    """Progress that only gives signs of life."""

    def __init__(self, alive: Callable[[], None]) -> None:
        self._alive = alive

    def phase(self, name: str, total: int | None = None) -> None:
        """A phase began."""
        self._alive()

    def advance(self, steps: int = 1) -> None:
        """Rows are done."""
        self._alive()


def _lost(error: Exception) -> bool:
    """True for an error after which a device no longer works in this process."""
    import torch

    lost = getattr(torch, "AcceleratorError", None)
    return lost is not None and isinstance(error, lost) and not isinstance(error, torch.OutOfMemoryError)


class WorkList:
    """The unfinished items of a batch, in the order in which one driver or worker takes them.

    A prompt that another process is running comes last, so that two drivers of one folder rarely trace the same.

    Args:
        batch: The batch.
        part: The share to start with, of `parts` equal shares; the others follow.
        parts: Number of shares.
    """

    def __init__(self, batch: PlannedBatch, part: int = 0, parts: int = 1) -> None:
        self._batch = batch
        items = batch.distinct()
        ordered = [item for offset in range(parts) for item in items[(part + offset) % parts :: parts]]
        self._waiting = deque(item for item in ordered if not batch.is_settled(item))

    def __len__(self) -> int:
        return len(self._waiting)

    def next(self, mine: Container[str] = ()) -> Item | None:
        """Return the next prompt; None if none is left.

        Args:
            mine: Keys that this process's own workers are busy with.
        """
        for _ in range(min(len(self._waiting), _LOOK_AHEAD)):
            item = self._waiting.popleft()
            if item.key in mine or not self._batch.store.is_running(item.key):
                return item
            self._waiting.append(item)
        return self._waiting.popleft() if self._waiting else None

    def again(self, item: Item) -> bool:
        """Put a failed prompt at the end, if it can be tried again; False if it is finished."""
        if self._batch.is_settled(item):
            return False
        self._waiting.append(item)
        return True


_LOOK_AHEAD = 64


def run_share(root: Path, part: int, parts: int, device: str | None = None) -> dict[Outcome, int]:
    """Run a batch, one of several equal shares first, then what others have left. Running it twice does no harm.

    For schedulers that number their jobs. Jobs can start and end at any time, or never.
    """
    worker = Worker(root, device)
    counts: dict[Outcome, int] = {"done": 0, "failed": 0, "there": 0}
    work = WorkList(worker.batch, part, parts)
    while (item := work.next()) is not None:
        outcome = worker.run(item)
        if outcome != "failed" or not work.again(item):
            counts[outcome] += 1
    worker.batch.store.list_graphs()
    return counts


def forget_failures(batch: PlannedBatch, *, final: bool) -> int:
    """Clear failures so that prompts are tried again; return how many.

    Args:
        batch: The batch.
        final: Also clear final failures, which only succeed if something else has changed.
    """
    count = 0
    for key in {item.key for item in batch.items}:
        failure = batch.store.failure(key)
        if failure is not None and (final or not failure.final):
            batch.store.forget_failure(key)
            count += 1
    batch.store.sweep()
    return count
