"""GPT-J: attention and MLP in parallel after one LayerNorm, partial rotary positions."""

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
    embed="transformer.wte",
    layers="transformer.h",
    ln_final="transformer.ln_f",
    ln1="ln_1",
    ln2="ln_1",
    attn="attn",
    v="attn.v_proj",
    o="attn.out_proj",
    gated=False,
    norm="layer",
    parallel=True,
)

FAMILY = Family(
    name="GPT-J",
    architectures={
        "GPTJForCausalLM": Architecture(
            "GPT-J",
            PARTS,
            "attention and MLP in parallel after one norm; partial rotary",
            ScoreLayout(
                q="attn.q_proj",
                k="attn.k_proj",
                rotary="embed_positions",
                rotation="pairs",
                scaling="scale_attn",
                inverse_scaling=True,
            ),
            leftovers=(CAUSAL_MASK, ROTARY_BUFFER),
            mlp=MlpLayout(up="fc_in", gate=None, down="fc_out", act="act"),
        )
    },
    pattern=frozenset({"rotary", "rotary_dim", "scale_attn_weights"}),
    mlp=frozenset({"activation_function", "n_inner"}),
    linear=frozenset(
        [
            "n_embd",
            "n_head",
            "n_layer",
            "n_positions",
            "layer_norm_epsilon",
            "attn_pdrop",
            "embd_pdrop",
            "resid_pdrop",
        ]
    ),
)
