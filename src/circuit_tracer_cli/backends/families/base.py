"""The settings that a model family's configuration can have. A field that isn't listed is refused by name, never ignored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from circuit_tracer_cli.errors import UnsupportedArchitecture

ALLOW_VARIABLE = "CIRCUIT_TRACER_ALLOW_CONFIG"

BOOKKEEPING = frozenset(
    [
        "architectures",
        "auto_map",
        "chunk_size_feed_forward",
        "dtype",
        "torch_dtype",
        "id2label",
        "label2id",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "problem_type",
        "return_dict",
        "transformers_version",
        "use_cache",
        "initializer_range",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "sep_token_id",
        "decoder_start_token_id",
        "tie_word_embeddings",
        "attn_implementation",
        "attention_dropout",
        "pretraining_tp",
        "classifier_dropout",
        "transformers.js_config",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        "output_past",
        "predict_special_tokens",
        "hidden_dropout_prob",
        "custom_pipelines",
        "max_sequence_length",
        "task_specific_params",
    ]
)
"""Fields that don't change the forward pass of a decoder in evaluation mode."""

GENERATION = frozenset(
    [
        *[
            "cache_implementation",
            "do_sample",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
            "num_beams",
            "max_length",
        ],
        *[
            "min_length",
            "repetition_penalty",
            "length_penalty",
            "no_repeat_ngram_size",
            "early_stopping",
            "num_beam_groups",
        ],
        *[
            "diversity_penalty",
            "num_return_sequences",
            "bad_words_ids",
            "suppress_tokens",
            "begin_suppress_tokens",
        ],
        *["forced_bos_token_id", "forced_eos_token_id", "output_scores", "return_dict_in_generate", "prefix"],
        *[
            "exponential_decay_length_penalty",
            "remove_invalid_values",
            "encoder_no_repeat_ngram_size",
            "eos_token_ids",
        ],
        *[
            "tokenizer_class",
            "finetuning_task",
            "torchscript",
            "use_bfloat16",
            "tf_legacy_loss",
            "gradient_checkpointing",
        ],
        *[
            "unk_token_id",
            "mask_token_id",
            "cls_token_id",
            "unsloth_fixed",
            "unsloth_version",
            "is_llama_config",
        ],
    ]
)
"""Fields of published models that only matter for generation, training or loading."""

SIZES = frozenset(
    [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "max_position_embeddings",
        "rms_norm_eps",
    ]
)
"""Fields that are reflected in the weights' shapes and the norms' records."""

PATTERN = frozenset(["rope_parameters", "rope_scaling", "rope_theta", "layer_types", "sliding_window"])
"""Fields that act inside the attention pattern, which is frozen."""

REQUIRED: Mapping[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "use_bidirectional_attention": (False, None),
    "is_decoder": (False, True, None),
    "pruned_heads": ({}, None),
    "use_mrope": (False, None),
    "rope_interleaved": (False, None),
}
"""Fields that are supported with these values only."""


ROTARY_BUFFER = r"\brotary_emb\.(inv_freq|cos_cached|sin_cached)$"
"""A buffer of older checkpoints that is computed from the configuration."""

CAUSAL_MASK = r"\.(attn|attention)\.(bias|masked_bias)$"
"""The causal mask that older checkpoints store."""


NormKind = Literal["rms", "layer", "none"]


QUANTIZATIONS = ("bitsandbytes", "mxfp4")
"""Storage of weights that is reversible, or only concerns the replaced MLP."""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_known_quantization(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and value.get("quant_method") in QUANTIZATIONS)


@dataclass(frozen=True, slots=True)
class Layout:
    """The dotted paths of the parts of a Hugging Face model; those from `ln1` on are relative to a block.

    Args:
        embed: The token embedding.
        layers: The list of blocks.
        ln_final: The norm before the unembedding.
        learned_positions: True if position vectors are added after the token embedding.
        ln1: Norm before attention, or None.
        ln2: Norm before the MLP; the same path as `ln1` if both read one norm; None without a norm.
        ln1_post: Norm of what attention adds.
        ln2_post: Norm of what the MLP adds.
        attn: The attention module; it returns its output and the pattern.
        v: The projection whose output contains the values, alone or as the last of several.
        v_interleaved: True if query, key and value are stored together head by head (GPT-NeoX).
        o: The output projection of attention.
        mlp: The module that the transcoders replace.
        gated: True if it has a gate, and so three matrices instead of two.
        norm: RMS norms or layer norms.
        gain_offset: Added to a norm's stored weight to give its gain (Gemma: 1).
        parallel: True if attention and MLP read the same stream; or the name of the setting that decides.
    """

    embed: str = "model.embed_tokens"
    layers: str = "model.layers"
    ln_final: str = "model.norm"
    learned_positions: bool = False
    ln1: str | None = "input_layernorm"
    ln2: str | None = "post_attention_layernorm"
    ln1_post: str | None = None
    ln2_post: str | None = None
    attn: str = "self_attn"
    v: str = "self_attn.v_proj"
    v_interleaved: bool = False
    o: str = "self_attn.o_proj"
    mlp: str = "mlp"
    gated: bool = True
    norm: NormKind = "rms"
    gain_offset: float = 0.0
    parallel: bool | str = False

    def is_parallel(self, config: Mapping[str, Any]) -> bool:
        """True if a model of this configuration has parallel blocks."""
        return bool(config.get(self.parallel, True)) if isinstance(self.parallel, str) else self.parallel

    @property
    def one_norm(self) -> bool:
        """True if attention and MLP share their norm."""
        return self.ln2 is not None and self.ln1 == self.ln2


@dataclass(frozen=True, slots=True)
class ScoreLayout:
    """How a family makes its attention scores: paths in a block, and names of the attention module's attributes.

    Args:
        q: The projection that gives the query, alone or with others.
        k: The one that gives the key.
        stored: Whether query and key have their own projections, or share one, one after the other (`joined`) or head by
            head (`interleaved`).
        q_norm: The norm on the query, if there is one.
        k_norm: The norm on the key.
        rotary: The module with the rotations, or the buffer of GPT-J; None without rotations.
        rotation: What rotates together: the two halves of the rotary dimensions, or neighboring dimensions in pairs.
        half_width: True if the rotary module returns each angle once.
        scaling: The attribute with the factor.
        inverse_scaling: True if the score is divided by it.
        softcap: The attribute with the soft cap.
    """

    q: str = "self_attn.q_proj"
    k: str = "self_attn.k_proj"
    stored: Literal["apart", "joined", "interleaved"] = "apart"
    q_norm: str | None = None
    k_norm: str | None = None
    rotary: str | None = "model.rotary_emb"
    rotation: Literal["halves", "pairs"] = "halves"
    half_width: bool = False
    scaling: str = "scaling"
    inverse_scaling: bool = False
    softcap: str | None = None


NORMED_SCORES = ScoreLayout(q_norm="self_attn.q_norm", k_norm="self_attn.k_norm")
"""Llama's, with norms on query and key."""


@dataclass(frozen=True, slots=True)
class MlpLayout:
    """How a family's MLP makes its neurons: `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` without a gate.

    Paths stand in the MLP's module.

    Args:
        up: The projection of the input that the activation function isn't applied to; without a gate, the one that it is.
        gate: The one that it is applied to, or None.
        down: The projection back to the stream, whose columns neurons write.
        act: The activation function.
        joined: Whether gate and up come from one projection, `up`, the gate first.
    """

    up: str = "up_proj"
    gate: str | None = "gate_proj"
    down: str = "down_proj"
    act: str = "act_fn"
    joined: bool = False

    @property
    def gated(self) -> bool:
        """Whether there is a gate."""
        return self.joined or self.gate is not None


GATED_MLP = MlpLayout()
"""Llama's and its kin's."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One model class of a family.

    Args:
        models: Names of its well-known models.
        layout: Paths of its parts.
        special: Its special properties, for `doctor --models`.
        scores: How attention scores are made; None if unknown, so that scores can't be explained.
        leftovers: Name patterns of tensors in published checkpoints that no forward pass needs (old buffers).
        not_needed: Name patterns of weights that text doesn't need; they may be missing.
        mlp: How its MLP makes neurons; None where they can't be traced (experts, clamped products).
    """

    models: str
    layout: Layout
    special: str = ""
    scores: ScoreLayout | None = None
    leftovers: tuple[str, ...] = (ROTARY_BUFFER,)
    not_needed: tuple[str, ...] = ()
    mlp: MlpLayout | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """One model family.

    Args:
        name: Its usual name.
        architectures: Its classes in Hugging Face's library, by name.
        pattern: Fields that act inside the attention pattern (frozen), in addition to the common ones.
        mlp: Fields that act inside the MLP (replaced, or frozen with the error node).
        linear: Fields whose effect is in the linear weights (biases, norms, embedding scale, softcaps).
        images: Fields of a multimodal class that text doesn't need.
        required: Fields with their supported values.
        closed_form: False if rows must be computed by vector-Jacobian products through the model.
    """

    name: str
    architectures: Mapping[str, Architecture]
    pattern: frozenset[str] = frozenset()
    mlp: frozenset[str] = frozenset()
    linear: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    required: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    closed_form: bool = True

    def check(self, config: Mapping[str, Any]) -> None:
        """Raise UnsupportedArchitecture for an unknown field of a model's `config.json`."""
        known = (
            BOOKKEEPING | GENERATION | SIZES | PATTERN | self.pattern | self.mlp | self.linear | self.images
        )
        required = {**REQUIRED, **self.required}
        allowed = set(filter(None, os.environ.get(ALLOW_VARIABLE, "").split(",")))
        strangers: dict[str, Any] = {}
        for name, value in config.items():
            if name.startswith("_") or name in known or name in allowed:
                continue
            if name in required and value in required[name]:
                continue
            if name == "quantization_config" and _is_known_quantization(value):
                continue
            strangers[name] = value
        if strangers:
            named = ", ".join(f"{name!r} (= {_short(value)})" for name, value in strangers.items())
            raise UnsupportedArchitecture(
                f"the model's setting{'s' if len(strangers) > 1 else ''} {named} "
                f"{'are' if len(strangers) > 1 else 'is'} not supported for the family {self.name}",
                hint=f"if the forward pass doesn't depend on {'them' if len(strangers) > 1 else 'it'}, "
                f"set {ALLOW_VARIABLE}={','.join(strangers)} and run again",
            )
