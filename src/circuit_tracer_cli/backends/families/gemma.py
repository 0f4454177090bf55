"""Gemma 1, 2 and 3 (text): scaled embeddings, gains stored as offsets from one, post norms and softcaps from Gemma 2 on."""

from circuit_tracer_cli.backends.families.base import Family

FAMILY = Family(
    name="Gemma",
    architectures=("GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"),
    pattern=frozenset(
        ["attn_logit_softcapping", "query_pre_attn_scalar", "rope_local_base_freq", "sliding_window_pattern"]
    ),
    mlp=frozenset({"hidden_activation", "hidden_act"}),
    linear=frozenset({"attention_bias", "final_logit_softcapping"}),
    notes="embedding scaling is part of the token vectors",
)
