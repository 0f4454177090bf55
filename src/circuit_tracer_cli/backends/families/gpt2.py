"""GPT-2: LayerNorm with bias, learned positions, fused query-key-value projection."""

from circuit_tracer_cli.backends.families.base import Family

FAMILY = Family(
    name="GPT-2",
    architectures=("GPT2LMHeadModel",),
    pattern=frozenset({"scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"}),
    mlp=frozenset({"activation_function", "n_inner"}),
    linear=frozenset(
        [
            "n_embd",
            "n_head",
            "n_layer",
            "n_positions",
            "n_ctx",
            "layer_norm_epsilon",
            "attn_pdrop",
            "embd_pdrop",
            "resid_pdrop",
        ]
    ),
    notes="position embeddings are part of the stream but no source node",
)
