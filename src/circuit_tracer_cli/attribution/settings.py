"""The numbers that decide what a graph contains."""

from __future__ import annotations

from dataclasses import dataclass

from circuit_tracer_cli.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class AttributionSettings:
    """The numbers that decide what a graph contains.

    Args:
        max_n_logits: Most logits to explain when targets are chosen by probability.
        desired_logit_prob: Stop choosing logits when their probabilities sum to this.
        batch_size: With `update_interval`, how many features are chosen between two rankings. Not the compute block.
        max_feature_nodes: Most features that become nodes; None or 0 for all.
        update_interval: Batches between two rankings.
    """

    max_n_logits: int = 10
    desired_logit_prob: float = 0.95
    batch_size: int = 512
    max_feature_nodes: int | None = None
    update_interval: int = 4

    def __post_init__(self) -> None:
        for name in ("max_n_logits", "batch_size", "update_interval"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"{name} is {getattr(self, name)}, but must be at least 1")
        if self.max_feature_nodes is not None and self.max_feature_nodes < 0:
            raise InvalidValue(f"max_feature_nodes is {self.max_feature_nodes}, but must not be negative")
        if not 0 < self.desired_logit_prob <= 1:
            raise InvalidValue(f"desired_logit_prob is {self.desired_logit_prob}, but must lie in (0, 1]")
