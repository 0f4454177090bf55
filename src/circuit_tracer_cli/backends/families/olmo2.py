"""OLMo 2: norms only after attention and MLP; query and key are normalized."""

from circuit_tracer_cli.backends.families.base import GATED_MLP, NORMED_SCORES, Architecture, Family, Layout

FAMILY = Family(
    name="OLMo 2",
    architectures={
        "Olmo2ForCausalLM": Architecture(
            "OLMo 2",
            Layout(
                ln1=None,
                ln2=None,
                ln1_post="post_attention_layernorm",
                ln2_post="post_feedforward_layernorm",
            ),
            "no norm before attention and MLP; norms on query and key",
            NORMED_SCORES,
            mlp=GATED_MLP,
        )
    },
    mlp=frozenset({"hidden_act"}),
    linear=frozenset({"attention_bias"}),
)
