"""Llama and its kin: RMSNorm, rotary positions, grouped heads, gated MLP."""

from circuit_tracer_cli.backends.families.base import Family

FAMILY = Family(
    name="Llama",
    architectures=("LlamaForCausalLM", "MistralForCausalLM"),
    mlp=frozenset({"hidden_act", "mlp_bias"}),
    linear=frozenset({"attention_bias"}),
)
