"""The demo as shipped: it loads, knows its facts, and its files are small and say nothing about the machine that made them."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch

from circuit_tracer_cli.demo import DATA, QUESTIONS, model_dir, prompts, questions, transcoder_dir
from training.corpus import DALLAS_PROMPT
from training.evaluate import write_questions
from training.measure_circuit import (
    FeatureSets,
    choose_sets,
    interventions,
    places_with_feature,
)
from training.measure_model import Bench, accuracy, dallas_probability, replacement
from training.shipped import ShippedSet


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench.load(model_dir())


@pytest.fixture(scope="module")
def clt() -> ShippedSet:
    return ShippedSet.load(transcoder_dir("clt"))


@pytest.fixture(scope="module")
def sets(bench: Bench, clt: ShippedSet) -> FeatureSets:
    return choose_sets(bench, clt, "state")


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, circuit_tracer_cli.demo as d; d.prompts(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_example_prompt_is_answered(bench: Bench) -> None:
    for example in prompts():
        ids = torch.tensor([bench.tokenizer.encode(example["prompt"])])
        with torch.no_grad():
            best = int(bench.model(ids).logits[0, -1].argmax())
        assert bench.tokenizer.decode([best]) == example["answer"], example["prompt"]


def test_held_out_flag_is_true(bench: Bench) -> None:
    trained = {s.prompt for s in bench.corpus.splits["train"]}
    for example in prompts():
        if example["held_out"]:
            assert example["prompt"] not in trained
    assert prompts()[0]["prompt"] == DALLAS_PROMPT
    assert prompts()[0]["held_out"]


@pytest.mark.long
def test_model_knows_its_facts(bench: Bench) -> None:
    right = accuracy(bench)
    assert min(right[name] for name in ("city", "attribute", "two_hop", "antonym")) >= 0.99
    assert right["two_hop held pairs"] >= 0.97
    assert right["two_hop held cities"] >= 0.93
    assert dallas_probability(bench) >= 0.9


@pytest.mark.long
def test_replaced_model_answers_too(bench: Bench, clt: ShippedSet) -> None:
    figures = replacement(bench, clt)
    assert figures["two_hop held pairs"]["accuracy"] >= 0.97
    assert figures["two_hop held cities"]["accuracy"] >= 0.92


@pytest.mark.long
def test_states_have_features(bench: Bench, clt: ShippedSet, sets: FeatureSets) -> None:
    assert sum(score >= 0.8 for score in places_with_feature(bench, clt, sets, "state")) >= 45


@pytest.mark.long
def test_swapping_the_state_changes_the_answer(bench: Bench, clt: ShippedSet, sets: FeatureSets) -> None:
    figures = interventions(bench, clt, sets, "state")
    assert figures["swap gives other's answer"] >= 0.9
    assert figures["off changes answer"] >= 0.9


def test_measured_figures_belong_to_these_files(bench: Bench) -> None:
    measured = json.loads((DATA / "measured.json").read_text(encoding="utf-8"))
    assert measured["model"]["p_austin"] == pytest.approx(dallas_probability(bench), abs=1e-3)
    for name in ("model", "clt", "plt"):
        assert measured["bytes"][name] == sum(file.stat().st_size for file in (DATA / name).glob("*.*"))


def test_questions_are_those_that_training_writes(tmp_path: Path) -> None:
    write_questions(tmp_path)
    assert (DATA / QUESTIONS).read_bytes() == (tmp_path / QUESTIONS).read_bytes()
    assert [(kind, relation) for kind, relation, _ in questions()] == [
        ("state", "capital"),
        ("state", "abbreviation"),
        ("country", "capital"),
    ]


def test_files_are_small_and_anonymous() -> None:
    files = [file for file in DATA.rglob("*") if file.is_file()]
    in_a_wheel = sum(len(zlib.compress(file.read_bytes(), 6)) for file in files)
    assert in_a_wheel <= 20_000_000
    for file in files:
        head = file.read_bytes()[:20000]
        assert not any(path in head for path in (b"/work", b"/tmp", b"/home", b"/root"))
