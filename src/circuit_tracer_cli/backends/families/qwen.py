"""Qwen 2, 2.5 and 3: Llama with biases on query, key and value (2) or norms on query and key (3)."""

from circuit_tracer_cli.backends.families.base import Family

FAMILY = Family(
    name="Qwen",
    architectures=("Qwen2ForCausalLM", "Qwen3ForCausalLM"),
    pattern=frozenset({"use_sliding_window", "max_window_layers"}),
    mlp=frozenset({"hidden_act"}),
    linear=frozenset({"attention_bias"}),
    notes="the tokenizer adds no first token",
)
