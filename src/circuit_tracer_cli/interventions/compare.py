"""What edits changed: the likeliest tokens before and after. Knows logits only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenChange:
    """One token before and after.

    Attributes:
        token: Its id.
        text: Decoded alone.
        before, after: Its probability.
        logit_before, logit_after: Its logit.
        rank_before, rank_after: Its place among all tokens, from 1.
    """

    token: int
    text: str
    before: float
    after: float
    logit_before: float
    logit_after: float
    rank_before: int
    rank_after: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The next token's distribution before and after.

    Attributes:
        tokens: The likeliest of either, and tokens asked for, by probability afterwards.
        kl: KL(before ‖ after) in nats.
    """

    tokens: tuple[TokenChange, ...]
    kl: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)


def compare(
    before: Tensor, after: Tensor, tokenizer: Any, top_k: int = 5, also: Sequence[int] = ()
) -> Comparison:
    """Compare two rows of logits `(vocab)`: the `top_k` likeliest tokens of each, and the ids `also`."""
    logits = torch.stack([before, after]).double().cpu()
    log_probabilities = logits.log_softmax(-1)
    probabilities = log_probabilities.exp()
    order = logits.argsort(dim=-1, descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(1, logits.shape[1] + 1).expand_as(order))
    wanted = dict.fromkeys([*order[1, :top_k].tolist(), *order[0, :top_k].tolist(), *also])
    changes = [
        TokenChange(
            token=token,
            text=str(tokenizer.decode([token])) if tokenizer is not None else f"⟨{token}⟩",
            before=float(probabilities[0, token]),
            after=float(probabilities[1, token]),
            logit_before=float(logits[0, token]),
            logit_after=float(logits[1, token]),
            rank_before=int(ranks[0, token]),
            rank_after=int(ranks[1, token]),
        )
        for token in wanted
    ]
    kl = float((probabilities[0] * (log_probabilities[0] - log_probabilities[1])).sum())
    return Comparison(tuple(sorted(changes, key=lambda change: change.rank_after)), max(0.0, kl))
