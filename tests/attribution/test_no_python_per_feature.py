"""What is done in Python grows with layers, positions and blocks, never with features: many cost as many calls as few."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
import torch
from tests.builders import PROMPT, replacement
from torch.utils._python_dispatch import TorchDispatchMode

from circuit_tracer_cli import attribute
from circuit_tracer_cli.attribution.linear import Targets
from circuit_tracer_cli.replacement import ReplacementModel


class Operations(TorchDispatchMode):
    """Counts the tensor operations that are started."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), more: Any = None) -> Any:
        self.count += 1
        return function(*given, **(more or {}))


def calls_of_ours(model: ReplacementModel) -> tuple[int, int]:
    """Python calls of the package in a trace of all features, and how many features there were.

    Without proposed labels: those are texts, for a bounded number of nodes.
    """
    count = 0

    def listen(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call" and "circuit_tracer_cli" in frame.f_code.co_filename

    attribute(list(PROMPT), model, labels=False)
    sys.setprofile(listen)
    try:
        graph = attribute(list(PROMPT), model, labels=False)
    finally:
        sys.setprofile(None)
    return count, len(graph.active_features)


@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_calls_do_not_grow_with_features(kind: str) -> None:
    few, some = calls_of_ours(replacement("llama", kind, n_features=20))
    many, most = calls_of_ours(replacement("llama", kind, n_features=200))
    assert most > 8 * some
    assert many < 1.3 * few


@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_operations_do_not_grow_with_rows(kind: str) -> None:
    """The engine's own products, for a block of targets and for one of ten times as many."""
    from circuit_tracer_cli.attribution.attribute import Attribution, AttributionSettings
    from circuit_tracer_cli.types import SilentProgress

    model = replacement("gemma2", kind, n_features=40)
    run = Attribution(model, AttributionSettings(), "closed-form", SilentProgress())
    tokens = model.tokenize(list(PROMPT))
    with torch.no_grad():
        frozen = model.frozen_pass(tokens.ids)
        engine = run.engine(frozen, run.active(frozen, tokens), tokens)
        n_layers, counts = model.transcoders.n_layers, []
        for times in (2, 20):
            layers = torch.arange(n_layers - 1, -1, -1).repeat_interleave(times)
            positions = torch.full_like(layers, len(PROMPT) - 1)
            targets = Targets(layers, positions, torch.randn(len(layers), model.transcoders.d_model))
            with Operations() as operations:
                assert len(engine.rows(targets)) == len(layers)
            counts.append(operations.count)
    assert counts[0] == counts[1]
