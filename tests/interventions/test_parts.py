"""Passes that begin at the first edited layer: the same numbers as whole passes, and the model is as before afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from circuit_tracer_cli.interventions.passes import Recording
from circuit_tracer_cli.interventions.run import Constraints, Interventions
from circuit_tracer_cli.interventions.spec import Intervention, Scaled
from circuit_tracer_cli.replacement import ReplacementModel
from tests.builders import FAMILIES, PROMPT, replacement
from tests.cases import some

IDS = list(PROMPT)
FLAGS = (
    Constraints(),
    Constraints(freeze_attention=False),
    Constraints(constrained_layers=range(3)),
    Constraints(constrained_layers=range(1, 3)),
)


def both(
    model: ReplacementModel, edits: list[Intervention], constraints: Constraints, **wanted: Any
) -> tuple[Any, Any]:
    """A pass from the first edited layer on, and a whole one."""
    tokens, inner = model.tokenize(IDS), model.interventions
    inner.unmodified(tokens)
    return (
        inner.run(tokens, edits, constraints, **wanted),
        inner.run(tokens, edits, constraints, with_cache=True, **wanted),
    )


@pytest.mark.parametrize("family", some(sorted(FAMILIES), 4))
def test_a_late_beginning_changes_nothing(family: str) -> None:
    for kind, skip in (("plt", True), ("clt", False)):
        model = replacement(family, kind, "jumprelu", skip)
        for layer, constraints in zip((2, 1, 2, 0), FLAGS, strict=True):
            edits = [Intervention(layer, slice(2, None), 4, 3.0), Intervention(2, 3, 5, Scaled(-2.0))]
            part, whole = both(model, edits, constraints, recording=Recording(False))
            assert part.cache is None
            assert whole.cache is not None
            torch.testing.assert_close(part.logits, whole.logits, atol=5e-6, rtol=1e-5)
            torch.testing.assert_close(part.activations, whole.activations, atol=5e-6, rtol=1e-5)


def test_only_the_last_logits_where_they_are_enough() -> None:
    model = replacement("gemma2", "clt")
    part, whole = both(model, [Intervention(1, 3, 4, 3.0)], Constraints())
    last = model.interventions.run(
        model.tokenize(IDS), [Intervention(1, 3, 4, 3.0)], Constraints(), last_logits=True
    )
    assert part.logits.shape == whole.logits.shape
    assert last.logits.shape == (1, whole.logits.shape[1])
    torch.testing.assert_close(last.logits[-1], whole.logits[-1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("sparse", [False, True])
def test_recorded_layers_before_the_edit_are_the_unmodified_ones(sparse: bool) -> None:
    model = replacement("llama", "plt", "topk")
    part, whole = both(model, [Intervention(2, 3, 4, 3.0)], Constraints(), recording=Recording(sparse=sparse))
    a, b = (one.activations.to_dense() for one in (part, whole))
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_blocks_before_the_edit_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = replacement("llama", "plt")
    ran: list[int] = []
    blocks = model.model.modules.blocks
    ends = [
        blocks[i].mlp.register_forward_hook(lambda *given, i=i: ran.append(i)) for i in range(len(blocks))
    ]
    try:
        model.interventions.forget()
        model.feature_intervention(IDS, [(2, 3, 4, 3.0)], freeze_attention=False)
        assert ran == [0, 1, 2]
        model.feature_intervention(IDS, [(2, 3, 4, 3.0)])
        model.feature_intervention(IDS, [(2, 3, 5, 3.0), (1, 1, 1, 1.0)])
        assert ran == [0, 1, 2, 0, 1, 2, 2, 1, 2]
    finally:
        for end in ends:
            end.remove()


def hooks_and_forwards(model: nn.Module) -> tuple[int, int]:
    """How many hooks there are on all modules, and how many modules have a `forward` of their own."""
    modules = list(model.modules())
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)
    return hooks, sum("forward" in vars(module) for module in modules)


@pytest.mark.parametrize("family", ["llama", "gptj", "gpt2"])
def test_the_model_is_as_it_was(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = replacement(family, "clt")
    both(model, [Intervention(2, 3, 4, 3.0)], Constraints())
    hf, before = model.model.hf_model, hooks_and_forwards(model.model.hf_model)
    model.interventions.forget()
    both(model, [Intervention(2, 3, 4, 3.0)], Constraints(), last_logits=True)
    assert hooks_and_forwards(hf) == before

    def broken(*_: object) -> None:
        raise RuntimeError("no rows")

    monkeypatch.setattr(model.transcoders, "decoder_rows", broken, raising=False)
    with pytest.raises(RuntimeError, match="no rows"):
        model.feature_intervention(IDS, [(2, 3, 4, 3.0)])
    assert hooks_and_forwards(hf) == before


def test_a_backend_that_cannot_leave_blocks_out_runs_them() -> None:
    model = replacement("llama", "plt", backend_name="nnsight")
    part, whole = both(model, [Intervention(2, 3, 4, 3.0)], Constraints())
    assert part.cache is not None
    assert torch.equal(part.logits, whole.logits)
    assert isinstance(model.interventions, Interventions)
