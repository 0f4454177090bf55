"""Make a batch from a list of prompts: every prompt is tokenized, checked and given its result's name before weights are read."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from circuit_tracer_cli import __version__
from circuit_tracer_cli.backends import backend_name
from circuit_tracer_cli.batch.content import content_ids
from circuit_tracer_cli.batch.prompts import BatchPrompt, token_slots
from circuit_tracer_cli.batch.store import Failure, Item, Keep, Store, read_settings, result_key, write_batch
from circuit_tracer_cli.errors import CircuitTracerError
from circuit_tracer_cli.many.align import SLOTS_KEY
from circuit_tracer_cli.many.prompts import SETTINGS_NAME
from circuit_tracer_cli.prepare import Prepared, Setup, prepare, set_up
from circuit_tracer_cli.request import TraceRequest
from circuit_tracer_cli.types import Progress

NUMBERS_VERSION = 1
"""Increased when the same request gives other numbers than before, so that earlier results are recomputed."""

OF_REQUEST = (
    "transcoder_set", "model", "dtype", "precision", "device", "device_map", "backend", "max_n_logits", "desired_logit_prob",
    "batch_size", "max_feature_nodes", "update_interval", "offload", "lazy_encoder", "lazy_decoder", "chat", "system",
    "prefill", "offline", "targets", "labels",
)  # fmt: skip
"""Fields of a request that are a batch's settings."""
NO_NUMBERS = (
    "transcoder_set", "model", "device", "device_map", "offload", "lazy_encoder", "lazy_decoder", "offline", "chat", "system",
    "prefill", "targets", "labels",
)  # fmt: skip
"""Fields on where and how, not what: names of model and set are replaced by their content, texts by their tokens."""


_OWN = ("keep", "node_threshold", "edge_threshold", "compute_block", "content", "numbers_version")
"""Settings of the batch itself, in addition to those of its request."""


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """What all prompts of a batch have in common.

    Attributes:
        request: The request, without a prompt.
        keep: What is stored of each graph.
        node_threshold, edge_threshold: Pruning thresholds; None for the defaults.
        compute_block: Rows times positions in a block of the engine, fixed so that results don't depend on the machine's memory.
        content: Content names of model and set.
    """

    request: TraceRequest
    keep: Keep
    node_threshold: float | None
    edge_threshold: float | None
    compute_block: int
    content: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the record for `batch.json`."""
        request = asdict(self.request)
        return {
            **{name: request[name] for name in OF_REQUEST},
            "targets": list(self.request.targets),
            "keep": self.keep,
            "node_threshold": self.node_threshold,
            "edge_threshold": self.edge_threshold,
            "compute_block": self.compute_block,
            "content": dict(self.content),
            "numbers_version": NUMBERS_VERSION,
            "version": __version__,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BatchSettings:
        """Read a record written by `to_dict`. Raises ValueError naming what is missing or invalid."""
        from pydantic import TypeAdapter, ValidationError

        if missing := sorted({*OF_REQUEST, *_OWN} - {*values}):
            raise ValueError(f"it lacks {missing[0]}")
        record = {name: values[name] for name in _OWN if name != "numbers_version"}
        record["request"] = {name: values[name] for name in OF_REQUEST}
        try:
            settings: BatchSettings = TypeAdapter(cls).validate_json(json.dumps(record), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"] if part != "request")
            raise ValueError(f"{where or 'a setting'}: {first['msg']}") from error
        if settings.compute_block < 1:
            raise ValueError(f"compute_block is {settings.compute_block}")
        return settings

    def request_for(self, record: Mapping[str, Any]) -> TraceRequest:
        """The request of one prompt of the list."""
        targets = tuple(record.get("targets") or ()) or self.request.targets
        return replace(self.request, prompt=str(record["prompt"]), targets=targets)


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """A batch that is ready to run.

    Attributes:
        store: Its folder.
        settings: Its settings.
        items: Its prompts.
        slugs: The slugs of each result, by its key.
    """

    store: Store
    settings: BatchSettings
    items: Sequence[Item]
    slugs: Mapping[str, Sequence[str]] = field(init=False)

    def __post_init__(self) -> None:
        slugs: dict[str, list[str]] = {}
        for item in self.items:
            slugs.setdefault(item.key, []).append(item.slug)
        object.__setattr__(self, "slugs", slugs)

    def distinct(self) -> list[Item]:
        """Return one item per result, prompts with the most tokens first; the same for every worker."""
        each = {item.key: item for item in reversed(self.items)}
        return sorted(each.values(), key=lambda item: (-int(item.record.get("n_tokens", 0)), item.key))

    def open_items(self) -> list[Item]:
        """Return the unfinished items, each result once, prompts with the most tokens first."""
        return [item for item in self.distinct() if not self.is_settled(item)]

    def is_settled(self, item: Item) -> bool:
        """True if an item is finished: stored with a viewer file under every slug, or failed for good."""
        if self.store.is_done(item.key):
            return not self.missing_slugs(item.key)
        return self.store.is_settled(item.key)

    def missing_slugs(self, key: str) -> list[str]:
        """Return the slugs of a result without a viewer file."""
        return [slug for slug in self.slugs.get(key, ()) if not (self.store.graphs / f"{slug}.json").exists()]


def plan_batch(
    root: Path,
    prompts: Sequence[BatchPrompt],
    request: TraceRequest,
    *,
    keep: Keep,
    node_threshold: float | None,
    edge_threshold: float | None,
    progress: Progress,
) -> PlannedBatch:
    """Tokenize and check every prompt, and write the batch's settings and list.

    Prompts that can't be traced are recorded as failures; the others are traced anyway.

    Raises:
        CircuitTracerError: An error of the set, the model or the folder, or settings that differ from the folder's batch.
    """
    request = replace(
        request,
        transcoder_set=_absolute(request.transcoder_set),
        model=None if request.model is None else _absolute(request.model),
        backend=backend_name(request.backend),
    )
    setup = set_up(request, progress)
    content = content_ids(setup, offline=request.offline)
    progress.phase("tokenizing prompts", len(prompts))
    prepared: list[Prepared | CircuitTracerError] = []
    for one in prompts:
        prepared.append(_prepared(request, one, setup))
        progress.advance()
    blocks = [one.plan.choices.work for one in prepared if isinstance(one, Prepared)]
    block = min(blocks) if blocks else prepare(request, setup).plan.choices.work
    settings = BatchSettings(request, keep, node_threshold, edge_threshold, block, content)
    settings = _as_before(root, settings)
    store = Store(root, keep)
    items, failures = [], []
    for one, known in zip(prompts, prepared, strict=True):
        item = _item(one, known, settings)
        items.append(item)
        if isinstance(known, CircuitTracerError):
            failures.append(failure_of(item, known, final=True))
    all_items = write_batch(root, settings.to_dict(), items)
    for failure in failures:
        store.record_failure(failure)
    return PlannedBatch(store, settings, all_items)


def _prepared(request: TraceRequest, prompt: BatchPrompt, setup: Setup) -> Prepared | CircuitTracerError:
    try:
        wanted = replace(request, prompt=prompt.prompt, targets=prompt.targets or request.targets)
        return prepare(wanted, setup)
    except CircuitTracerError as error:
        return error


def _absolute(name: str) -> str:
    """A local folder by its absolute path, since workers can run in another folder; other names unchanged."""
    if not Path(name).expanduser().is_dir():
        return name
    return str(Path(name).expanduser().resolve())


def _as_before(root: Path, settings: BatchSettings) -> BatchSettings:
    """The settings with the block size of an existing batch: it only depends on the memory that was free then."""
    if not (root / SETTINGS_NAME).exists():
        return settings
    return replace(
        settings, compute_block=int(read_settings(root).get("compute_block", settings.compute_block))
    )


def _item(prompt: BatchPrompt, prepared: Prepared | CircuitTracerError, settings: BatchSettings) -> Item:
    """The prompt's line in the list, with the name of its result."""
    facts: dict[str, Any] = {
        name: value
        for name, value in settings.to_dict().items()
        if name not in NO_NUMBERS and name != "version"
    }
    facts["targets"] = list(prompt.targets or settings.request.targets)
    if isinstance(prepared, CircuitTracerError):
        return Item(result_key({**facts, "prompt": prompt.prompt}), prompt.record())
    assert prepared.tokens is not None
    ids = prepared.tokens.ids.tolist()
    record = {**prompt.record(), "n_tokens": len(ids)}
    slots = token_slots(prompt, prepared.tokens.strings)
    if slots is not None:
        record[SLOTS_KEY] = slots
    return Item(result_key({**facts, "tokens": ids}), record)


def failure_of(item: Item, error: BaseException, *, final: bool) -> Failure:
    """The record of an error."""
    message = error.message if isinstance(error, CircuitTracerError) else f"{type(error).__name__}: {error}"
    explained = isinstance(error, CircuitTracerError)
    return Failure(
        key=item.key,
        prompt=str(item.record["prompt"]),
        error=message.splitlines()[0] if message else type(error).__name__,
        hint=error.hint if isinstance(error, CircuitTracerError) else None,
        kind=type(error).__name__,
        final=final,
        traceback="" if explained else "".join(traceback.format_exception(error)),
    )
