"""Attention on the server's model: `POST /api/attention/heads` and `/api/attention/qk`. Importing this loads no torch.

Graph files don't contain what the engine needs, so the prompt is run and frozen again; the last one is kept for later requests.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.server.bodies import parsed
from circuit_tracer_cli.server.edits import AboutPrompt, model_and_tokens
from circuit_tracer_cli.server.model import Desk, memory_in_words
from circuit_tracer_cli.server.runs import Work
from circuit_tracer_cli.types import Progress

if TYPE_CHECKING:
    from circuit_tracer_cli.attention.prompt import FrozenPrompt
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.tokens import Tokens

_HEADS = 'for example {"prompt": "…", "edges": [["1_203_7", "3_88_9"]]}'
_QK = 'for example {"prompt": "…", "layer": 3, "head": 2, "query": 9, "key": 7}'
MOST_EDGES = 4096

Count = Annotated[int, Field(ge=0, le=1 << 30)]
Position = Annotated[int, Field(ge=-(1 << 30), le=1 << 30)]


class HeadsRequest(AboutPrompt):
    """The body of `POST /api/attention/heads`.

    Attributes:
        edges: `[source, target]` pairs, as ids of a graph file.
        by: How the paths of an edge are grouped, as for `heads --by`.
        n: Number of heads to list for each edge; 0 for all.
    """

    edges: Annotated[
        list[Annotated[list[str], Field(min_length=2, max_length=2)]], Field(max_length=MOST_EDGES)
    ] = Field([])
    by: Literal["arrive", "leave", "through", "hops", "chains"] = "arrive"
    n: Annotated[int, Field(ge=0, le=4096)] = 10


class QKRequest(AboutPrompt):
    """The body of `POST /api/attention/qk`.

    Attributes:
        layer, head: The head.
        query: The position that the head looks from; negative ones count from the end.
        key: The position that it looks at; None for the pattern alone.
        against: Another key, or `"rest"`, to compare with.
        n: Number of pairs and nodes to list.
        features: Sum each feature over positions.
    """

    layer: Count
    head: Count
    query: Position
    key: Position | None = None
    against: Position | Literal["rest"] | None = None
    n: Annotated[int, Field(ge=1, le=1000)] = 10
    features: bool = False

    @model_validator(mode="after")
    def _names_a_key(self) -> QKRequest:
        if self.against is not None and self.key is None:
            raise ValueError("against needs a first key to compare with")
        return self


class _LastPrompt:
    """The last prompt, frozen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[Any, FrozenPrompt] | None = None

    def of(self, model: ReplacementModel, tokens: Tokens) -> FrozenPrompt:
        """Return a frozen prompt, reusing the last one if it is the same."""
        from circuit_tracer_cli.attention.prompt import freeze_tokens

        key = (id(model), *tokens.ids.tolist())
        with self._lock:
            if self._known is None or self._known[0] != key:
                self._known = None  # two at once might not fit in memory
                self._known = key, freeze_tokens(tokens, model)
            return self._known[1]

    def forget(self) -> None:
        """Release the prompt and the weights that it holds."""
        with self._lock:
            self._known = None


_LAST = _LastPrompt()


def forget_prompt() -> None:
    """Release the last prompt, so that a trace that offloads weights can free them."""
    _LAST.forget()


def plan_heads(desk: Desk, body: object, _path: Mapping[str, Any]) -> Work:
    """Return the work of head loadings. Raises UsageError for a body that is invalid for any model."""
    wanted = parsed(HeadsRequest, body, _HEADS)
    _check_prompt(wanted)
    if not wanted.edges:
        raise InvalidValue("no edges are given", _HEADS)
    return lambda progress: _heads(desk, wanted, progress)


def plan_qk(desk: Desk, body: object, _path: Mapping[str, Any]) -> Work:
    """Return the work of a head's score. Raises UsageError for a body that is invalid for any model."""
    wanted = parsed(QKRequest, body, _QK)
    _check_prompt(wanted)
    return lambda progress: _qk(desk, wanted, progress)


def _check_prompt(wanted: AboutPrompt) -> None:
    if not wanted.prompt:
        raise InvalidValue("the prompt is empty", "send the graph's prompt")


def _heads(desk: Desk, wanted: HeadsRequest, progress: Progress) -> dict[str, Any]:
    from circuit_tracer_cli.attention.loadings import loadings
    from circuit_tracer_cli.attention.prompt import with_edges

    with memory_in_words():
        prompt = frozen_prompt(desk, wanted, progress)
        progress.phase("head loadings")
        asked, pairs = with_edges(prompt, [(source, target) for source, target in wanted.edges])
        return loadings(asked, pairs, wanted.by, wanted.n).to_dict()


def _qk(desk: Desk, wanted: QKRequest, progress: Progress) -> dict[str, Any]:
    from circuit_tracer_cli.attention.qk import attend

    with memory_in_words():
        prompt = frozen_prompt(desk, wanted, progress)
        progress.phase("scores")
        group: Literal["feature"] | None = "feature" if wanted.features else None
        place = wanted.layer, wanted.head, wanted.query
        row = attend(prompt, *place).to_dict()
        if wanted.key is None:
            return {**row, "row": row["pattern"]}
        found = attend(prompt, *place, wanted.key, wanted.against, wanted.n, group)
        return {**found.to_dict(), "row": row["pattern"], "qk_tracing_results": found.to_neuronpedia()}


def frozen_prompt(desk: Desk, wanted: AboutPrompt, progress: Progress) -> FrozenPrompt:
    """Return the prompt on the server's model. Raises ModelMismatch where it isn't the graph's."""
    model, tokens = model_and_tokens(desk, wanted)
    progress.phase("freezing the prompt")
    return _LAST.of(model, tokens)
