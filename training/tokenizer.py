"""The demo's tokenizer: whole words, with proper names of several words as one token each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<bos>", "<eos>", "<unk>")
CONTEXT_LENGTH = 64


def build_tokenizer(texts: Iterable[str], names: Iterable[str]) -> PreTrainedTokenizerFast:
    """A WordLevel tokenizer over `texts`; `names` holds the multi-word names that stay whole.

    A word carries the space in front of it, so decoding is the concatenation of the tokens.
    """
    whole = sorted({name for name in names if " " in name}, key=lambda name: (-len(name), name))
    words = "|".join([*map(re.escape, whole), r"[^\W\d_]+"]).replace("\\ ", " ")
    splitter = pre_tokenizers.Split(Regex(rf" ?(?:{words})|\d|[^\w]|_"), "isolated")
    seen = {piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)}
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *sorted(seen)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the tokenizer's files into the model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
