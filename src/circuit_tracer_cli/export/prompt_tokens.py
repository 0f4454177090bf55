"""What the prompt's tokens look like, for graphs that say so and for those that don't."""

from __future__ import annotations

import warnings

from circuit_tracer_cli.graph.graph import Graph

_UNAVAILABLE = (ImportError, OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError)


def prompt_tokens_of(graph: Graph) -> list[str]:
    """Each prompt token decoded: from the graph itself, else by the tokenizer that it names, else `⟨id⟩` with a warning."""
    if graph.prompt_tokens is not None:
        return graph.prompt_tokens
    ids = graph.input_tokens.tolist()
    decoded = _decoded(graph.cfg.tokenizer_name, ids)
    if decoded is not None:
        return decoded
    warnings.warn(
        f"the graph doesn't hold its tokens as text and the tokenizer {graph.cfg.tokenizer_name!r} can't be loaded;"
        " tokens are shown by number",
        stacklevel=2,
    )
    return [f"⟨{token}⟩" for token in ids]


def _decoded(name: str, ids: list[int]) -> list[str] | None:
    if not name:
        return None
    try:
        from transformers import AutoTokenizer

        from circuit_tracer_cli.tokens import TokenTexts

        tokenizer = AutoTokenizer.from_pretrained(name)
        return TokenTexts(tokenizer).of(ids)
    except _UNAVAILABLE:
        return None
