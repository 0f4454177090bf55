"""Qwen 2, 2.5 and 3: Llama with biases on query, key and value (2) or norms on query and key (3)."""

from circuit_tracer_cli.backends.families.base import (
    GATED_MLP,
    NORMED_SCORES,
    Architecture,
    Family,
    Layout,
    ScoreLayout,
)

FAMILY = Family(
    name="Qwen",
    architectures={
        "Qwen2ForCausalLM": Architecture(
            "Qwen 2, 2.5", Layout(), "biases on query, key and value", ScoreLayout(), mlp=GATED_MLP
        ),
        "Qwen3ForCausalLM": Architecture(
            "Qwen 3", Layout(), "norms on query and key", NORMED_SCORES, mlp=GATED_MLP
        ),
        "Qwen3MoeForCausalLM": Architecture(
            "Qwen 3 MoE", Layout(), "norms on query and key; experts", NORMED_SCORES
        ),
    },
    pattern=frozenset({"use_sliding_window", "max_window_layers"}),
    mlp=frozenset(
        [
            "hidden_act",
            "decoder_sparse_step",
            "mlp_only_layers",
            "moe_intermediate_size",
            "norm_topk_prob",
            "num_experts",
            "num_experts_per_tok",
            "num_local_experts",
            "output_router_logits",
            "router_aux_loss_coef",
        ]
    ),
    linear=frozenset({"attention_bias"}),
)
