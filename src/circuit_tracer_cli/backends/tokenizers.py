"""Loads a model's tokenizer, without its weights."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

from circuit_tracer_cli.backends.checkpoint import in_one_line
from circuit_tracer_cli.errors import BadModel

_VOCABULARIES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
    "spiece.model",
)


@functools.lru_cache(maxsize=4)
def load_tokenizer(model_name: str, revision: str | None = None) -> Any:
    """The tokenizer of a local folder or of a model on the hub at `revision`. Raises BadModel."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model_name, revision=revision)
    except MemoryError:
        raise
    except Exception as error:  # the library has no error of its own for invalid files
        local = Path(model_name).is_dir()
        raise BadModel(
            f"the tokenizer of {model_name!r} can't be loaded: {_broken_file(model_name) or in_one_line(error)}",
            hint="download its tokenizer.json and tokenizer_config.json again"
            if local
            else "use the model's folder with --model, or log in with `hf auth login` for a gated model",
        ) from error


def _broken_file(model_name: str) -> str | None:
    """Return what is wrong with a local folder's files: no tokenizer, or one that isn't a JSON object."""
    if Path(model_name).is_dir() and not any((Path(model_name) / name).is_file() for name in _VOCABULARIES):
        return "the folder has no tokenizer.json"
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        path = Path(model_name) / name
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except RecursionError:
            return f"{name} is nested too deeply"
        except (OSError, ValueError) as error:
            return f"{name} is not JSON ({error})" if path.stat().st_size else f"{name} is empty"
        if not isinstance(content, dict):
            return (
                f"{name} contains {'null' if content is None else type(content).__name__}, not a JSON object"
            )
    return None
