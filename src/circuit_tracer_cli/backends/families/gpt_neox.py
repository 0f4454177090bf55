"""GPT-NeoX and Pythia: attention and MLP in parallel (or in sequence), LayerNorm, partial rotary."""

from circuit_tracer_cli.backends.families.base import (
    CAUSAL_MASK,
    ROTARY_BUFFER,
    Architecture,
    Family,
    Layout,
    MlpLayout,
    ScoreLayout,
)

PARTS = Layout(
    embed="gpt_neox.embed_in",
    layers="gpt_neox.layers",
    ln_final="gpt_neox.final_layer_norm",
    attn="attention",
    v="attention.query_key_value",
    v_interleaved=True,
    o="attention.dense",
    gated=False,
    norm="layer",
    parallel="use_parallel_residual",
)

FAMILY = Family(
    name="GPT-NeoX",
    architectures={
        "GPTNeoXForCausalLM": Architecture(
            "GPT-NeoX, Pythia",
            PARTS,
            "attention and MLP in parallel, unless set otherwise; partial rotary",
            ScoreLayout(
                q="attention.query_key_value",
                k="attention.query_key_value",
                stored="interleaved",
                rotary="gpt_neox.rotary_emb",
            ),
            leftovers=(CAUSAL_MASK, ROTARY_BUFFER),
            mlp=MlpLayout(up="dense_h_to_4h", gate=None, down="dense_4h_to_h", act="act"),
        )
    },
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
)
