"""Numbers that notebooks ask for again and again."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from circuit_tracer_cli.errors import InvalidValue

if TYPE_CHECKING:
    from torch import Tensor

    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.replacement import ReplacementModel


def get_top_features(graph: Graph, n: int = 10) -> tuple[list[tuple[int, int, int]], list[float]]:
    """The `n` features with the largest influence on the targets, as `(layer, pos, feature)`, and that influence."""
    from circuit_tracer_cli.graph.influence import compute_node_influence

    influence = compute_node_influence(graph.edges, graph.logit_weights)[: graph.layout.n_features]
    best = influence.topk(min(max(n, 0), len(influence)))
    places = graph.active_features[graph.selected_features][best.indices.to(graph.active_features.device)]
    return [(int(a), int(b), int(c)) for a, b, c in places.tolist()], best.values.tolist()


def get_topk(logits: Tensor, tokenizer: Any, k: int = 5) -> list[tuple[str, float]]:
    """The `k` likeliest next tokens and their probabilities, from logits `(vocab)`, `(pos, vocab)` or `(1, pos, vocab)`."""
    probabilities = last_row(logits).softmax(-1)
    best = probabilities.topk(min(k, len(probabilities)))
    return [
        (str(tokenizer.decode([int(index)])), float(value))
        for value, index in zip(best.values, best.indices, strict=True)
    ]


def get_unembed_vecs(model: ReplacementModel, token_ids: Sequence[int], backend: str = "") -> list[Tensor]:
    """Unembedding vectors `(d_model)` of tokens. Raises InvalidValue for an id outside the vocabulary."""
    for index in token_ids:
        if not 0 <= index < model.W_U.shape[1]:
            raise InvalidValue(f"token id {index} lies outside the vocabulary of {model.W_U.shape[1]}")
    return [model.W_U[:, index] for index in token_ids]


def cleanup_cuda() -> None:
    """Gives memory that nothing uses any more back to the GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def last_row(logits: Tensor) -> Tensor:
    """Logits `(vocab)` at the last position, in float64 on the CPU."""
    return logits.reshape(-1, logits.shape[-1])[-1].detach().double().cpu()
