"""The model's most likely next tokens, as stored in a graph's metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

TOP_PREDICTIONS = "top_predictions"
"""The key of the predictions in the metadata of a graph and of its files."""
COUNT = 10


def top_predictions(
    logits: torch.Tensor, decode: Callable[[int], str], count: int = COUNT
) -> list[dict[str, Any]]:
    """The most likely next tokens, most likely first, as `{"token", "id", "probability"}`.

    Args:
        logits: `(vocab)`, of the last position.
        decode: Returns a token's text.
        count: How many, or all if there are fewer.
    """
    probabilities = torch.softmax(logits.detach().cpu().double(), dim=-1)
    top, ids = torch.topk(probabilities, min(count, len(probabilities)))
    return [
        {"token": decode(token), "id": token, "probability": round(probability, 9)}
        for token, probability in zip(ids.tolist(), top.tolist(), strict=True)
    ]


def predictions_of(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The predictions that a graph contains; empty if it has none or they are malformed."""
    found = metadata.get(TOP_PREDICTIONS)
    return found if isinstance(found, list) and all(map(_is_prediction, found)) else []


def _is_prediction(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    token, number, share = (entry.get(name) for name in ("token", "id", "probability"))
    return isinstance(token, str) and type(number) is int and type(share) in (int, float)
