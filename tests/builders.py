"""Tiny random models of every family and tiny random transcoder sets, for tests."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from circuit_tracer_cli.backends import backend_class
from circuit_tracer_cli.backends.loading import text_part
from circuit_tracer_cli.replacement import ReplacementModel, neurons_of
from circuit_tracer_cli.transcoders.activations import Activation, JumpReLU, ReLU, TopK
from circuit_tracer_cli.transcoders.clt import CrossLayerTranscoder
from circuit_tracer_cli.transcoders.plt import SingleLayerTranscoder, TranscoderSet
from circuit_tracer_cli.transcoders.references import NeuronReference

BACKEND_NAMES = ("transformers", "transformerlens", "nnsight")
VOCABULARY = 48
D_MODEL = 24
NEURONS = 12
"""Neurons per layer and position that may be nodes."""
PROMPT = (0, 3, 41, 7, 7, 19, 30)

_LLAMA_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": D_MODEL,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
}

_GEMMA3 = {
    **_LLAMA_LIKE,
    "sliding_window": 4,
    "query_pre_attn_scalar": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": D_MODEL, "n_layer": 3, "n_head": 4, "n_positions": 64},
    ),
    "gpt_neox": (
        "GPTNeoXConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": D_MODEL,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 40,
            "max_position_embeddings": 64,
        },
    ),
    "llama": ("LlamaConfig", {**_LLAMA_LIKE, "attention_bias": True}),
    "mistral": ("MistralConfig", {**_LLAMA_LIKE, "sliding_window": 4}),
    "qwen2": ("Qwen2Config", {k: v for k, v in _LLAMA_LIKE.items() if k != "head_dim"}),
    "qwen3": ("Qwen3Config", _LLAMA_LIKE),
    "gemma": ("GemmaConfig", _LLAMA_LIKE),
    "gemma2": ("Gemma2Config", {**_LLAMA_LIKE, "sliding_window": 4, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3TextConfig", _GEMMA3),
    "gpt_oss": (
        "GptOssConfig",
        {**_LLAMA_LIKE, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
    ),
}
_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
_PLAIN = {k: v for k, v in _LLAMA_LIKE.items() if k != "head_dim"}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
FAMILIES |= {
    "llama3": ("LlamaConfig", {**_LLAMA_LIKE, "rope_parameters": _LLAMA3_ROPE, "tie_word_embeddings": True}),
    "gptj": (
        "GPTJConfig",
        {
            "vocab_size": VOCABULARY,
            "n_embd": D_MODEL,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 64,
            "rotary_dim": 4,
        },
    ),
    "phi3": (
        "Phi3Config",
        {
            **_PLAIN,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        },
    ),
    "phi": (
        "PhiConfig",
        {
            **_PLAIN,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        },
    ),
    "smollm3": ("SmolLM3Config", {**_PLAIN, "no_rope_layer_interval": 2}),
    "olmo2": ("Olmo2Config", _PLAIN),
    "mixtral": ("MixtralConfig", {**_LLAMA_LIKE, **_MOE}),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {**_LLAMA_LIKE, **_MOE, "moe_intermediate_size": 12, "mlp_only_layers": [1]},
    ),
    "gemma3_multimodal": (
        "Gemma3Config",
        {
            "text_config": _GEMMA3,
            "vision_config": {
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "image_size": 8,
                "patch_size": 4,
            },
            "mm_tokens_per_image": 4,
        },
    ),
}
FAMILIES["gpt_neox_sequential"] = (
    "GPTNeoXConfig",
    {**FAMILIES["gpt_neox"][1], "use_parallel_residual": False},
)


@functools.lru_cache(maxsize=1)
def number_tokenizer() -> Any:
    """A tokenizer whose words are the numbers below the vocabulary size; 0 is the special first token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="1"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="0", unk_token="1", name_or_path="tiny")


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights of ordinary size everywhere, biases and gains included, so that nothing is trivially zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1 and ("norm" in name.lower() or "ln_" in name):
                base = 1.0 if "weight" in name and parameter.mean().abs() > 0.5 else 0.0
                parameter.copy_(base + 0.2 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(0.2 * noise)
            else:
                parameter.copy_(noise * 0.7 / parameter.shape[-1] ** 0.5)


READS = ("hook_resid_mid", "ln2.hook_normalized", "mlp.hook_in")


def diagonal(cases: list[Any]) -> list[Any]:
    """The cases, all but one of each family left to the long suite; which one goes round as the families do."""
    found = []
    for number, family in enumerate(FAMILIES):
        own = [case for case in cases if case[0] == family]
        fast = number // 2 % len(own)
        found += [
            pytest.param(*case, marks=[] if i == fast else [pytest.mark.long]) for i, case in enumerate(own)
        ]
    return found


def on_both_backends(cases: list[Any]) -> list[Any]:
    """Every case on every backend; the fast suite has those of the diagonal, with the backends in turn."""
    order = list(FAMILIES)
    found = []
    for name in BACKEND_NAMES:
        for case in diagonal(cases):
            here = BACKEND_NAMES[order.index(case.values[0]) % len(BACKEND_NAMES)] == name
            marks = case.marks if here else [pytest.mark.long]
            found.append(pytest.param(name, *case.values, marks=marks))
    return found


def readable(family: str) -> tuple[str, ...]:
    """The read points that a family has, as a user would write them."""
    if family in ("gpt_neox", "gptj", "phi"):
        return READS[1:]
    return ("hook_resid_mid", "mlp.hook_in") if family == "olmo2" else READS


def new_model(family: str, dtype: torch.dtype = torch.float32) -> Any:
    """A tiny random model of a family, always with the same weights."""
    import transformers

    class_name, values = FAMILIES[family]
    config = getattr(transformers, class_name)(**values, bos_token_id=0, eos_token_id=1, pad_token_id=None)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.config.architectures = [type(model).__name__]
    randomise(model, seed=sum(map(ord, family)))
    return text_part(model.to(dtype).eval())


@functools.cache
def backend(family: str, dtype: torch.dtype = torch.float32, name: str = "transformerlens") -> Any:
    """A tiny random model of a family behind a backend."""
    if name == "nnsight":
        pytest.importorskip("nnsight")
    model = new_model(family, dtype)
    return backend_class(name)(model, number_tokenizer(), f"tiny/{family}")


def _activation(name: str, n_features: int, generator: torch.Generator, dtype: torch.dtype) -> Activation:
    if name == "topk":
        return TopK(9)
    if name == "jumprelu":
        return JumpReLU((0.3 * torch.rand(n_features, generator=generator)).to(dtype))
    return ReLU()


def _normal(generator: torch.Generator, dtype: torch.dtype, *shape: int, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(*shape, generator=generator)).to(dtype)


def transcoders(
    kind: str,
    activation: str = "relu",
    skip: bool = False,
    *,
    read: str = "mlp.hook_in",
    write: str = "hook_mlp_out",
    n_layers: int = 3,
    n_features: int = 36,
    d_model: int = D_MODEL,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> TranscoderSet | CrossLayerTranscoder:
    """A tiny random set in memory."""
    g = torch.Generator().manual_seed(seed)
    d = d_model
    enc = [_normal(g, dtype, n_features, d, scale=d**-0.5) for _ in range(n_layers)]
    b_enc = [_normal(g, dtype, n_features, scale=0.3) for _ in range(n_layers)]
    b_dec = [_normal(g, dtype, d, scale=0.3) for _ in range(n_layers)]
    skips = [_normal(g, dtype, d, d, scale=0.5 * d**-0.5) if skip else None for _ in range(n_layers)]
    acts = [_activation(activation, n_features, g, dtype) for _ in range(n_layers)]
    if kind == "plt":
        members = [
            SingleLayerTranscoder.from_tensors(
                enc[i], _normal(g, dtype, n_features, d, scale=0.4), b_enc[i], b_dec[i], acts[i], skips[i]
            )
            for i in range(n_layers)
        ]
        return TranscoderSet(members, read, write, scan="tiny-plt")
    dec = [_normal(g, dtype, n_features, n_layers - i, d, scale=0.3) for i in range(n_layers)]
    return CrossLayerTranscoder.from_tensors(
        enc,
        dec,
        b_enc,
        b_dec,
        activations=acts,
        W_skip=skips,
        feature_input_hook=read,
        feature_output_hook=write,
        scan="tiny-clt",
    )


def replacement(
    family: str, kind: str, activation: str = "relu", skip: bool = False, **kwargs: Any
) -> ReplacementModel:
    """A tiny model with tiny transcoders; of the kind `neurons` with its own, the rule in place of the activation."""
    dtype, name = kwargs.get("dtype", torch.float32), kwargs.pop("backend_name", "transformerlens")
    if kind == "neurons":
        model = backend(family, dtype, name)
        reference = NeuronReference("frozen" if activation == "gate frozen" else "half", top=NEURONS)
        return ReplacementModel(model, neurons_of(model, reference))
    return ReplacementModel(backend(family, dtype, name), transcoders(kind, activation, skip, **kwargs))
