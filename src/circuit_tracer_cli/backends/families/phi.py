"""Phi 1, 1.5 and 2: attention and MLP in parallel after one LayerNorm, partial rotary positions, biases everywhere."""

from circuit_tracer_cli.backends.families.base import Architecture, Family, Layout, MlpLayout, ScoreLayout

PARTS = Layout(
    ln_final="model.final_layernorm",
    ln2="input_layernorm",
    o="self_attn.dense",
    gated=False,
    norm="layer",
    parallel=True,
)

FAMILY = Family(
    name="Phi",
    architectures={
        "PhiForCausalLM": Architecture(
            "Phi 1, 1.5, 2",
            PARTS,
            "attention and MLP in parallel after one norm; partial rotary; a bias on the logits",
            ScoreLayout(),
            mlp=MlpLayout(up="fc1", gate=None, down="fc2", act="activation_fn"),
        )
    },
    pattern=frozenset({"partial_rotary_factor", "flash_attn", "flash_rotary", "fused_dense"}),
    mlp=frozenset({"hidden_act"}),
    linear=frozenset({"layer_norm_eps", "embd_pdrop", "resid_pdrop"}),
    # No published model has these norms, and TransformerLens 4.3 refuses them.
    required={"qk_layernorm": (False,)},
)
