"""From a model with transcoders and a stream of documents to a folder of feature examples.

    documents → sequences → forward pass → activations → tallies (saved now and then) → records → files

The settings determine memory; text is read once. The result depends only on the text, the weights and the settings, not on
where a build was interrupted or how often its state was saved.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from circuit_tracer_cli.demo import model_label
from circuit_tracer_cli.errors import BadCorpus, BadFeatureFiles, BadPrompt, MissingFile, UnsuitableValue
from circuit_tracer_cli.features.finish import Corpus, RecordMaker, logit_effects
from circuit_tracer_cli.features.labels import CorpusWords
from circuit_tracer_cli.features.packed import FeatureFiles, LayerFile, publish, write_layer
from circuit_tracer_cli.features.records import FeatureRecord
from circuit_tracer_cli.features.sequences import (
    BATCH_DOCUMENTS,
    BATCH_TOKENS,
    Sequencer,
    feature_inputs,
    layer_events,
    make_batch,
)
from circuit_tracer_cli.features.settings import BuildSettings
from circuit_tracer_cli.features.tally import LayerTally
from circuit_tracer_cli.features.workspace import Position, Workspace
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.tokens import Tokens, TokenTexts
from circuit_tracer_cli.types import Progress, SilentProgress

_SAVING_SHARE = 0.05
_VERSION = 1


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """Summary of a build."""

    directory: Path
    documents: int
    skipped: int
    tokens: int
    layers: tuple[int, ...]
    features: int
    dead: int
    labelled: int
    n_bytes: int


def memory_needed(settings: BuildSettings, n_layers: int, d_transcoder: int) -> int:
    """Bytes that the tallies of a set take, for any text."""
    return len(settings.layer_range(n_layers)) * d_transcoder * LayerTally.bytes_per_feature(settings)


def build_features(
    model: ReplacementModel,
    documents: Iterable[str],
    output_dir: str | Path,
    settings: BuildSettings | None = None,
    *,
    name: str | None = None,
    max_documents: int | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> BuildSummary:
    """Build the feature examples of a transcoder set.

    Args:
        model: The model with the set.
        documents: Texts. After an interruption, the same ones from the beginning: those already read are checked and skipped.
        output_dir: Folder for `index.json.gz` and its files. Its other layers of the same set stay.
        settings: What to collect.
        name: The set's name in the files; by default its scan.
        max_documents: Largest number of documents to read.
        resume: Continue an interrupted build of this folder.
        progress: Progress callback.

    Raises:
        UnsuitableValue: The features are the model's own neurons.
        BadCorpus: There is no text, or not the text that the interrupted build began with.
        BadFeatureFiles: The interrupted build had other settings or weights.
        BadTranscoders: An activation is NaN or infinite.
        OutputError: The folder can't be written.
    """
    if model.transcoders.of_model:
        raise UnsuitableValue(
            "feature examples of neurons can't be built: nearly all are active at every token"
        )
    settings = settings or BuildSettings()
    builder = _Builder(
        model, Path(output_dir), settings, name or scan_name(model), progress or SilentProgress()
    )
    with builder.open(resume=resume):
        builder.read(documents, max_documents)
        return builder.finish()


def scan_name(model: ReplacementModel) -> str:
    """The set's name in the files."""
    scan = model.scan
    return scan if isinstance(scan, str) else ",".join(scan or ["custom"])


def weights_digest(model: ReplacementModel, layers: range) -> str:
    """A hash of a few rows of every layer, which detects that a set was retrained since a build began."""
    digest = hashlib.sha256()
    rows = torch.arange(min(4, model.transcoders.d_transcoder))
    for layer in layers:
        digest.update(model.transcoders.encoder_rows(layer, rows).cpu().float().numpy().tobytes())
        digest.update(model.transcoders.bias(layer).cpu().float().numpy().tobytes())
    if model.model.weights is not None:
        digest.update(model.model.weights.W_U[:4].cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


class _SavingSchedule:
    """When to save: after a number of documents, unless saving has taken more than its share of the time."""

    def __init__(self, documents: int, every: int) -> None:
        self._last, self._every = documents, every
        self._began, self._spent = time.monotonic(), 0.0

    def due(self, documents: int) -> bool:
        """True if it is time to save."""
        affordable = self._spent <= _SAVING_SHARE * (time.monotonic() - self._began)
        if documents - self._last < self._every or not affordable:
            return False
        self._last = documents
        return True

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time spent in this block as saving."""
        before = time.monotonic()
        yield
        self._spent += time.monotonic() - before


class _Builder:
    """One build: tallies in memory, the workspace on disk, and its progress."""

    def __init__(
        self,
        model: ReplacementModel,
        output_dir: Path,
        settings: BuildSettings,
        name: str,
        progress: Progress,
    ) -> None:
        self.model, self.output_dir, self.settings = model, output_dir, settings
        self.name, self.progress = name, progress
        self.layers = settings.layer_range(model.transcoders.n_layers)
        n_features = model.transcoders.d_transcoder
        self.tallies = {layer: LayerTally(layer, n_features, settings) for layer in self.layers}
        self.sequencer = Sequencer(model, settings.sequence_length)
        self.position = Position()
        self.pending: list[Tokens] = []
        self.pending_documents = 0
        self.workspace: Workspace

    def about(self) -> dict[str, Any]:
        """Everything except the text that determines the result."""
        return {
            "format_version": _VERSION,
            "transcoders": self.name,
            "model": model_label(str(self.model.cfg.model_name)),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "weights": weights_digest(self.model, self.layers),
            "settings": _jsonable(self.settings.that_decide()),
        }

    @contextmanager
    def open(self, *, resume: bool) -> Iterator[None]:
        """Open or make the folder, and load saved state."""
        with Workspace(self.output_dir, self.about(), resume=resume) as self.workspace:
            self.position = self.workspace.position
            if self.workspace.generation:
                for layer, tally in self.tallies.items():
                    self.workspace.restore(f"layer_{layer}", tally.arrays())
            yield

    def read(self, documents: Iterable[str], max_documents: int | None) -> None:
        """Process the documents, saving the state now and then and at the end.

        Batches end with a document, after a number of tokens or documents: resuming from a state that was saved between two
        batches gives the same batches, and so the same numbers, as an uninterrupted build.
        """
        remaining = self._after_those_read(iter(documents))
        self.progress.phase("reading text", max_documents)
        self.progress.advance(self.position.documents)
        schedule = _SavingSchedule(self.position.documents, self.settings.checkpoint_every)
        while max_documents is None or self.position.documents < max_documents:
            document = next(remaining, None)
            if document is None:
                break
            self._add_document(document)
            self.progress.advance()
            if not self.pending and schedule.due(self.position.documents):
                with schedule.timed():
                    self._save()
        self._flush()
        if self.position.counted == 0:
            raise BadCorpus("the model's tokenizer can't read any of the text")
        self._save()

    def _after_those_read(self, documents: Iterator[str]) -> Iterator[str]:
        """Yield the documents that are still to be read. Raises BadCorpus if the earlier ones differ from those read before."""
        done = self.position.documents
        if not done:
            return documents
        check = Position()
        for number in range(done):
            document = next(documents, None)
            if document is None:
                raise BadCorpus(
                    f"the interrupted build has read {done} documents, but there are only {number}",
                    hint="use the same text, or start over with --no-resume",
                )
            check = replace(check, digest=check.after(document))
        if check.digest != self.position.digest:
            raise BadCorpus(
                "the text differs from that of the interrupted build",
                hint="use the same text, or start over with --no-resume",
            )
        self.progress.note(f"continuing an interrupted build after {done} documents")
        return documents

    def _add_document(self, document: str) -> None:
        before = self.position
        self.position = replace(before, documents=before.documents + 1, digest=before.after(document))
        self.pending_documents += 1
        flushed = self.position.sequences
        try:
            for tokens in self.sequencer.sequences(document):
                self.pending.append(tokens)
                if sum(map(len, self.pending)) >= BATCH_TOKENS:
                    self._flush()
        except BadPrompt:
            self.position = replace(self.position, skipped=self.position.skipped + 1)
        if self.pending_documents >= BATCH_DOCUMENTS or self.position.sequences > flushed:
            self._flush()

    def _flush(self) -> None:
        """Run the collected sequences through the model."""
        sequences, self.pending, self.pending_documents = self.pending, [], 0
        if not sequences:
            return
        position = self.position
        batch = make_batch(sequences, position.tokens, self.settings.left)
        for layer, x in feature_inputs(self.model, sequences, self.layers).items():
            events = layer_events(self.model, layer, x, batch)
            if events is not None:
                self.tallies[layer].add(events, batch)
        self.workspace.append(batch.tokens, batch.starts)
        self.position = replace(
            position,
            sequences=position.sequences + len(sequences),
            tokens=position.tokens + len(batch.tokens),
            counted=position.counted + int((~batch.zeroed).sum()),
        )

    def _save(self) -> None:
        self.workspace.save(
            ((f"layer_{layer}", tally.arrays()) for layer, tally in self.tallies.items()), self.position
        )

    def finish(self) -> BuildSummary:
        """Write records, labels and index, and remove the workspace."""
        corpus = self._corpus()
        self.progress.phase("writing examples", len(self.layers))
        files, labels = _other_layers(self.output_dir, self.about(), self.layers)
        labelled = n_bytes = 0
        for layer in self.layers:
            maker = RecordMaker(self.tallies[layer], corpus, f"{self.name}/{layer}")
            records = maker.records(logit_effects(self.model, layer, self.settings.logits))
            noted = _labels_noted(layer, records, labels)
            files[layer] = write_layer(self.output_dir, layer, noted, self.workspace.folder)
            labelled += sum(key.startswith(f"{layer}/") for key in labels)
            n_bytes += files[layer].offsets[-1]
            self.progress.advance()
        counts = {
            "documents": self.position.documents,
            "tokens": self.position.counted,
            "text": self.position.digest[:16],
        }
        about = self.about() | counts | {"layers": sorted(files)}
        publish(self.output_dir, files, labels, about, self.workspace.folder)
        self.workspace.remove()
        return BuildSummary(
            directory=self.output_dir,
            documents=self.position.documents,
            skipped=self.position.skipped,
            tokens=self.position.counted,
            layers=tuple(self.layers),
            features=sum(len(tally.active) for tally in self.tallies.values()),
            dead=sum(int((tally.active == 0).sum()) for tally in self.tallies.values()),
            labelled=labelled,
            n_bytes=n_bytes,
        )

    def _corpus(self) -> Corpus:
        tokens, starts = self.workspace.token_file(), self.workspace.sequence_starts()
        counts = np.zeros(self.model.model.shape.d_vocab, np.int64)
        for start in range(0, len(tokens), 2**22):
            counts += np.bincount(tokens[start : start + 2**22], minlength=len(counts))
        lead = max(1, len(self.sequencer.lead))
        for offset in range(lead):  # leading tokens that the model requires say nothing about the text
            counts -= np.bincount(tokens[np.minimum(starts + offset, len(tokens) - 1)], minlength=len(counts))
        texts = TokenTexts(self.model.tokenizer)
        words = CorpusWords((texts[int(token)], int(counts[token])) for token in np.flatnonzero(counts > 0))
        return Corpus(tokens, starts, self.position.counted, texts, words)


def _labels_noted(
    layer: int, records: Iterable[FeatureRecord], labels: dict[str, dict[str, Any]]
) -> Iterator[FeatureRecord]:
    """Yield the records, collecting their labels."""
    for record in records:
        if record.label is not None:
            labels[f"{layer}/{record.index}"] = record.label.to_dict()
        yield record


def _other_layers(
    folder: Path, about: dict[str, Any], layers: range
) -> tuple[dict[int, LayerFile], dict[str, dict[str, Any]]]:
    """Layers of the same set from an earlier build with `layers`, and their labels."""
    try:
        earlier = FeatureFiles(folder)
        known = earlier.about()
        same = all(known.get(key) == about[key] for key in ("format_version", "transcoders", "model"))
        found = earlier.labels() if same else {}
    except (MissingFile, BadFeatureFiles):
        return {}, {}
    kept = {
        n: LayerFile(e.filename, e.offsets) for n, e in earlier.layers.items() if same and n not in layers
    }
    return kept, {key: label for key, label in found.items() if int(key.split("/")[0]) in kept}


def _jsonable(values: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, as they are read from a file."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
