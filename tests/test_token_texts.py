"""Tokens as they stand in text: SentencePiece spaces, bytes, ids without text; and targets found by that."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from circuit_tracer_cli.attribution.targets import TokenReader
from circuit_tracer_cli.errors import BadTarget
from circuit_tracer_cli.tokens import TokenTexts, ensure_tokenized

PIECES = [
    "<unk>",
    "<s>",
    "</s>",
    "<0xE2>",
    "<0x0A>",
    "▁",
    "▁is",
    "is",
    "▁Paris",
    "Paris",
    "▁The",
    "s",
    "i",
    "▁▁",
]


@functools.cache
def sentencepiece() -> Any:
    """A tokenizer like Llama 2's: a space first, bytes as fallback, a decoder that drops the first space."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = [(piece, -float(number)) for number, piece in enumerate(PIECES)]
    inner = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize(
    ("piece", "text"),
    [
        ("▁is", " is"),
        ("is", "is"),
        ("▁", " "),
        ("▁▁", "  "),
        ("<0xE2>", "\\xe2"),
        ("<0x0A>", "\n"),
        ("<s>", "<s>"),
    ],
)
def test_a_token_is_shown_as_it_stands_in_text(piece: str, text: str) -> None:
    assert TokenTexts(sentencepiece())[PIECES.index(piece)] == text


def test_no_two_tokens_look_the_same_and_padded_ids_have_names() -> None:
    texts = TokenTexts(sentencepiece()).of(range(len(PIECES) + 3))
    assert len(set(texts)) == len(texts)
    assert texts[-1] == f"⟨{len(PIECES) + 2}⟩"
    assert all(texts)


@pytest.mark.parametrize(
    ("target", "piece", "noted"),
    [(" Paris", "▁Paris", False), ("Paris", "Paris", False), ("The", "▁The", True), (" is", "▁is", False)],
)
def test_targets_are_found_by_how_they_stand_in_text(target: str, piece: str, noted: bool) -> None:
    notes: list[str] = []
    assert TokenReader(sentencepiece(), len(PIECES)).single_token(target, notes.append) == PIECES.index(piece)
    assert bool(notes) is noted
    if noted:
        assert notes == [f"target {target!r} is read as ' {target}' (token {PIECES.index(piece)})"]


def test_several_tokens_are_still_refused() -> None:
    with pytest.raises(BadTarget, match=r"is \d tokens"):
        TokenReader(sentencepiece(), len(PIECES)).single_token(" sis is", lambda note: None)


def test_a_prompt_shows_its_spaces() -> None:
    tokens = ensure_tokenized("The Paris is", sentencepiece())
    assert tokens.strings == ("<s>", " The", " Paris", " is")
