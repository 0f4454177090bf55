"""What can be explained: every form of target, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from circuit_tracer_cli.attribution import targets as targets_module
from circuit_tracer_cli.attribution.targets import AttributionTargets, CustomTarget, Unembedding
from circuit_tracer_cli.errors import BadTarget, InvalidValue

VOCABULARY, D_MODEL = 100, 8
WORDS = {
    **{word: [1] for word in ("Austin", "Rome", " Rome")},
    **{" Austin": [7], " Dallas": [9], "id": [3], " -": [4], "Paris": [11], " Paris": [12], "": []},
}
SPOKEN = {7: " Austin", 9: " Dallas", 11: "Paris", 12: " Paris"}


class Words:
    """A tokenizer of a few words; everything else is three tokens."""

    vocab_size = 90
    unk_token_id = 1
    unk_token = "<unk>"

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return WORDS.get(text, [1, 2, 3])

    def decode(self, ids: list[int]) -> str:
        return SPOKEN.get(ids[0], f"<{ids[0]}>")


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(0)) * 2


@pytest.fixture
def W_U() -> torch.Tensor:
    return torch.randn(VOCABULARY, D_MODEL, generator=torch.Generator().manual_seed(1))


def targets(given: Any, logits: torch.Tensor, W_U: torch.Tensor, **kwargs: Any) -> AttributionTargets:
    return AttributionTargets(given, logits, W_U, Words(), **kwargs)


def test_salient_targets_reach_the_probability_with_as_few_as_possible(
    logits: torch.Tensor, W_U: torch.Tensor
) -> None:
    found = targets(None, logits, W_U, max_n_logits=50, desired_logit_prob=0.8)
    probabilities = torch.softmax(logits, 0)
    assert float(found.logit_probabilities.sum()) >= 0.8 > float(found.logit_probabilities[:-1].sum())
    assert found.token_ids.tolist() == probabilities.argsort(descending=True)[: len(found)].tolist()
    torch.testing.assert_close(found.logit_probabilities, probabilities[found.token_ids])
    torch.testing.assert_close(found.logit_vectors, W_U[found.token_ids] - W_U.mean(0))
    assert found.vocab_size == 90
    assert found.tokens == [SPOKEN.get(i, f"<{i}>") for i in found.token_ids.tolist()]


def test_salient_targets_stop_at_the_most_that_are_wanted(logits: torch.Tensor, W_U: torch.Tensor) -> None:
    assert len(targets(None, logits, W_U, max_n_logits=3, desired_logit_prob=1.0)) == 3


@pytest.mark.parametrize("most", [0, -1, VOCABULARY + 1])
def test_more_targets_than_tokens_are_refused(most: int, logits: torch.Tensor, W_U: torch.Tensor) -> None:
    with pytest.raises(InvalidValue, match="max_n_logits"):
        targets(None, logits, W_U, max_n_logits=most)


def test_the_unembedding_may_come_in_either_orientation(logits: torch.Tensor, W_U: torch.Tensor) -> None:
    ids = torch.tensor([5, 2])
    torch.testing.assert_close(
        targets(ids, logits, W_U).logit_vectors, targets(ids, logits, W_U.T).logit_vectors
    )


def test_ids_keep_their_order_and_may_repeat(logits: torch.Tensor, W_U: torch.Tensor) -> None:
    assert targets(torch.tensor([5, 2, 5]), logits, W_U).token_ids.tolist() == [5, 2, 5]


def test_strings_are_read_exactly_or_after_a_space(logits: torch.Tensor, W_U: torch.Tensor) -> None:
    notes: list[str] = []
    found = targets(["Paris", "Austin", "id:42"], logits, W_U, note=notes.append)
    assert found.token_ids.tolist() == [11, 7, 42]
    assert notes == ["target 'Austin' is read as ' Austin' (token 7)"]


def test_a_bare_string_is_one_target(logits: torch.Tensor, W_U: torch.Tensor) -> None:
    assert targets("Austin", logits, W_U).token_ids.tolist() == [7]


def test_a_difference_by_name(logits: torch.Tensor, W_U: torch.Tensor) -> None:
    found = targets(["Austin - Dallas"], logits, W_U)
    p = torch.softmax(logits, 0)
    assert found.logit_targets == [("Austin - Dallas", VOCABULARY)]
    torch.testing.assert_close(found.logit_vectors[0], W_U[7] - W_U[9])
    assert float(found.logit_probabilities[0]) == pytest.approx(max(abs(float(p[7] - p[9])), 1e-6), rel=1e-4)


def test_equal_probabilities_still_have_a_weight(W_U: torch.Tensor) -> None:
    assert float(
        targets(["Austin - Dallas"], torch.zeros(VOCABULARY), W_U).logit_probabilities[0]
    ) == pytest.approx(1e-6)


def test_custom_directions_are_taken_as_given(logits: torch.Tensor, W_U: torch.Tensor) -> None:
    given = [CustomTarget("a", 0.7, W_U[1] - W_U[2]), ("b", 1, W_U[3])]
    found = targets(given, logits, W_U)
    assert found.token_ids.tolist() == [VOCABULARY, VOCABULARY + 1]
    assert found.token_ids.dtype == torch.int64
    assert found.logit_probabilities.tolist() == pytest.approx([0.7, 1.0])
    torch.testing.assert_close(found.logit_vectors, torch.stack([W_U[1] - W_U[2], W_U[3]]))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, "cannot be empty"),
        (torch.tensor([], dtype=torch.int64), ValueError, "cannot be empty"),
        (torch.tensor([3, 100, -1]), ValueError, r"\[100, -1\]"),
        (torch.tensor([0.5]), TypeError, "integers"),
        ([42], TypeError, "int"),
        (42, TypeError, "int"),
        (["nonsense"], ValueError, "is 3 tokens"),
        (["id:x"], ValueError, "no number"),
        (["Rome"], ValueError, "the tokenizer has no token for"),
        (["Austin -  Austin"], ValueError, "minus itself"),
        (["\ud800"], ValueError, "contains a lone surrogate"),
        ([" Austin - \udcff"], ValueError, "contains a lone surrogate"),
        (["id:100"], ValueError, "outside the vocabulary"),
        (["Austin", "Austin - Dallas"], ValueError, "mixed"),
        (["Austin", ("b", 1.0, torch.zeros(D_MODEL))], TypeError, "mixed"),
        ([("b", 1.0)], ValueError, "2 values"),
        ([(1, 1.0, torch.zeros(D_MODEL))], TypeError, "string"),
        ([("b", "1", torch.zeros(D_MODEL))], TypeError, "number"),
        ([("b", 1.0, [0.0])], TypeError, "tensor"),
        ([("b", 1.0, torch.zeros(3))], ValueError, "shape"),
        ([("b", float("nan"), torch.zeros(D_MODEL))], ValueError, "finite"),
    ],
)
def test_what_is_refused(
    given: Any, error: type[Exception], message: str, logits: torch.Tensor, W_U: torch.Tensor
) -> None:
    with pytest.raises(error, match=message) as caught:
        targets(given, logits, W_U)
    assert isinstance(caught.value, BadTarget)


def test_it_looks_readable_and_moves(logits: torch.Tensor, W_U: torch.Tensor) -> None:
    found = targets(torch.tensor([1, 2, 3, 4]), logits, W_U)
    assert repr(found).startswith("AttributionTargets(n=4, targets=[")
    assert repr(found).count("LogitTarget(") == 3
    assert repr(found).endswith("...])")
    assert found.to("cpu") is found


@pytest.mark.parametrize(
    ("given", "likely", "noted"),
    [
        ("Paris", " Paris", True),
        (" Paris", "Paris", True),
        (" Paris", " Paris", False),
        ("a - Paris", " Paris", True),
    ],
)
def test_a_spelling_that_the_model_expects_far_more_is_named(given: str, likely: str, noted: bool) -> None:
    vocabulary = ["a", "Paris", " Paris"]

    class Spellings:
        vocab_size = 3

        def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
            return [vocabulary.index(text)] if text in vocabulary else [0, 0]

        def decode(self, ids: list[int]) -> str:
            return "".join(vocabulary[token] for token in ids)

    notes: list[str] = []
    logits = torch.tensor([1.0 if name != likely else 9.0 for name in vocabulary])
    AttributionTargets([given], logits, torch.eye(3, 4), Spellings(), note=notes.append)
    assert [f'--target "{likely}"' in note for note in notes] == ([True] if noted else [])


@pytest.mark.parametrize("transposed", [False, True])
def test_the_mean_in_parts_has_the_bits_of_the_mean(
    monkeypatch: pytest.MonkeyPatch, transposed: bool
) -> None:
    W_U = torch.randn((600, 3000) if transposed else (3000, 600), generator=torch.Generator().manual_seed(2))
    W_U = W_U.T if transposed else W_U
    monkeypatch.setattr(targets_module, "MEAN_ELEMENTS", 1)
    assert torch.equal(Unembedding(W_U).mean(), W_U.mean(0))
