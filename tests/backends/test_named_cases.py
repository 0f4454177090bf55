"""What families are known for is switched on in their tiny models, so that the suites meet it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.builders import FAMILIES, PROMPT, backend, new_model
from torch import nn

from circuit_tracer_cli.backends.families.base import Layout


def has_biases(model: Any, layout: Layout) -> bool:
    block = model.get_submodule(layout.layers)[0]
    return all(bool(block.get_submodule(path).bias.abs().min() > 0) for path in (layout.v, layout.o))


def has_norms_on_query_and_key(model: Any, layout: Layout) -> bool:
    attention = model.get_submodule(layout.layers)[0].get_submodule(layout.attn)
    return all(isinstance(getattr(attention, name), nn.Module) for name in ("q_norm", "k_norm"))


def layers_differ_in_reach(model: Any, layout: Layout) -> bool:
    return len(set(model.config.layer_types)) == 2 and model.config.sliding_window < len(PROMPT)


CASES: dict[str, tuple[str, Callable[[Any, Layout], bool]]] = {
    "local and global layers": ("gemma2", layers_differ_in_reach),
    "a rotary base each for local and global layers": (
        "gemma3",
        lambda model, layout: (
            len({rope["rope_theta"] for rope in model.config.rope_parameters.values()}) == 2
        ),
    ),
    "local layers alone": ("mistral", lambda model, layout: model.config.sliding_window < len(PROMPT)),
    "attention sinks": (
        "gpt_oss",
        lambda model, layout: bool(model.model.layers[0].self_attn.sinks.abs().min() > 0),
    ),
    "norms on query and key": ("qwen3", has_norms_on_query_and_key),
    "norms on query and key of whole width": ("olmo2", has_norms_on_query_and_key),
    "parallel blocks with two norms": (
        "gpt_neox",
        lambda model, layout: model.config.use_parallel_residual and layout.ln1 != layout.ln2,
    ),
    "parallel blocks with one norm": (
        "phi",
        lambda model, layout: layout.one_norm and layout.parallel is True,
    ),
    "a block in sequence that could be parallel": (
        "gpt_neox_sequential",
        lambda model, layout: not model.config.use_parallel_residual,
    ),
    "norms behind attention and MLP": (
        "gemma2",
        lambda model, layout: bool(layout.ln1_post and layout.ln2_post),
    ),
    "no norms before attention and MLP": (
        "olmo2",
        lambda model, layout: layout.ln1 is None and layout.ln2 is None,
    ),
    "a softcap on the logits": ("gemma2", lambda model, layout: model.config.final_logit_softcapping > 0),
    "a softcap inside attention": ("gemma2", lambda model, layout: model.config.attn_logit_softcapping > 0),
    "a tied embedding": (
        "llama3",
        lambda model, layout: (
            model.get_output_embeddings().weight is model.get_submodule(layout.embed).weight
        ),
    ),
    "scaled rotary positions": (
        "llama3",
        lambda model, layout: model.config.rope_parameters["rope_type"] == "llama3",
    ),
    "a scaled embedding": (
        "gemma",
        lambda model, layout: (
            float(
                backend("gemma")
                .frozen_pass(torch.tensor(PROMPT), "mlp.hook_in", "hook_mlp_out")
                .embed[0]
                .div(backend("gemma").W_E[0])
                .mean()
            )
            == pytest.approx(24**0.5, rel=1e-3)
        ),
    ),
    "partial rotary positions": (
        "phi3",
        lambda model, layout: model.config.rope_parameters["partial_rotary_factor"] == 0.5,
    ),
    "partial rotary positions by dimension": (
        "gptj",
        lambda model, layout: model.config.rotary_dim < model.config.n_embd // model.config.n_head,
    ),
    "layers without positions": ("smollm3", lambda model, layout: len(set(model.config.no_rope_layers)) == 2),
    "biases on value and output": ("llama", has_biases),
    "biases on fused projections": ("gpt2", has_biases),
    "a bias on the logits": ("phi", lambda model, layout: bool(model.lm_head.bias.abs().min() > 0)),
    "grouped heads": (
        "qwen2",
        lambda model, layout: model.config.num_key_value_heads < model.config.num_attention_heads,
    ),
    "experts": ("mixtral", lambda model, layout: model.config.num_local_experts > 1),
    "experts in some layers": ("qwen3_moe", lambda model, layout: model.config.mlp_only_layers == [1]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_tiny_model_of_a_family_has_it(case: str) -> None:
    family, holds = CASES[case]
    assert family in FAMILIES
    assert holds(new_model(family), backend(family).shape.layout)
