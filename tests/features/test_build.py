"""Built records equal a naive dense computation; interrupted builds end with the same bytes and leave nothing half-written."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuit_tracer_cli.errors import BadCorpus, BadFeatureFiles, InvalidValue, OutputError
from circuit_tracer_cli.features.build import BuildSummary, build_features, memory_needed
from circuit_tracer_cli.features.packed import FeatureFiles
from circuit_tracer_cli.features.settings import PER_QUANTILE, BuildSettings
from circuit_tracer_cli.replacement import ReplacementModel
from tests.cases import some
from tests.features.conftest import KINDS, Dense, Peak, make_texts

LAYERS = range(2, 4)
SETTINGS = BuildSettings(
    context=8, examples=3, quantiles=2, values=512, logits=4, checkpoint_every=32, layers=(2, 4)
)
SMALL = BuildSettings(context=4, examples=1, quantiles=0, logits=0, layers=(3, 4))
TEXTS = make_texts(48)
both = pytest.mark.parametrize("model", KINDS, indirect=True)


@pytest.fixture(scope="module")
def built(model: ReplacementModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildSummary]:
    folder = tmp_path_factory.mktemp("features")
    return folder, build_features(model, TEXTS, folder, SETTINGS, name="tiny")


def records(folder: Path, layer: int) -> list[dict[str, Any]]:
    files = FeatureFiles(folder)
    return [files.feature(layer, index) for index in range(files.n_features(layer))]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@both
def test_statistics_equal_a_dense_computation(
    built: tuple[Path, BuildSummary], dense: Callable[[tuple[str, ...]], list[Dense]]
) -> None:
    for layer, expected in zip(LAYERS, dense(tuple(TEXTS))[2:], strict=True):
        n_tokens = sum(len(tokens) - 1 for tokens in expected.tokens)
        for index, record in enumerate(records(built[0], layer)):
            values = expected.values(index)
            assert record["transcoder_id"] == f"tiny/{layer}"
            assert record["index"] == index
            assert record["activation_frequency"] == pytest.approx(len(values) / n_tokens, rel=1e-4)
            assert record["act_max"] == pytest.approx(max(values, default=0.0), rel=1e-4, abs=1e-5)
            assert record["act_min"] == 0.0
            if values:
                quantiles = np.percentile(values, range(1, 101))
                np.testing.assert_allclose(record["quantile_values"], quantiles, rtol=1e-3, atol=1e-5)
                assert sum(record["histogram"]) == len(values)


def test_top_examples_are_the_highest_distinct_contexts(
    model: ReplacementModel, built: tuple[Path, BuildSummary], dense: Callable[[tuple[str, ...]], list[Dense]]
) -> None:
    compared = 0
    for layer, expected in zip(LAYERS, dense(tuple(TEXTS))[2:], strict=True):
        for index, record in enumerate(records(built[0], layer)):
            peaks = expected.peaks(index, SETTINGS.left)
            groups = record["examples_quantiles"]
            if not peaks:
                assert groups == []
                continue
            assert groups[0]["quantile_name"] == "Top activations"
            heights = [e["tokens_acts_list"][e["train_token_ind"]] for e in groups[0]["examples"]]
            np.testing.assert_allclose(heights, [peak.value for peak in peaks[:3]], rtol=1e-3, atol=1e-5)
            if len(peaks) == 1 or peaks[0].value > 1.001 * peaks[1].value + 1e-5:
                compare_example(model, groups[0]["examples"][0], peaks[0], expected, index)
                compared += 1
    assert compared > 200


def compare_example(
    model: ReplacementModel, example: dict[str, Any], peak: Peak, expected: Dense, index: int
) -> None:
    """The example is a window around the peak in one of the texts that have the peak's context."""
    centre = example["train_token_ind"]
    assert centre == len(peak.context) - 1
    assert len(example["tokens"]) == len(example["tokens_acts_list"])
    found = []
    for tokens, acts in zip(expected.tokens, expected.acts, strict=True):
        for position in range(len(tokens)):
            first, last = max(0, position - SETTINGS.left), position + SETTINGS.right + 1
            if tuple(tokens[first : position + 1]) == peak.context:
                found.append((decoded(model, tokens[first:last]), acts[first:last, index].numpy()))
    same = [acts for tokens, acts in found if tokens == [clean(token) for token in example["tokens"]]]
    assert any(np.allclose(example["tokens_acts_list"], acts, rtol=2e-3, atol=1e-5) for acts in same)
    assert not example["is_repeated_datapoint"]


def decoded(model: ReplacementModel, tokens: list[int]) -> list[str]:
    return [clean(model.tokenizer.decode([token])) for token in tokens]


def clean(token: str) -> str:
    """Tokens that are no whole character look different on the two sides."""
    return "?" if "\ufffd" in token or "\\x" in token else token


def test_samples_are_other_contexts_from_high_to_low(
    built: tuple[Path, BuildSummary], dense: Callable[[tuple[str, ...]], list[Dense]]
) -> None:
    sampled = 0
    for layer, expected in zip(LAYERS, dense(tuple(TEXTS))[2:], strict=True):
        for index, record in enumerate(records(built[0], layer)):
            groups = record["examples_quantiles"][1:]
            peaks = expected.peaks(index, SETTINGS.left)
            if len(peaks) <= SETTINGS.examples:
                assert groups == []
                continue
            examples = [example for group in groups for example in group["examples"]]
            assert len(examples) == min(SETTINGS.quantiles * PER_QUANTILE, len(peaks))
            heights = [e["tokens_acts_list"][e["train_token_ind"]] for e in examples]
            assert heights == sorted(heights, reverse=True)
            texts = {(*e["tokens"][: e["train_token_ind"] + 1],) for e in examples}
            top = record["examples_quantiles"][0]["examples"]
            shown = {(*e["tokens"][: e["train_token_ind"] + 1],) for e in top}
            assert len(texts) == len(examples)
            assert all(
                e["is_repeated_datapoint"] == ((*e["tokens"][: e["train_token_ind"] + 1],) in shown)
                for e in examples
            )
            sampled += 1
    assert sampled > 50


def test_features_that_are_never_active_say_so(built: tuple[Path, BuildSummary]) -> None:
    folder, summary = built
    dead = [r for layer in summary.layers for r in records(folder, layer) if r["activation_frequency"] == 0]
    assert len(dead) == summary.dead > 0
    for record in dead:
        assert record["examples_quantiles"] == record["quantile_values"] == record["histogram"] == []
        assert "label" not in record
        assert len(record["top_logits"]) == 4  # its weights are there


def test_summary_and_labels(built: tuple[Path, BuildSummary], model: ReplacementModel) -> None:
    folder, summary = built
    files = FeatureFiles(folder)
    assert (summary.documents, summary.skipped) == (len(TEXTS), 0)
    assert summary.features == 2 * 256
    assert summary.tokens == sum(len(model.tokenize(text)) - 1 for text in TEXTS) == files.about()["tokens"]
    assert files.about()["model"] == "llama"  # and not where it lies on this machine
    assert len(files.labels()) == summary.labelled > 100
    for key, label in files.labels().items():
        layer, index = map(int, key.split("/"))
        assert files.feature(layer, index)["label"] == label == files.label(layer, index)
        assert 0 < len(label["text"]) <= 40
        assert 0 <= label["confidence"] <= 1
        assert label["provenance"].startswith("auto: ")


def interrupted(texts: list[str], after: int) -> Iterator[str]:
    yield from texts[:after]
    raise KeyboardInterrupt


def test_an_interrupted_build_ends_with_the_same_bytes(
    model: ReplacementModel, built: tuple[Path, BuildSummary], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_features(model, interrupted(TEXTS, 40), tmp_path, SETTINGS, name="tiny")
    assert contents(tmp_path) == {}  # nothing but the workspace
    read: list[str] = []
    again = (read.append(text) or text for text in TEXTS)  # type: ignore[func-returns-value]
    build_features(model, again, tmp_path, SETTINGS, name="tiny")
    assert contents(tmp_path) == contents(built[0])
    assert not (tmp_path / ".build").exists()


def killed(texts: list[str], after: int) -> Iterator[str]:
    yield from texts[:after]
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(
    model: ReplacementModel, built: tuple[Path, BuildSummary], tmp_path: Path
) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=build_features, args=(model, killed(TEXTS, 40), tmp_path, SETTINGS), kwargs={"name": "tiny"}
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert contents(tmp_path) == {}
    build_features(model, TEXTS, tmp_path, SETTINGS, name="tiny")
    assert contents(tmp_path) == contents(built[0])


def test_resuming_uses_what_was_saved(
    model: ReplacementModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_features(model, interrupted(TEXTS, 40), tmp_path, SETTINGS, name="tiny")
    passes: list[int] = []
    whole = type(model.model).feature_inputs

    def counted(backend: Any, tokens: Any, hook: str) -> Any:
        passes.append(len(tokens))
        return whole(backend, tokens, hook)

    monkeypatch.setattr(type(model.model), "feature_inputs", counted)
    build_features(model, TEXTS, tmp_path, SETTINGS, name="tiny")
    assert sum(passes) == len(TEXTS) - 32


def test_other_text_or_settings_are_not_mixed(model: ReplacementModel, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_features(model, interrupted(TEXTS, 40), tmp_path, SETTINGS, name="tiny")
    with pytest.raises(BadCorpus, match="differs from that of the interrupted build"):
        build_features(model, TEXTS[::-1], tmp_path, SETTINGS, name="tiny")
    with pytest.raises(BadCorpus, match="has read 32 documents, but there are only 5"):
        build_features(model, TEXTS[:5], tmp_path, SETTINGS, name="tiny")
    with pytest.raises(BadFeatureFiles, match="other settings: settings"):
        build_features(model, TEXTS, tmp_path, BuildSettings(seed=1), name="tiny")
    assert build_features(model, TEXTS[:4], tmp_path, SMALL, resume=False).documents == 4


def test_a_damaged_state_is_named(model: ReplacementModel, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_features(model, interrupted(TEXTS, 40), tmp_path, SETTINGS, name="tiny")
    state = next((tmp_path / ".build").glob("state-*/layer_2.npz"))
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(BadFeatureFiles, match="layer_2"):
        build_features(model, TEXTS, tmp_path, SETTINGS, name="tiny")


@pytest.mark.parametrize("after", some(range(8), 4))
def test_a_full_disk_leaves_the_old_examples(
    model: ReplacementModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    build_features(model, TEXTS[:4], tmp_path, SMALL, name="tiny")
    before = contents(tmp_path)
    real = os.fsync
    calls = itertools.count()

    def full(descriptor: int) -> None:
        if next(calls) >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="no space left"):
        build_features(model, TEXTS[4:9], tmp_path, SMALL, name="tiny")
    monkeypatch.undo()
    kept = contents(tmp_path)
    assert {name: kept[name] for name in before} == before
    assert FeatureFiles(tmp_path).about()["documents"] == 4
    build_features(model, TEXTS[4:9], tmp_path, SMALL, name="tiny")
    assert FeatureFiles(tmp_path).about()["documents"] == 5
    assert len(list(tmp_path.glob("layer_*.bin"))) == 1


def test_layers_can_be_built_one_after_the_other(
    model: ReplacementModel, built: tuple[Path, BuildSummary], tmp_path: Path
) -> None:
    for layers in ((3, 4), (2, 3)):
        some = dataclasses.replace(SETTINGS, layers=layers)
        build_features(model, TEXTS, tmp_path, some, name="tiny")
    apart, together = contents(tmp_path), contents(built[0])
    assert {name for name in apart if name.endswith(".bin")} == {n for n in together if n.endswith(".bin")}
    assert apart["index.json.gz"] == together["index.json.gz"]
    assert FeatureFiles(tmp_path).labels() == FeatureFiles(built[0]).labels()


def test_no_layer_outside_the_set(model: ReplacementModel, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="layers 2:9"):
        build_features(model, TEXTS, tmp_path, BuildSettings(layers=(2, 9)))
    assert list(tmp_path.iterdir()) == []


def test_long_documents_are_cut_and_odd_ones_passed_over(model: ReplacementModel, tmp_path: Path) -> None:
    short = dataclasses.replace(SMALL, sequence_length=6)
    text = " ".join(TEXTS[:3])
    n_ids = len(model.tokenize(text)) - 1
    done = build_features(model, [text, "half \ud800"], tmp_path, short)
    assert (done.documents, done.skipped, done.tokens) == (2, 1, n_ids)


def test_text_without_any_token_is_refused(model: ReplacementModel, tmp_path: Path) -> None:
    with pytest.raises(BadCorpus, match="can't read any of the text"):
        build_features(model, ["\ud800"], tmp_path, SETTINGS)


def test_the_memory_is_what_was_announced(model: ReplacementModel) -> None:
    from circuit_tracer_cli.features.tally import LayerTally

    arrays = LayerTally(0, 256, SETTINGS).arrays().values()
    assert memory_needed(SETTINGS, 4, 256) == 2 * sum(array.nbytes for array in arrays)
