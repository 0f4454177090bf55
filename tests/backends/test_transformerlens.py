"""The frozen quantities are the model's own."""

from __future__ import annotations

import pytest
import torch
from tests.builders import FAMILIES, PROMPT, backend

from circuit_tracer_cli.backends.base import Hooks


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_patterns_equal_hugging_faces(family: str) -> None:
    model = backend(family)
    tokens = torch.tensor(PROMPT)
    frozen = model.frozen_pass(tokens, "mlp.hook_in", "hook_mlp_out")
    class_name, values = FAMILIES[family]
    import transformers

    config = getattr(transformers, class_name)(**values, bos_token_id=0, eos_token_id=1, pad_token_id=None)
    plain = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    from tests.builders import randomise

    randomise(plain, seed=sum(map(ord, family)))
    with torch.no_grad():
        out = plain(tokens[None], output_attentions=True)
    torch.testing.assert_close(frozen.logits, out.logits[0, -1], atol=1e-5, rtol=1e-5)
    for layer, attention in zip(frozen.layers, out.attentions, strict=True):
        torch.testing.assert_close(layer.pattern, attention[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_in_steps_with_the_cache_equals_one_run(family: str) -> None:
    model = backend(family)
    tokens = torch.tensor(PROMPT)
    whole, _ = model.run(tokens, Hooks())
    _, cache = model.run(tokens[:-2], Hooks())
    _, cache = model.run(tokens[-2:-1], Hooks(), past=cache)
    last, _ = model.run(tokens[-1:], Hooks(), past=cache)
    torch.testing.assert_close(last[-1], whole[-1], atol=1e-4, rtol=1e-4)


def test_hooks_are_gone_after_an_error() -> None:
    model = backend("llama")
    tokens = torch.tensor(PROMPT)
    want, _ = model.run(tokens, Hooks())

    def fail(value: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        model.run(tokens, Hooks({"blocks.1.mlp.hook_out": [fail]}))
    torch.testing.assert_close(model.run(tokens, Hooks())[0], want)


def test_the_softcap_comes_back() -> None:
    model = backend("gemma2")
    tokens = torch.tensor(PROMPT)
    want, _ = model.run(tokens, Hooks())
    with model.zero_softcap():
        free, _ = model.run(tokens, Hooks())
    torch.testing.assert_close(torch.tanh(free / 30) * 30, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.run(tokens, Hooks())[0], want)
