"""One feature's examples, as read by the viewer. Imports no torch.

The keys are those of the format; `label` is ours: a proposal with its provenance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Label:
    """A short text for a feature, proposed until someone edits it."""

    text: str
    provenance: str  # "auto: …"
    confidence: float  # 0 to 1: the share of the evidence that the text accounts for

    def to_dict(self) -> dict[str, Any]:
        """Return the value for a file."""
        return {"text": self.text, "provenance": self.provenance, "confidence": self.confidence}


@dataclass(frozen=True, slots=True)
class Example:
    """A stretch of text with the feature's activation at every token."""

    tokens: tuple[str, ...]
    tokens_acts_list: tuple[float, ...]  # as long as `tokens`
    train_token_ind: int  # the token that the example is about
    is_repeated_datapoint: bool = False  # also among the top examples

    def to_dict(self) -> dict[str, Any]:
        """Return the value for a file."""
        return {
            "tokens": list(self.tokens),
            "tokens_acts_list": list(self.tokens_acts_list),
            "train_token_ind": self.train_token_ind,
            "is_repeated_datapoint": self.is_repeated_datapoint,
        }


@dataclass(frozen=True, slots=True)
class ExampleGroup:
    """Examples of one range of activations; the first group has the highest."""

    quantile_name: str
    examples: tuple[Example, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the value for a file."""
        return {
            "quantile_name": self.quantile_name,
            "examples": [example.to_dict() for example in self.examples],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRecord:
    """Everything that is known about a feature from text and weights.

    Attributes:
        transcoder_id: The set and the layer.
        index: The feature's number in its layer.
        examples_quantiles: Top examples first, then samples from high to low; none if the feature was never active.
        top_logits, bottom_logits: The tokens that it raises and lowers most, directly.
        act_min, act_max: Smallest and largest activation over all tokens, zero where it isn't active.
        quantile_values: Its activations at the percentiles 1 to 100, over the tokens where it is active.
        histogram: Counts of its activations where it is active, in even steps from `act_min` to `act_max`.
        activation_frequency: The share of tokens at which it is active.
        label: A proposal, or None without enough evidence.
    """

    transcoder_id: str
    index: int
    examples_quantiles: tuple[ExampleGroup, ...] = ()
    top_logits: tuple[str, ...] = ()
    bottom_logits: tuple[str, ...] = ()
    act_min: float = 0.0
    act_max: float = 0.0
    quantile_values: tuple[float, ...] = ()
    histogram: tuple[int, ...] = field(default=())
    activation_frequency: float = 0.0
    label: Label | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the value for a file; the key `label` is absent without a label."""
        values: dict[str, Any] = {
            "transcoder_id": self.transcoder_id,
            "index": self.index,
            "examples_quantiles": [group.to_dict() for group in self.examples_quantiles],
            "top_logits": list(self.top_logits),
            "bottom_logits": list(self.bottom_logits),
            "act_min": self.act_min,
            "act_max": self.act_max,
            "quantile_values": list(self.quantile_values),
            "histogram": list(self.histogram),
            "activation_frequency": self.activation_frequency,
        }
        return values if self.label is None else values | {"label": self.label.to_dict()}
