"""Build the embedded demo from nothing: `python -m training.build`.

Stages: train the model, collect its MLP activations, train the cross-layer and the per-layer transcoders,
measure the files, collect feature examples. Each stage leaves a checkpoint in the work folder, so that a second run
goes on where the first one stopped. The same seed on the same machine gives the same files.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from circuit_tracer_cli.demo import DATA
from circuit_tracer_cli.features.build import build_features
from circuit_tracer_cli.features.settings import BuildSettings
from circuit_tracer_cli.replacement import ReplacementModel
from training.activations import Activations, collect
from training.corpus import SEED, Corpus, build_corpus
from training.dataset import AnswerTable, make_rows
from training.evaluate import measure, print_table, write_measured, write_tables
from training.model import DemoTransformer, Shape, export_model, import_model
from training.model_training import ModelRecipe, ModelTrainer
from training.shipped import export_transcoders
from training.tokenizer import build_tokenizer, save_tokenizer
from training.transcoder_training import TranscoderRecipe, TranscoderTrainer

WORK = Path.home() / ".cache" / "circuit-tracer-cli" / "demo-build"
CLT_RECIPE = TranscoderRecipe(cross_layer=True, kept=1040, raises=(1.05, 1.0, 1.2, 1.15, 1.15))
PLT_RECIPE = TranscoderRecipe(
    cross_layer=False,
    raises=(1.15, 1.1, 1.05, 1.08, 1.1),
    refining=1000,
    crowd=14,
    crowd_weight=0.02,
)
EXAMPLES = BuildSettings(context=12, examples=4, quantiles=1, logits=6)
"""Small: all demo files together have to stay under 20 MB in the wheel."""
EXAMPLE_DOCUMENTS = 12_000

console = Console(stderr=True)


@contextmanager
def reporting(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on a terminal, and a line at every hundredth step elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[losses]}"), console=console) as progress:
        task = progress.add_task(title, total=None, losses="")

        def report(step: int, steps: int, losses: str) -> None:
            progress.update(task, completed=step, total=steps, losses=losses)
            if not console.is_terminal and step % 100 == 0:
                console.print(f"{title}: step {step} of {steps}: {losses}")

        yield report


def entity_names(corpus: Corpus) -> list[str]:
    """Every name and answer, so that those of several words become one token."""
    answers = [word for table in corpus.answers.values() for words in table.values() for word in words]
    return answers + [sentence.entity for split in corpus.splits.values() for sentence in split]


def build_model(corpus: Corpus, work: Path, data: Path) -> None:
    """Train and export the model and its tokenizer."""
    recipe = ModelRecipe()
    tokenizer = build_tokenizer(corpus.texts(), entity_names(corpus))
    table = AnswerTable(corpus, tokenizer)
    rows = make_rows(corpus.splits["train"], table, tokenizer)
    torch.manual_seed(recipe.seed)
    trainer = ModelTrainer(DemoTransformer(Shape(len(tokenizer))), rows, table, recipe)
    checkpoint = work / "model.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
    with reporting("model") as report:
        trainer.run(report, checkpoint)
    trainer.save(checkpoint)
    export_model(trainer.model, data / "model")
    save_tokenizer(tokenizer, data / "model")


def collect_activations(corpus: Corpus, data: Path) -> Activations:
    """The exported model's MLP activations on the training sentences."""
    tokenizer = build_tokenizer(corpus.texts(), entity_names(corpus))
    sentences = corpus.splits["train"]
    rows = make_rows(sentences, AnswerTable(corpus, tokenizer), tokenizer)
    return collect(import_model(data / "model"), rows, sentences)


def build_transcoders(recipe: TranscoderRecipe, activations: Activations, work: Path, data: Path) -> None:
    """Train and export one transcoder set."""
    name = "clt" if recipe.cross_layer else "plt"
    trainer = TranscoderTrainer(activations, recipe)
    checkpoint = work / f"{name}.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
    with reporting(name) as report:
        trainer.run(report, checkpoint)
    trainer.save(checkpoint)
    export_transcoders(trainer.model, trainer.scale, data / name, recipe.cross_layer)


def build_examples(corpus: Corpus, data: Path) -> None:
    """Write `data/clt/features`: examples from every distinct text, in an order that doesn't depend on its task."""
    texts = sorted(set(corpus.texts()))
    random.Random(SEED).shuffle(texts)
    model = ReplacementModel.from_pretrained(str(data / "model"), str(data / "clt"), device="cpu")
    build_features(model, texts, data / "clt" / "features", EXAMPLES, max_documents=EXAMPLE_DOCUMENTS)


def main() -> None:
    """Run the stages named on the command line."""
    parser = argparse.ArgumentParser(
        description="Train the embedded demo model and its transcoders from their seed."
    )
    parser.add_argument(
        "--work-dir", type=Path, default=WORK, help="where checkpoints go (delete it to start over)"
    )
    parser.add_argument("--data-dir", type=Path, default=DATA, help="where the finished files go")
    parser.add_argument("--stages", default="model,clt,plt,measure,examples", help="which stages to run")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    arguments = parser.parse_args()
    stages = arguments.stages.split(",")
    torch.set_num_threads(arguments.threads)
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    corpus = build_corpus()
    if "model" in stages:
        build_model(corpus, arguments.work_dir, arguments.data_dir)
    if {"clt", "plt"} & set(stages):
        activations = collect_activations(corpus, arguments.data_dir)
        for recipe, name in ((CLT_RECIPE, "clt"), (PLT_RECIPE, "plt")):
            if name in stages:
                build_transcoders(recipe, activations, arguments.work_dir, arguments.data_dir)
    if "measure" in stages:
        figures = measure(arguments.data_dir)
        write_measured(figures, arguments.data_dir)
        write_tables(arguments.data_dir)
        print_table(figures)
    if "examples" in stages:
        build_examples(corpus, arguments.data_dir)


if __name__ == "__main__":
    main()
