"""The settings of a build, and what they cost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from circuit_tracer_cli.errors import InvalidValue, UnsuitableValue

PER_QUANTILE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """What to collect.

    Attributes:
        context: Tokens per example, about three quarters of them before the peak.
        examples: Top examples per feature.
        quantiles: Groups of examples sampled over the whole range of activations.
        values: Activations sampled per feature for the quantiles, the histogram and the label.
        logits: Number of promoted and suppressed tokens to list; 0 for none.
        sequence_length: Longer documents are cut into pieces of this many tokens.
        layers: First and end of the layers to build; None for all.
        seed: Seed of the samples.
        checkpoint_every: Documents between two saved states.
    """

    context: int = 32
    examples: int = 12
    quantiles: int = 5
    values: int = 256
    logits: int = 10
    sequence_length: int = 512
    layers: tuple[int, int] | None = None
    seed: int = 0
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        """Raise InvalidValue for a number that is out of range."""
        least = {"context": 2, "examples": 1, "values": 1, "sequence_length": 2, "checkpoint_every": 1}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            smallest = least.get(field.name, 0)
            if isinstance(value, int) and value < smallest:
                raise InvalidValue(f"{field.name} must be at least {smallest}, not {value}")

    @property
    def right(self) -> int:
        """Tokens of an example after its peak."""
        return self.context // 4

    @property
    def left(self) -> int:
        """Tokens of an example before its peak."""
        return self.context - 1 - self.right

    @property
    def n_sample(self) -> int:
        """Examples kept for the quantile groups."""
        return self.quantiles * PER_QUANTILE

    def layer_range(self, n_layers: int) -> range:
        """The layers to build. Raises InvalidValue if the set doesn't have them."""
        first, end = self.layers or (0, n_layers)
        if not 0 <= first < end <= n_layers:
            raise UnsuitableValue(
                f"layers {first}:{end} don't exist in a set of {n_layers}", hint=f"--layers 0:{n_layers}"
            )
        return range(first, end)

    def that_decide(self) -> dict[str, Any]:
        """The settings that the result depends on."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "checkpoint_every"}
