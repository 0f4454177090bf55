"""The model of a server: loaded late, in the queue's thread. Importing this loads no torch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circuit_tracer_cli.errors import OutOfMemory
from circuit_tracer_cli.server.graphs import GraphFolder
from circuit_tracer_cli.server.live import LiveStage
from circuit_tracer_cli.types import Progress

if TYPE_CHECKING:
    from circuit_tracer_cli.prepare import Prepared
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.request import TraceRequest

_LOOK_SECONDS = 0.1


class ModelRunner:
    """A model and its transcoders, for a server's runs.

    Args:
        request: What to load; its prompt is ignored.
        model: The model, if it is already loaded.
        prepared: The request as resolved by `prepare`, so that no file is read again.
        is_busy: Don't load it: the caller is using it and hands it over with `adopt`.

    Attributes:
        reading: Lock for tokenizing before the model is ready. At its first call a fast tokenizer drops the padding and
            truncation that its file sets, which must not happen during another call; later calls change nothing.
    """

    def __init__(
        self,
        request: TraceRequest | None = None,
        model: ReplacementModel | None = None,
        *,
        prepared: Prepared | None = None,
        is_busy: bool = False,
    ) -> None:
        self._request, self._model, self._prepared = request, model, prepared
        self.reading = threading.Lock()
        self._free = threading.Event()
        if not is_busy:
            self._free.set()

    def adopt(self, model: ReplacementModel) -> None:
        """Take over a model that was loaded elsewhere and has no other user from now on."""
        self._model = model
        self._free.set()

    @property
    def request(self) -> TraceRequest | None:
        """The request that it was loaded from, unless it was given."""
        return self._request

    @property
    def model(self) -> ReplacementModel | None:
        """The model; None until it's loaded."""
        return self._model

    def describe(self) -> dict[str, Any]:
        """See Runner."""
        model, request = self._model, self._request
        return {
            "model": model.cfg.model_name if model is not None else request and request.model,
            "transcoder_set": request.transcoder_set if request is not None else None,
            "scan": None if model is None else scan_name(model),
            "device": None if model is None else str(model.device),
        }

    def prepare(self, progress: Progress) -> None:
        """See Runner."""
        progress.phase("waiting for the trace to end")
        while not self._free.wait(_LOOK_SECONDS):
            progress.advance(0)
        if self._model is None:
            from circuit_tracer_cli.pipeline import load_model
            from circuit_tracer_cli.prepare import prepare

            assert self._request is not None
            self._model = load_model(self._prepared or prepare(self._request, progress=progress), progress)
        if self._model.tokenizer is not None:
            with self.reading:
                self._model.tokenizer.encode("a", add_special_tokens=False)


@dataclass(frozen=True, slots=True)
class Desk:
    """What a task on the model can use.

    Args:
        runner: The model.
        graphs: The folder that graphs are read from and written to.
        stage: Where pages see a running trace.
    """

    runner: ModelRunner
    graphs: GraphFolder
    stage: LiveStage


def scan_name(model: ReplacementModel) -> str:
    """The name of the model's transcoders in graphs."""
    from circuit_tracer_cli.export.viewer import scan_names

    return scan_names(model.scan)[0]


@contextmanager
def memory_in_words() -> Iterator[None]:
    """Turn the out-of-memory errors of Python and torch into OutOfMemory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        from circuit_tracer_cli.attribution.rows import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            "not enough memory for this prompt",
            "shorten it, or lower the number of feature nodes; circuit-tracer estimate shows what a trace needs",
        ) from error
