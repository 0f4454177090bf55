"""Continuations equal the model's own `generate`, across everything that switches as a text grows."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from circuit_tracer_cli.backends.model_config import model_shape
from circuit_tracer_cli.backends.transformers import TransformersBackend
from circuit_tracer_cli.errors import BadPrompt
from circuit_tracer_cli.replacement import ReplacementModel
from tests.builders import FAMILIES, new_model, number_tokenizer, replacement, transcoders

STEPS = 8
SHORT = [0, 41, 7]  # shorter than every window, which the continuation crosses
GREEDY: dict[str, Any] = {"do_sample": False, "stop_at_eos": False}


def own_logits(model: Any, ids: list[int], steps: int) -> Tensor:
    """Logits `(step, vocab)` of Hugging Face's own loop."""
    out = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=steps,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return torch.cat(out.logits)


def our_logits(model: ReplacementModel, ids: list[int], steps: int) -> Tensor:
    return model.feature_intervention_generate(torch.tensor(ids), [], max_new_tokens=steps, **GREEDY)[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_goes_on_as_generate_does(family: str) -> None:
    wanted = own_logits(new_model(family), SHORT, STEPS)
    found = our_logits(replacement(family, "plt", backend_name="transformers"), SHORT, STEPS)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


LONG = 10
ROPES: dict[str, dict[str, Any]] = {
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": LONG},
}


def scaled(rope: dict[str, Any], config_class: str = "LlamaConfig", **more: Any) -> Any:
    """A tiny model with scaled rotary positions whose own length is 10."""
    import transformers

    from tests.builders import randomise

    _, values = FAMILIES["qwen2"]
    values = {**values, "max_position_embeddings": LONG, **more}
    config = getattr(transformers, config_class)(
        **values,
        rope_parameters={"rope_theta": 10000.0, **rope},
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
    )
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.config.architectures = [type(model).__name__]
    randomise(model, seed=11)
    return model.eval()


def behind(model: Any) -> ReplacementModel:
    return ReplacementModel(TransformersBackend(model, number_tokenizer(), "tiny"), transcoders("plt"))


@pytest.mark.parametrize("kind", ROPES)
def test_scaled_positions_beyond_the_models_own_length(kind: str) -> None:
    wanted = own_logits(scaled(ROPES[kind]), SHORT, 20)
    model = behind(scaled(ROPES[kind]))
    assert model.model.shape.n_ctx == 4 * LONG
    torch.testing.assert_close(our_logits(model, SHORT, 20), wanted, atol=2e-5, rtol=1e-4)


def test_a_text_does_not_depend_on_a_longer_one_before_it() -> None:
    long, short = list(range(2, 32)), list(range(3, 17))
    model = behind(scaled(ROPES["dynamic"]))
    fresh = model.get_activations(torch.tensor(short))[0]
    model.get_activations(torch.tensor(long))
    torch.testing.assert_close(model.get_activations(torch.tensor(short))[0], fresh, atol=1e-6, rtol=1e-6)
    hf = scaled(ROPES["dynamic"])
    with torch.no_grad():
        torch.testing.assert_close(
            hf(torch.tensor([[0, *short]])).logits[:, -1], fresh[:, -1], atol=1e-5, rtol=1e-4
        )


@functools.cache
def longrope() -> ReplacementModel:
    half = 3  # of a head's width
    rope = {"rope_type": "longrope", "short_factor": [1.0] * half, "long_factor": [4.0] * half}
    more = {"original_max_position_embeddings": LONG, "max_position_embeddings": 4 * LONG}
    return behind(scaled({**rope, "original_max_position_embeddings": LONG}, "Phi3Config", **more))


def test_longrope_is_not_continued_across_its_switch() -> None:
    model = longrope()
    assert model.model.shape.rope_switch == LONG
    with pytest.raises(BadPrompt, match="other factors") as caught:
        our_logits(model, SHORT, STEPS + 1)
    assert caught.value.hint == "generate at most 8"


@pytest.mark.parametrize(("n_prompt", "steps"), [(3, 8), (11, 5), (14, 3)])
def test_longrope_on_either_side_of_its_switch(n_prompt: int, steps: int) -> None:
    ids = [0, *range(2, n_prompt + 1)]
    wanted = own_logits(longrope().model.hf_model, ids, steps)
    torch.testing.assert_close(our_logits(longrope(), ids, steps), wanted, atol=2e-5, rtol=1e-4)


def test_a_published_yarn_setting_lengthens_the_context() -> None:
    config = {
        **{
            "architectures": ["Qwen2ForCausalLM"],
            "hidden_size": 8,
            "num_attention_heads": 2,
            "vocab_size": 9,
        },
        **{"num_hidden_layers": 2, "max_position_embeddings": 32768},
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    }
    assert model_shape(config).n_ctx == 131072
