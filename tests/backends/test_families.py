"""Settings of a model that aren't understood are refused by name."""

from __future__ import annotations

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import FAMILIES, backend, transcoders

from circuit_tracer_cli.backends.families import all_families, family_for
from circuit_tracer_cli.backends.families.base import (
    ALLOW_VARIABLE,
    BOOKKEEPING,
    GENERATION,
    PATTERN,
    REQUIRED,
    SIZES,
    Family,
)
from circuit_tracer_cli.errors import ModelMismatch, UnsupportedArchitecture
from circuit_tracer_cli.replacement import ReplacementModel


@pytest.mark.parametrize("family", FAMILIES)
def test_default_configurations_are_understood(family: str) -> None:
    class_name, values = FAMILIES[family]
    config = getattr(transformers, class_name)(**values).to_dict()
    architecture = backend(family).config.original_architecture
    assert architecture in family_for({**config, "architectures": [architecture]}).architectures


def test_an_unknown_class_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedArchitecture, match="MambaForCausalLM") as caught:
        family_for({"architectures": ["MambaForCausalLM"]})
    assert "LlamaForCausalLM" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clip_qkv", 8.0),
        ("residual_multiplier", 0.2),
        ("use_bidirectional_attention", True),
        ("quantization_config", {"bits": 4}),
    ],
)
def test_unknown_settings_are_refused_by_name(
    field: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 8, field: value}
    with pytest.raises(UnsupportedArchitecture, match=field):
        family_for(config)
    monkeypatch.setenv(ALLOW_VARIABLE, f"other,{field}")
    assert family_for(config).name == "Llama"


def test_all_unknown_settings_are_named_at_once() -> None:
    config = {"architectures": ["LlamaForCausalLM"], "clip_qkv": 8.0, "residual_multiplier": 0.2}
    with pytest.raises(UnsupportedArchitecture, match=r"'clip_qkv'.*'residual_multiplier'") as caught:
        family_for(config)
    assert f"{ALLOW_VARIABLE}=clip_qkv,residual_multiplier" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "value"), [("full_attn_mod", 2), ("lm_head_bias", True), ("mlp_bias", True)]
)
def test_settings_of_phi_4_are_understood_with_their_published_values_only(name: str, value: object) -> None:
    with pytest.raises(UnsupportedArchitecture, match=name):
        family_for({**PUBLISHED["phi-4-mini"], name: value})


def test_no_architecture_belongs_to_two_families() -> None:
    names = [name for family in all_families() for name in family.architectures]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("family", "read", "write", "named"),
    [
        ("gpt_neox", "hook_resid_mid", "hook_mlp_out", "feature_input_hook"),
        ("llama", "hook_q", "hook_mlp_out", "feature_input_hook"),
        ("llama", "mlp.hook_in", "hook_out", "feature_output_hook"),
    ],
)
def test_hooks_that_a_model_lacks_are_named(family: str, read: str, write: str, named: str) -> None:
    with pytest.raises(ModelMismatch, match=named) as caught:
        ReplacementModel(backend(family), transcoders("plt", read=read, write=write))
    assert "mlp.hook_" in str(caught.value.hint)


def test_sets_of_another_depth_are_refused() -> None:
    with pytest.raises(ModelMismatch, match=r"layers 3|4 layers|layers 4"):
        ReplacementModel(backend("llama"), transcoders("plt", n_layers=4))


PUBLISHED = {
    "gemma-2-2b": {
        "architectures": ["Gemma2ForCausalLM"],
        "attn_logit_softcapping": 50.0,
        "cache_implementation": "hybrid",
        "final_logit_softcapping": 30.0,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "torch_dtype": "float32",
    },
    "qwen2.5": {
        "architectures": ["Qwen2ForCausalLM"],
        "max_window_layers": 28,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "use_mrope": False,
        "use_sliding_window": False,
    },
    "phi-4-mini": {
        "architectures": ["Phi3ForCausalLM"],
        "attention_bias": False,
        "embd_pdrop": 0.0,
        "full_attn_mod": 1,
        "interpolate_factor": 1,
        "lm_head_bias": False,
        "mlp_bias": False,
        "original_max_position_embeddings": 4096,
        "partial_rotary_factor": 0.75,
        "resid_pdrop": 0.0,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]},
        "sliding_window": 262144,
    },
    "gpt-neox-20b": {
        "architectures": ["GPTNeoXForCausalLM"],
        "attention_probs_dropout_prob": 0,
        "hidden_dropout_prob": 0,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
    },
    "gpt2-xl": {
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "n_ctx": 1024,
        "output_past": True,
        "summary_type": "cls_index",
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    },
    "llama-7b": {
        "architectures": ["LlamaForCausalLM"],
        "max_sequence_length": 2048,
        "pretraining_tp": 1,
        "rope_scaling": None,
    },
    "smollm2": {
        "architectures": ["LlamaForCausalLM"],
        "is_llama_config": True,
        "mlp_bias": False,
        "rope_interleaved": False,
        "rope_theta": 100000,
        "transformers.js_config": {"dtype": "q4"},
    },
    "qwen3-30b-a3b": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "decoder_sparse_step": 1,
        "max_window_layers": 48,
        "mlp_only_layers": [],
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
        "use_sliding_window": False,
    },
    "pythia": {
        "architectures": ["GPTNeoXForCausalLM"],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "use_parallel_residual": True,
    },
}
"""Settings as published models write them, the parts that configuration classes don't make themselves."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_are_understood(name: str) -> None:
    config = PUBLISHED[name]
    assert config["architectures"][0] in family_for(config).architectures  # type: ignore[index]


OTHERS = (
    "bloom",
    "cohere2",
    "dbrx",
    "deepseek_v3",
    "falcon",
    "granitemoe",
    "llama4_text",
    "mamba2",
    "minimax",
    "mpt",
    "opt",
    "t5",
)
SETTINGS = sorted(
    {key for name in OTHERS for key in transformers.CONFIG_MAPPING[name]().to_dict() if key[0] != "_"}
)


@pytest.mark.parametrize("family", all_families(), ids=lambda family: family.name)
@settings(max_examples=40, derandomize=True)
@given(
    found=st.dictionaries(
        st.sampled_from(SETTINGS) | st.text(min_size=1, max_size=10).filter(lambda key: key[0] != "_"),
        st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | st.text(max_size=5),
        max_size=4,
    )
)
def test_any_setting_is_known_or_refused_by_name(family: Family, found: dict[str, object]) -> None:
    """Settings of a dozen other classes and invented ones: each is listed for the family, switched off, or named."""
    listed = (
        BOOKKEEPING
        | GENERATION
        | SIZES
        | PATTERN
        | family.pattern
        | family.mlp
        | family.linear
        | family.images
    )
    switches = {**REQUIRED, **family.required}
    wrong = [key for key, value in found.items() if key not in listed and value not in switches.get(key, ())]
    try:
        family.check(found)
        said = ""
    except UnsupportedArchitecture as error:
        said = error.message
    assert bool(said) == bool(wrong)
    assert all(repr(key) in said for key in wrong)
