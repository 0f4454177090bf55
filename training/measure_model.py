"""Accuracy and replacement fidelity of the shipped files, per task and split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from training.corpus import DALLAS_PROMPT, Corpus, Sentence, build_corpus, induction_sentences
from training.dataset import AnswerTable, Rows, answer_id, make_rows
from training.model import DemoTransformer, import_model
from training.shipped import ShippedSet

SAMPLE = 400


@dataclass
class Bench:
    """The shipped model with its corpus, and every evaluated group of sentences as rows."""

    model: DemoTransformer
    tokenizer: PreTrainedTokenizerFast
    corpus: Corpus
    table: AnswerTable
    groups: dict[str, tuple[list[Sentence], Rows]]

    @classmethod
    def load(cls, folder: Path) -> Bench:
        """Read the model folder and sample the groups."""
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        corpus = build_corpus()
        table = AnswerTable(corpus, tokenizer)
        groups = {
            name: (chosen, make_rows(chosen, table, tokenizer)) for name, chosen in _groups(corpus).items()
        }
        return cls(import_model(folder), tokenizer, corpus, table, groups)


def _groups(corpus: Corpus) -> dict[str, list[Sentence]]:
    generator = torch.Generator().manual_seed(5)

    def sample(sentences: Sequence[Sentence]) -> list[Sentence]:
        order = torch.randperm(len(sentences), generator=generator)[:SAMPLE]
        return [sentences[i] for i in order.tolist()]

    trained = {
        task: sample([s for s in corpus.splits["train"] if s.task == task])
        for task in ("city", "attribute", "two_hop", "antonym", "translation")
    }
    return {
        **trained,
        "two_hop held pairs": sample(corpus.splits["pairs"]),
        "two_hop held cities": sample(corpus.splits["cities"]),
        "antonym held": corpus.splits["words"],
        "agreement held": corpus.splits["agreement"],
        "induction held": induction_sentences(99, 300),
    }


def answer_logits(bench: Bench, rows: Rows, replaced: ShippedSet | None = None) -> Tensor:
    """Logits at the position that predicts the answer, with the MLPs replaced if a set is given."""
    with torch.no_grad():
        trace = bench.model(rows.ids, replaced.replacing() if replaced is not None else None)
    answers: Tensor = trace.logits[torch.arange(len(rows.ids)), rows.answer_at - 1]
    return answers


def accuracy(bench: Bench) -> dict[str, float]:
    """Share of right answers per group."""
    return {name: _share_right(answer_logits(bench, rows), rows) for name, (_, rows) in bench.groups.items()}


def _share_right(logits: Tensor, rows: Rows) -> float:
    wanted = rows.ids[torch.arange(len(rows.ids)), rows.answer_at]
    return (logits.argmax(-1) == wanted).float().mean().item()


def dallas_probability(bench: Bench) -> float:
    """p(Austin) on the first example prompt."""
    ids = torch.tensor([bench.tokenizer.encode(DALLAS_PROMPT)])
    with torch.no_grad():
        probabilities = bench.model(ids).logits[0, -1].softmax(-1)
    return float(probabilities[answer_id(bench.tokenizer, "Austin")])


def replacement(bench: Bench, transcoders: ShippedSet) -> dict[str, dict[str, float]]:
    """Per group: accuracy with every MLP replaced, and KL from the model in nats."""
    figures = {}
    for name, (_, rows) in bench.groups.items():
        original, replaced = answer_logits(bench, rows), answer_logits(bench, rows, transcoders)
        divergence = F.kl_div(
            replaced.log_softmax(-1), original.log_softmax(-1), log_target=True, reduction="none"
        )
        figures[name] = {"accuracy": _share_right(replaced, rows), "kl": divergence.sum(-1).mean().item()}
    return figures


def reconstruction(bench: Bench, transcoders: ShippedSet) -> dict[str, dict[str, list[float]]]:
    """Per group and layer: FVU and active features at the answer position; `overall` is all positions together.

    Position 0 and the closing `<eos>`, after which nothing is predicted, are left out.
    """
    figures: dict[str, dict[str, list[float]]] = {}
    pooled: list[tuple[Tensor, Tensor, Tensor]] = []
    for name, (_, rows) in bench.groups.items():
        outputs, rebuilt, active = _rebuild(bench, rows, transcoders)
        at = (torch.arange(len(rows.ids)), rows.answer_at - 1)
        figures[name] = _fidelity(outputs[:, *at], rebuilt[:, *at], active[:, *at])
        positions = torch.arange(rows.ids.shape[1])
        real = (positions > 0) & (positions < rows.lengths[:, None] - 1)
        pooled.append((outputs[:, real], rebuilt[:, real], active[:, real]))
    figures["overall"] = _fidelity(*(torch.cat(parts, dim=1) for parts in zip(*pooled, strict=True)))
    return figures


def _rebuild(bench: Bench, rows: Rows, transcoders: ShippedSet) -> tuple[Tensor, Tensor, Tensor]:
    """True outputs, reconstructions and numbers of active features, each with layers first."""
    with torch.no_grad():
        trace = bench.model(rows.ids)
        activations = [transcoders.encode(x, layer) for layer, x in enumerate(trace.mlp_inputs)]
        rebuilt = torch.stack([transcoders.decode(activations, layer) for layer in range(len(activations))])
        counts = torch.stack([(a > 0).sum(-1).float() for a in activations])
    return torch.stack(trace.mlp_outputs), rebuilt, counts


def _fidelity(outputs: Tensor, rebuilt: Tensor, active: Tensor) -> dict[str, list[float]]:
    spread = (outputs - outputs.mean(1, keepdim=True)).square().sum((1, 2))
    return {
        "fvu": ((outputs - rebuilt).square().sum((1, 2)) / spread).tolist(),
        "active": active.mean(1).tolist(),
    }


def feature_use(bench: Bench, transcoders: ShippedSet) -> dict[str, list[float]]:
    """Per layer: share of features never active on a sample of all sentences, and number active on over half."""
    sentences = [s for split in bench.corpus.splits.values() for s in split]
    generator = torch.Generator().manual_seed(6)
    chosen = [sentences[i] for i in torch.randperm(len(sentences), generator=generator)[:4000].tolist()]
    counts, total = torch.zeros(()), 0
    for start in range(0, len(chosen), 500):
        rows = make_rows(chosen[start : start + 500], bench.table, bench.tokenizer)
        positions = torch.arange(rows.ids.shape[1])
        real = (positions > 0) & (positions < rows.lengths[:, None])
        with torch.no_grad():
            inputs = bench.model(rows.ids).mlp_inputs
            parts = [transcoders.encode(x[real], layer).gt(0).sum(0) for layer, x in enumerate(inputs)]
        counts = counts + torch.stack(parts).float()
        total += int(real.sum())
    frequency = counts / total
    return {
        "never active": (frequency == 0).float().mean(1).tolist(),
        "on over half": (frequency > 0.5).sum(1).float().tolist(),
    }
