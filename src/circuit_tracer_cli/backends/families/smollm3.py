"""SmolLM3: Llama without positions in every fourth layer."""

from circuit_tracer_cli.backends.families.base import GATED_MLP, Architecture, Family, Layout, ScoreLayout

FAMILY = Family(
    name="SmolLM3",
    architectures={
        "SmolLM3ForCausalLM": Architecture(
            "SmolLM3", Layout(), "no rotary positions in every fourth layer", ScoreLayout(), mlp=GATED_MLP
        )
    },
    pattern=frozenset(
        {"no_rope_layers", "no_rope_layer_interval", "use_sliding_window", "max_window_layers"}
    ),
    mlp=frozenset({"hidden_act", "mlp_bias"}),
    linear=frozenset({"attention_bias"}),
)
