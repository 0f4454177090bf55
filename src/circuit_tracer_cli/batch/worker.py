"""One warm model that turns prompts of a batch into results. Knows nothing of who gives it prompts."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from circuit_tracer_cli.batch.plan import BatchSettings, PlannedBatch, failure_of
from circuit_tracer_cli.batch.store import Item, Store, make_folder, read_items, read_settings
from circuit_tracer_cli.errors import (
    BadGraphFile,
    CircuitTracerError,
    NoActiveFeatures,
    OutOfMemory,
    OutputError,
    UsageError,
)
from circuit_tracer_cli.many.align import SLOTS_KEY
from circuit_tracer_cli.types import SilentProgress

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.replacement import ReplacementModel

Outcome = Literal["done", "failed", "there"]
FINAL = (UsageError, NoActiveFeatures)
"""Errors that trying again can't mend."""


def open_batch(root: Path) -> PlannedBatch:
    """The batch that a folder holds. Raises MissingFile, BadGraphFile."""
    values = read_settings(root)
    try:
        settings = BatchSettings.from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise BadGraphFile(
            f"{root}/batch.json can't be read: {error}", "make the batch again in another folder"
        ) from error
    return PlannedBatch(Store(root, settings.keep), settings, read_items(root))


class Worker:
    """Traces prompts of one batch, loading the model when the first comes.

    Args:
        root: The batch's folder.
        device: Where to trace; None for what the batch says.
    """

    def __init__(self, root: Path, device: str | None = None) -> None:
        self.batch = open_batch(root)
        self.device = device
        self._model: ReplacementModel | None = None

    def run(self, item: Item) -> Outcome:
        """Trace one prompt and store it, or record why that failed. Never raises for a fault of the prompt.

        Raises:
            CircuitTracerError: The model or set can't be loaded, or the folder can't be written to.
        """
        store = self.batch.store
        if store.is_done(item.key):
            return "there"
        model = self._loaded()
        with store.working_on(item.key) as alive:
            try:
                self._store(self._trace(item, model, alive), item)
            except OutputError:
                raise
            except CircuitTracerError as error:
                final = isinstance(error, FINAL) and not isinstance(error, OutOfMemory)
                store.record_failure(failure_of(item, error, final=final))
                return "failed"
            except (MemoryError, RuntimeError, ValueError) as error:  # a prompt's fault never ends the batch
                store.record_failure(failure_of(item, error, final=False))
                return "failed"
        store.forget_failure(item.key)
        return "done"

    def _loaded(self) -> ReplacementModel:
        if self._model is None:
            from circuit_tracer_cli.pipeline import load_model
            from circuit_tracer_cli.prepare import prepare

            request = self.batch.settings.request
            if self.device is not None and request.device_map is None:
                request = dataclasses.replace(request, device=self.device)
            longest = max((int(item.record.get("n_tokens", 0)) for item in self.batch.items), default=0)
            self._model = load_model(prepare(request, n_tokens=longest or None), SilentProgress())
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
        """Write the viewer's file, then the object, whose being there says that all is done. Raises OutputError."""
        from circuit_tracer_cli.export import Destination
        from circuit_tracer_cli.export.viewer import export
        from circuit_tracer_cli.graph.prune import pruned_graph

        store, settings = self.batch.store, self.batch.settings
        pruned = pruned_graph(graph, settings.node_threshold, settings.edge_threshold)
        for other in self.batch.items:
            if other.key == item.key:
                export(pruned, Destination(other.slug, store.root / "graphs"))
        target = store.result(item.key)
        make_folder(target.parent)
        if store.keep == "tables":
            self._write_tables(graph, item)
        else:
            (graph if store.keep == "raw" else pruned).save(target)

    def _write_tables(self, graph: Graph, item: Item) -> None:
        from circuit_tracer_cli.many.facts import facts_of_graph
        from circuit_tracer_cli.many.tables import write_graph_tables

        settings = self.batch.settings
        facts = facts_of_graph(graph, item.key, settings.node_threshold, settings.edge_threshold)
        write_graph_tables(facts, self.batch.store.root / "tables", dict(item.record))


class _SignsOfLife(SilentProgress):
    """Progress that only says that there is some."""

    def __init__(self, alive: Callable[[], None]) -> None:
        self._alive = alive

    def phase(self, name: str, total: int | None = None) -> None:
        """A phase began."""
        self._alive()

    def advance(self, steps: int = 1) -> None:
        """Rows are done."""
        self._alive()


def run_share(root: Path, part: int, parts: int, device: str | None = None) -> dict[Outcome, int]:
    """Work off one of several equal shares of a batch, for schedulers that number their jobs; twice does no harm."""
    worker = Worker(root, device)
    counts: dict[Outcome, int] = {"done": 0, "failed": 0, "there": 0}
    for number, item in enumerate(worker.batch.open_items()):
        if number % parts == part:
            counts[worker.run(item)] += 1
    return counts


def forget_final_failures(batch: PlannedBatch) -> int:
    """Let failed prompts be tried again; their number."""
    count = 0
    for key in {item.key for item in batch.items}:
        if batch.store.failure(key) is not None:
            batch.store.forget_failure(key)
            count += 1
    with contextlib.suppress(OSError):
        batch.store.sweep()
    return count
