"""Documents as sequences, token texts with partial characters, and batches that change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from circuit_tracer_cli.errors import BadPrompt
from circuit_tracer_cli.features.sequences import Sequencer, feature_inputs, make_batch
from circuit_tracer_cli.tokens import TokenTexts
from tests.builders import replacement


class Spelling:
    """A tokenizer whose tokens are given by their own spelling."""

    def __init__(self, *tokens: tuple[str, str]) -> None:
        self.tokens = tokens

    def decode(self, ids: list[int]) -> str:
        return self.tokens[ids[0]][1]

    def convert_ids_to_tokens(self, token: int) -> str:
        return self.tokens[token][0]


@pytest.mark.parametrize(
    ("spelling", "decoded", "expected"),
    [
        ("Ġthe", " the", " the"),
        ("ðŁĺ", "\ufffd", "\\xf0\\x9f\\x98"),
        ("ĠðŁ", " \ufffd", " \\xf0\\x9f"),
        ("<0xE2>", "\ufffd", "\\xe2"),
        ("\ufffd", "\ufffd", "\ufffd"),
    ],
)
def test_partial_characters_are_escaped(spelling: str, decoded: str, expected: str) -> None:
    tokenizer: Any = Spelling((spelling, decoded))
    assert TokenTexts(tokenizer)[0] == expected


def test_long_documents_are_cut() -> None:
    model = replacement("llama", "plt")
    numbers = [n for n in range(22, 48) if not {"0", "1"} & set(str(n))]  # special tokens stand apart
    pieces = list(Sequencer(model, 10).sequences(" ".join(map(str, numbers))))
    assert [len(piece) for piece in pieces] == [10, 10, 5]
    assert [int(token) for piece in pieces for token in piece.ids[1:]] == numbers
    assert all(int(piece.ids[0]) == 0 for piece in pieces)
    assert len(next(Sequencer(model, 10_000).sequences("22 " * 500))) == model.model.shape.n_ctx


def test_half_a_character_is_refused() -> None:
    with pytest.raises(BadPrompt, match="a lone surrogate"):
        list(Sequencer(replacement("llama", "plt"), 10).sequences("a \ud800"))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_oss", "gpt_neox"])
def test_padding_changes_nothing(family: str) -> None:
    model = replacement(family, "plt")
    sequences = [model.tokenize([0, *ids]) for ids in ([5, 6, 7, 8, 9], [7], [9, 3, 9])]
    together = feature_inputs(model, sequences, range(model.transcoders.n_layers))
    for layer, x in together.items():
        frozen = [model.frozen_pass(tokens.ids).layers[layer].feature_input for tokens in sequences]
        torch.testing.assert_close(x, torch.cat(frozen), rtol=1e-4, atol=1e-5)


def test_a_batch_knows_its_sequences() -> None:
    model = replacement("llama", "plt")
    sequences = [model.tokenize([0, 5, 6]), model.tokenize([0, 5])]
    batch = make_batch(sequences, 100, left=2)
    assert batch.tokens.tolist() == [0, 5, 6, 0, 5]
    assert batch.starts.tolist() == [100, 103]
    assert batch.sequence.tolist() == [0, 0, 0, 1, 1]
    assert batch.zeroed.tolist() == [True, False, False, True, False]
    assert batch.hashes[1] == batch.hashes[4]
    assert len(np.unique(batch.hashes)) == 3
