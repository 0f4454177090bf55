"""Gemma 1, 2 and 3: scaled embeddings, gains stored as offsets from one, post norms and softcaps from Gemma 2 on."""

from circuit_tracer_cli.backends.families.base import (
    GATED_MLP,
    NORMED_SCORES,
    Architecture,
    Family,
    Layout,
    ScoreLayout,
)

_SANDWICH = Layout(
    ln2="pre_feedforward_layernorm",
    ln1_post="post_attention_layernorm",
    ln2_post="post_feedforward_layernorm",
    gain_offset=1.0,
)
_CAPPED = ScoreLayout(softcap="attn_logit_softcapping")
_THREE = "scaled embeddings, norms on query and key, a rotary base each for local and global layers"

FAMILY = Family(
    name="Gemma",
    architectures={
        "GemmaForCausalLM": Architecture(
            "Gemma 1", Layout(gain_offset=1.0), "scaled embeddings", ScoreLayout(), mlp=GATED_MLP
        ),
        "Gemma2ForCausalLM": Architecture(
            "Gemma 2",
            _SANDWICH,
            "scaled embeddings, softcaps, local and global layers",
            _CAPPED,
            mlp=GATED_MLP,
        ),
        "Gemma3ForCausalLM": Architecture("Gemma 3", _SANDWICH, _THREE, NORMED_SCORES, mlp=GATED_MLP),
        "Gemma3ForConditionalGeneration": Architecture(
            "Gemma 3 multimodal",
            _SANDWICH,
            f"only its text part; {_THREE}",
            NORMED_SCORES,
            not_needed=(r"\b(vision_tower|multi_modal_projector)\.",),
            mlp=GATED_MLP,
        ),
    },
    pattern=frozenset(
        [
            "attn_logit_softcapping",
            "query_pre_attn_scalar",
            "rope_local_base_freq",
            "sliding_window_pattern",
            "sliding_window_size",
        ]
    ),
    mlp=frozenset({"hidden_activation", "hidden_act"}),
    linear=frozenset({"attention_bias", "final_logit_softcapping"}),
    images=frozenset(
        [
            "vision_config",
            "mm_tokens_per_image",
            "boi_token_index",
            "eoi_token_index",
            "image_token_index",
            "image_token_id",
        ]
    ),
)
