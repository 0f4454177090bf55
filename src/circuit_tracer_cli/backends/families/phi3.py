"""Phi-3: Llama with fused projections; partial rotary in the smaller models of the fourth generation."""

from circuit_tracer_cli.backends.families.base import Architecture, Family, Layout, MlpLayout, ScoreLayout

FAMILY = Family(
    name="Phi-3",
    architectures={
        "Phi3ForCausalLM": Architecture(
            "Phi 3, 3.5, 4",
            Layout(v="self_attn.qkv_proj"),
            "fused projections; partial rotary",
            ScoreLayout(q="self_attn.qkv_proj", k="self_attn.qkv_proj", stored="joined"),
            mlp=MlpLayout(up="gate_up_proj", gate=None, act="activation_fn", joined=True),
        )
    },
    pattern=frozenset({"original_max_position_embeddings", "partial_rotary_factor"}),
    mlp=frozenset({"hidden_act"}),
    linear=frozenset({"attention_bias", "embd_pdrop", "resid_pdrop"}),
    # Settings of published models of the fourth generation, with the values that transformers' own class assumes.
    required={
        "full_attn_mod": (1, None),
        "interpolate_factor": (1, None),
        "lm_head_bias": (False, None),
        "mlp_bias": (False, None),
    },
)
