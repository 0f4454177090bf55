"""Llama and similar models: RMSNorm, rotary positions, grouped heads, gated MLP (Mixtral: experts)."""

from circuit_tracer_cli.backends.families.base import GATED_MLP, Architecture, Family, Layout, ScoreLayout

FAMILY = Family(
    name="Llama",
    architectures={
        "LlamaForCausalLM": Architecture("Llama 1 to 3.3", Layout(), scores=ScoreLayout(), mlp=GATED_MLP),
        "MistralForCausalLM": Architecture(
            "Mistral", Layout(), "local attention", ScoreLayout(), mlp=GATED_MLP
        ),
        "MixtralForCausalLM": Architecture("Mixtral", Layout(), "experts", ScoreLayout()),
    },
    mlp=frozenset(
        [
            "hidden_act",
            "mlp_bias",
            "num_experts_per_tok",
            "num_local_experts",
            "output_router_logits",
            "router_aux_loss_coef",
            "router_jitter_noise",
        ]
    ),
    linear=frozenset({"attention_bias"}),
)
