"""GPT-2: LayerNorm with bias, learned positions, fused query-key-value projection."""

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
    learned_positions=True,
    ln1="ln_1",
    ln2="ln_2",
    attn="attn",
    v="attn.c_attn",
    o="attn.c_proj",
    gated=False,
    norm="layer",
)

FAMILY = Family(
    name="GPT-2",
    architectures={
        "GPT2LMHeadModel": Architecture(
            "GPT-2",
            PARTS,
            "position vectors are in the stream but aren't source nodes",
            ScoreLayout(q="attn.c_attn", k="attn.c_attn", stored="joined", rotary=None),
            leftovers=(CAUSAL_MASK, ROTARY_BUFFER),
            mlp=MlpLayout(up="c_fc", gate=None, down="c_proj", act="act"),
        )
    },
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
)
