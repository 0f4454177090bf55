"""Sentences as padded tensors, with what interchange training needs to know about each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from training.corpus import Corpus, Sentence

# Share of each task in a training batch.
TASK_SHARES = {
    "city": 0.16,
    "attribute": 0.10,
    "two_hop": 0.27,
    "antonym": 0.17,
    "translation": 0.13,
    "agreement": 0.04,
    "gender": 0.04,
    "induction": 0.09,
}


@dataclass
class Rows:
    """Token ids padded with `<eos>`; per row: length, answer and entity position, kind, concept, relation."""

    ids: Tensor
    lengths: Tensor
    answer_at: Tensor
    entity_at: Tensor
    kind: Tensor
    concept: Tensor
    relation: Tensor
    weight: Tensor

    def select(self, index: Tensor) -> Rows:
        """The chosen rows, cut to the longest of them."""
        lengths = self.lengths[index]
        return Rows(
            self.ids[index, : int(lengths.max())],
            lengths,
            self.answer_at[index],
            self.entity_at[index],
            self.kind[index],
            self.concept[index],
            self.relation[index],
            self.weight[index],
        )


class AnswerTable:
    """Which token answers (relation, concept); relations of all kinds are numbered in one list."""

    def __init__(self, corpus: Corpus, tokenizer: PreTrainedTokenizerFast) -> None:
        self.kinds = tuple(corpus.answers)
        self.relations = tuple((kind, name) for kind in self.kinds for name in corpus.answers[kind])
        widest = max(len(names) for names in corpus.names.values())
        self.tokens = torch.full((len(self.relations), widest), -1)
        self.lens = torch.full((len(self.kinds), widest), -1)
        for row, (kind, name) in enumerate(self.relations):
            answers = corpus.answers[kind][name]
            self.tokens[row, : len(answers)] = torch.tensor([answer_id(tokenizer, word) for word in answers])
        for row, kind in enumerate(self.kinds):
            names = [answer_id(tokenizer, word) for word in corpus.names[kind]]
            self.lens[row, : len(names)] = torch.tensor(names)

    def mean_answer(self, vocabulary: int) -> Tensor:
        """Per relation, the distribution of the answer when nothing is known about the concept."""
        table = torch.zeros(len(self.relations), vocabulary)
        for row, answers in enumerate(self.tokens):
            known = answers[answers >= 0]
            table[row].index_add_(0, known, torch.full((len(known),), 1 / len(known)))
        return table


def answer_id(tokenizer: PreTrainedTokenizerFast, word: str) -> int:
    """The token of a word with a space in front."""
    index = tokenizer.convert_tokens_to_ids(f" {word}")
    if not isinstance(index, int) or index == tokenizer.unk_token_id:
        raise ValueError(f"{word!r} is not a single token of the demo's tokenizer")
    return index


def make_rows(sentences: Sequence[Sentence], table: AnswerTable, tokenizer: PreTrainedTokenizerFast) -> Rows:
    """Tokenise sentences, each ending in `<eos>`."""
    texts, heads = [sentence.text for sentence in sentences], [sentence.prompt for sentence in sentences]
    token_lists = [[*tokens, tokenizer.eos_token_id] for tokens in tokenizer(texts)["input_ids"]]
    prompts = [len(tokens) for tokens in tokenizer(heads)["input_ids"]]
    longest = max(map(len, token_lists))
    ids = torch.full((len(sentences), longest), tokenizer.eos_token_id)
    for row, tokens in enumerate(token_lists):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    entity_at = [
        tokens.index(answer_id(tokenizer, sentence.entity)) if sentence.entity else -1
        for tokens, sentence in zip(token_lists, sentences, strict=True)
    ]
    number = {relation: index for index, relation in enumerate(table.relations)}
    return Rows(
        ids=ids,
        lengths=torch.tensor([len(tokens) for tokens in token_lists]),
        answer_at=torch.tensor(prompts),
        entity_at=torch.tensor(entity_at),
        kind=torch.tensor([table.kinds.index(s.kind) if s.kind else -1 for s in sentences]),
        concept=torch.tensor([s.concept for s in sentences]),
        relation=torch.tensor([number.get((s.kind, s.relation), -1) for s in sentences]),
        weight=_sampling_weights(sentences),
    )


def _sampling_weights(sentences: Sequence[Sentence]) -> Tensor:
    counts: dict[str, int] = {}
    for sentence in sentences:
        counts[sentence.task] = counts.get(sentence.task, 0) + 1
    return torch.tensor([TASK_SHARES[s.task] / counts[s.task] for s in sentences])
