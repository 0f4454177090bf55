"""The frozen quantities are the model's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.builders import BACKEND_NAMES, D_MODEL, FAMILIES, PROMPT, backend, new_model, on_both_backends

from circuit_tracer_cli.backends.base import Hooks
from circuit_tracer_cli.backends.modules import NORM_PARTS, ModelModules


@pytest.mark.parametrize(("name", "family"), on_both_backends([(family,) for family in FAMILIES]))
def test_logits_and_patterns_equal_hugging_faces(family: str, name: str) -> None:
    model = backend(family, name=name)
    tokens = torch.tensor(PROMPT)
    frozen = model.frozen_pass(tokens, "mlp.hook_in", "hook_mlp_out")
    plain = new_model(family)
    with torch.no_grad():
        out = plain(tokens[None], output_attentions=True)
    torch.testing.assert_close(frozen.logits, out.logits[0, -1], atol=1e-5, rtol=1e-5)
    for layer, attention in zip(frozen.layers, out.attentions, strict=True):
        torch.testing.assert_close(layer.pattern, attention[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "family"), on_both_backends([(family,) for family in FAMILIES]))
def test_a_frozen_pass_unembeds_the_last_position_alone(
    family: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No logits of other positions are computed or kept, and later runs have all of them again."""
    model = backend(family, name=name)
    tokens, sizes = torch.tensor(PROMPT), []
    run = model.run_batch

    def watched(*given: Any, **more: Any) -> Any:
        out = run(*given, **more)
        sizes.append(tuple(out[0].shape[:2]))
        return out

    monkeypatch.setattr(model, "run_batch", watched)
    frozen = model.frozen_pass(tokens, "mlp.hook_in", "hook_mlp_out")
    model.feature_inputs(tokens.repeat(2, 1), "mlp.hook_in")
    assert frozen.logits.untyped_storage().nbytes() == frozen.logits.nbytes
    logits, _ = model.run(tokens, Hooks())
    assert sizes == [(1, 1), (2, 1), (1, len(PROMPT))]
    torch.testing.assert_close(logits[-1], frozen.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "family"), on_both_backends([(family,) for family in FAMILIES]))
def test_a_run_in_steps_with_the_cache_equals_one_run(family: str, name: str) -> None:
    model = backend(family, name=name)
    tokens = torch.tensor(PROMPT)
    whole, _ = model.run(tokens, Hooks())
    _, cache = model.run(tokens[:-2], Hooks())
    _, cache = model.run(tokens[-2:-1], Hooks(), past=cache)
    last, _ = model.run(tokens[-1:], Hooks(), past=cache)
    torch.testing.assert_close(last[-1], whole[-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_norm_records_compute_what_the_modules_do(family: str) -> None:
    """The records are read from weights by declaration: kind, offset, epsilon, bias."""
    modules = ModelModules(new_model(family), backend(family).shape)
    x = torch.randn(5, D_MODEL, generator=torch.Generator().manual_seed(1)) + 0.3
    for layer in range(modules.n_layers):
        for part in filter(modules.has, NORM_PARTS):
            record, module = modules.norm(layer, part), modules.of_block[layer][getattr(modules.layout, part)]
            torch.testing.assert_close(record.apply(x, record.scale(x)), module(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", BACKEND_NAMES)
def test_hooks_are_gone_after_an_error(name: str) -> None:
    model = backend("llama", name=name)
    tokens = torch.tensor(PROMPT)
    want, _ = model.run(tokens, Hooks())

    def fail(value: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        model.run(tokens, Hooks({"blocks.1.mlp.hook_out": [fail]}))
    torch.testing.assert_close(model.run(tokens, Hooks())[0], want)


@pytest.mark.parametrize("name", BACKEND_NAMES)
def test_the_softcap_comes_back(name: str) -> None:
    model = backend("gemma2", name=name)
    tokens = torch.tensor(PROMPT)
    want, _ = model.run(tokens, Hooks())
    with model.zero_softcap():
        free, _ = model.run(tokens, Hooks())
    torch.testing.assert_close(torch.tanh(free / 30) * 30, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.run(tokens, Hooks())[0], want)
