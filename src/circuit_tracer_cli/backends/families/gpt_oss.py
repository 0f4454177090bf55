"""GPT-OSS: mixture-of-experts MLP, attention sinks (pattern rows don't sum to one), biases."""

from circuit_tracer_cli.backends.families.base import Architecture, Family, Layout, ScoreLayout

FAMILY = Family(
    name="GPT-OSS",
    architectures={
        "GptOssForCausalLM": Architecture(
            "GPT-OSS",
            Layout(),
            "the pattern leaves out the attention sink's share; experts",
            ScoreLayout(half_width=True),
        )
    },
    pattern=frozenset({"initial_context_length"}),
    mlp=frozenset(
        [
            "hidden_act",
            "num_experts_per_tok",
            "experts_per_token",
            "num_local_experts",
            "output_router_logits",
            "router_aux_loss_coef",
            "swiglu_limit",
            "swiglu_alpha",
        ]
    ),
    linear=frozenset({"attention_bias"}),
)
