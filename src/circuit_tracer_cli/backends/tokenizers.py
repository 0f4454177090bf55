"""Loads a model's tokenizer, without its weights."""

from __future__ import annotations

import functools
import os
from typing import Any

from circuit_tracer_cli.errors import BadModel


@functools.lru_cache(maxsize=4)
def load_tokenizer(model_name: str, revision: str | None = None) -> Any:
    """The tokenizer of a local folder or a model of the hub, there at `revision`. Raises BadModel."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model_name, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BadModel(
            f"the tokenizer of {model_name!r} can't be loaded: {first}",
            hint="name the model's folder with --model, or log in with `hf auth login` for a gated model",
        ) from error
