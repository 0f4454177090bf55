"""GPT-NeoX and Pythia: attention and MLP in parallel (or in sequence), LayerNorm, partial rotary."""

from circuit_tracer_cli.backends.families.base import Family

FAMILY = Family(
    name="GPT-NeoX",
    architectures=("GPTNeoXForCausalLM",),
    pattern=frozenset({"rotary_pct", "rotary_emb_base", "partial_rotary_factor"}),
    mlp=frozenset({"hidden_act"}),
    linear=frozenset(
        [
            "attention_bias",
            "hidden_dropout",
            "layer_norm_eps",
            "use_parallel_residual",
            "attention_probs_dropout_prob",
        ]
    ),
    notes="parallel blocks have no hook_resid_mid",
)
