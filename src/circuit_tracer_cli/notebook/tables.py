"""Tables for notebooks: tokens before and after, generations, features. Each returns an object that displays itself."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.notebook.html import Html, bar, beside, table, text, token
from circuit_tracer_cli.tokens import TokenTexts

if TYPE_CHECKING:
    from torch import Tensor

    from circuit_tracer_cli.attribution.targets import CustomTarget
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
    """The `k` most likely next tokens and their probabilities, from logits `(vocab)`, `(pos, vocab)` or `(1, pos, vocab)`."""
    probabilities = last_row(logits).softmax(-1)
    texts = TokenTexts(tokenizer)
    best = probabilities.topk(min(k, len(probabilities)))
    return [(texts[int(index)], float(value)) for value, index in zip(best.values, best.indices, strict=True)]


def get_unembed_vecs(model: ReplacementModel, token_ids: Sequence[int], backend: str = "") -> list[Tensor]:
    """Unembedding vectors `(d_model)` of tokens. Raises InvalidValue for an id outside the vocabulary."""
    for index in token_ids:
        if not 0 <= index < model.W_U.shape[1]:
            raise InvalidValue(f"token id {index} is outside the vocabulary of {model.W_U.shape[1]}")
    return [model.W_U[:, index] for index in token_ids]


def cleanup_cuda() -> None:
    """Return unused memory to the GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def last_row(logits: Tensor) -> Tensor:
    """Logits `(vocab)` at the last position, in float64 on the CPU."""
    return logits.reshape(-1, logits.shape[-1])[-1].detach().double().cpu()


_NEURONPEDIA = "https://www.neuronpedia.org"


def display_topk_token_predictions(
    sentence: str,
    original_logits: Tensor,
    new_logits: Tensor,
    tokenizer: Any,
    k: int = 5,
    key_tokens: Sequence[tuple[str, int]] | None = None,
) -> Html:
    """The most likely next tokens before and after an intervention; `key_tokens` are more tokens to compare, `(name, id)`."""
    before, after = get_topk(original_logits, tokenizer, k), get_topk(new_logits, tokenizer, k)
    most = max(probability for _, probability in [*before, *after])
    parts = [
        table(
            ("token", "probability", ""),
            [(Html(token(name)), percent(value), bar(value / most, colour)) for name, value in rows],
            title,
        )
        for title, rows, colour in (("before", before, "#8a8780"), ("after", after, "#b3246b"))
    ]
    if key_tokens:
        old, new = last_row(original_logits).softmax(-1), last_row(new_logits).softmax(-1)
        rows = [
            (
                Html(token(name)),
                percent(float(old[i])),
                percent(float(new[i])),
                _relative(float(old[i]), float(new[i])),
            )
            for name, i in key_tokens
        ]
        parts.append(table(("token", "before", "after", "change"), rows, "key tokens"))
    return Html(f"<p>{text(sentence)}</p>") + beside(parts)


def display_token_probs(
    logits: Tensor, token_ids: Sequence[int], labels: Sequence[str], title: str = ""
) -> Html:
    """Probability and logit of tokens at the last position."""
    row = last_row(logits)
    probabilities = row.softmax(-1)
    rows = [
        (Html(token(label)), percent(float(probabilities[i])), f"{float(row[i]):.3f}")
        for label, i in zip(labels, token_ids, strict=True)
    ]
    return table(("token", "probability", "logit"), rows, title)


def display_generations_comparison(
    original_text: str, pre_gens: Sequence[str], post_gens: Sequence[str]
) -> Html:
    """Generations before and after, with the part after the prompt highlighted."""

    def listed(generations: Sequence[str]) -> list[tuple[Html]]:
        return [(Html(_highlighted(original_text, one)),) for one in generations]

    return beside([table(("before",), listed(pre_gens)), table(("after",), listed(post_gens))])


def display_top_features_comparison(
    feature_sets: dict[str, Sequence[tuple[int, int, int]]],
    scores_sets: dict[str, Sequence[float]] | None = None,
    neuronpedia_model: str | None = None,
    neuronpedia_set: str = "gemmascope-transcoder-16k",
) -> Html:
    """Features `(layer, pos, feature)` of several graphs side by side; with a model's name, each links to its page."""
    parts = []
    for name, features in feature_sets.items():
        scores = (scores_sets or {}).get(name)
        if scores is not None and len(scores) != len(features):
            raise InvalidValue(f"{name!r} has {len(features)} features but {len(scores)} scores")
        rows: list[tuple[str | Html, ...]] = [
            (
                _feature_name(layer, position, feature, neuronpedia_model, neuronpedia_set),
                *(() if scores is None else (f"{scores[i]:.4f}",)),
            )
            for i, (layer, position, feature) in enumerate(features)
        ]
        parts.append(table(("feature",) if scores is None else ("feature", "influence"), rows, name))
    return beside(parts)


def display_attribution_config(
    token_pairs: Sequence[tuple[str, int]], target_pairs: Sequence[tuple[str, CustomTarget]]
) -> Html:
    """The tokens and targets of an attribution: `(label, id)` and `(kind, target)`."""
    tokens = table(
        ("token", "id"), [(Html(token(name)), str(index)) for name, index in token_pairs], "tokens"
    )
    rows = [
        (kind, Html(token(target.token_str)), f"{100 * float(target.prob):.3f}%")
        for kind, target in target_pairs
    ]
    return beside([tokens, table(("kind", "target", "weight"), rows, "targets")])


def percent(probability: float) -> str:
    """A probability as a percentage with three decimals, or in powers of ten if that would be zero."""
    return f"{100 * probability:.3f}%" if probability >= 0.001 else f"{probability:.2e}"


def _relative(before: float, after: float) -> str:
    return f"{(after - before) / before:+.1%}" if before > 0 else "–"


def _highlighted(prompt: str, generation: str) -> str:
    if not generation.startswith(prompt):
        return text(generation)
    rest = text(generation[len(prompt) :])
    return f'{text(prompt)}<mark style="background:#fbe9f2;color:inherit">{rest}</mark>'


def _feature_name(layer: int, position: int, feature: int, model: str | None, source: str) -> str | Html:
    name = f"{layer}/{feature}@{position}"
    if model is None:
        return name
    address = text(f"{_NEURONPEDIA}/{model}/{layer}-{source}/{feature}")
    return Html(f'<a href="{address}" target="_blank" rel="noopener">{text(name)}</a>')
