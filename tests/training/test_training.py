"""The trainers on tiny settings: they learn, resume exactly, and what they export is what was trained."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from training.activations import Activations, collect
from training.build import entity_names
from training.corpus import Corpus, Sentence, build_corpus
from training.dataset import AnswerTable, Rows, make_rows
from training.model import DemoTransformer, Shape, export_model, import_model
from training.model_training import ModelRecipe, ModelTrainer
from training.shipped import ShippedSet, export_transcoders
from training.tokenizer import build_tokenizer
from training.transcoder_training import TranscoderRecipe, TranscoderTrainer

pytestmark = pytest.mark.long

RECIPE = ModelRecipe(steps=4, batch=16, interchange_from=1)


class Setting:
    """A few sentences as rows, with a tiny model for them."""

    def __init__(self) -> None:
        corpus: Corpus = build_corpus()
        self.tokenizer = build_tokenizer(corpus.texts(), entity_names(corpus))
        self.table = AnswerTable(corpus, self.tokenizer)
        self.sentences: list[Sentence] = list(itertools.islice(corpus.splits["train"], 0, None, 200))
        self.rows: Rows = make_rows(self.sentences, self.table, self.tokenizer)

    def model(self) -> DemoTransformer:
        torch.manual_seed(0)
        return DemoTransformer(Shape(len(self.tokenizer), layers=3, width=32, heads=2, hidden=48))

    def trainer(self) -> ModelTrainer:
        return ModelTrainer(self.model(), self.rows, self.table, RECIPE)


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting()


def ignore(step: int, steps: int, losses: str) -> None:
    """A report that goes nowhere."""


def test_names_of_several_words_are_one_token(setting: Setting) -> None:
    ids = setting.tokenizer.encode("I live in New York.")
    assert [setting.tokenizer.decode([i]) for i in ids] == ["<bos>", "I", " live", " in", " New York", "."]


def test_model_training_resumes_exactly(setting: Setting, tmp_path: Path) -> None:
    whole = setting.trainer()
    whole.run(ignore)
    first = setting.trainer()
    for _ in range(2):
        first.step()
        first.step_number += 1
    first.save(tmp_path / "model.pt")
    second = setting.trainer()
    second.load(tmp_path / "model.pt")
    second.run(ignore)
    for ours, theirs in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_exported_model_computes_the_same(setting: Setting, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = setting.model()
    model.load_state_dict({k: v.bfloat16().float() for k, v in model.state_dict().items()})
    export_model(model, tmp_path)
    ids = setting.rows.ids[:5]
    with torch.no_grad():
        ours = model(ids).logits
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)(ids).logits
        again = import_model(tmp_path)(ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, again)


@pytest.fixture(scope="module")
def activations(setting: Setting) -> Activations:
    return collect(setting.model().eval(), setting.rows, setting.sentences)


def test_each_prefix_is_collected_once(setting: Setting, activations: Activations) -> None:
    prefixes = {
        tuple(tokens[: end + 1])
        for tokens, length in zip(setting.rows.ids.tolist(), setting.rows.lengths.tolist(), strict=True)
        for end in range(1, length - 1)
    }
    assert activations.inputs.shape == activations.outputs.shape == (3, len(prefixes), 32)


@pytest.mark.parametrize("cross_layer", [True, False])
def test_transcoders_learn_and_survive_export(
    cross_layer: bool, activations: Activations, tmp_path: Path
) -> None:
    recipe = TranscoderRecipe(cross_layer, features=64, steps=60, batch=64, resample_every=20)
    trainer = TranscoderTrainer(activations, recipe)
    losses: list[float] = []
    trainer.run(lambda step, steps, message: losses.append(float(message.split()[1])))
    assert losses[-1] < 0.7 * losses[0]
    trainer.model.bfloat16().float()
    export_transcoders(trainer.model, torch.ones(3), tmp_path, cross_layer)
    shipped = ShippedSet.load(tmp_path)
    with torch.no_grad():
        expected, _, masks = trainer.model(activations.inputs[:, :50])
        acts = [shipped.encode(x, layer) for layer, x in enumerate(activations.inputs[:, :50])]
    for layer in range(3):
        torch.testing.assert_close(acts[layer] != 0, masks[layer])
        torch.testing.assert_close(shipped.decode(acts, layer), expected[layer], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cross_layer", [True, False])
def test_transcoder_training_resumes_exactly(
    cross_layer: bool, activations: Activations, tmp_path: Path
) -> None:
    recipe = TranscoderRecipe(cross_layer, features=32, steps=30, batch=32, resample_every=10)
    whole, first, second = (TranscoderTrainer(activations, recipe) for _ in range(3))
    whole.run(ignore)
    for _ in range(14):
        first.step()
        first.step_number += 1
    first.save(tmp_path / "set.pt")
    second.load(tmp_path / "set.pt")
    second.run(ignore)
    for ours, theirs in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
