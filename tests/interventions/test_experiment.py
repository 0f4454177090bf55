"""Experiments and comparisons."""

from __future__ import annotations

import math
import re

import pytest
import torch

from circuit_tracer_cli.errors import BadIntervention
from circuit_tracer_cli.interventions.experiment import compare, run_experiment
from circuit_tracer_cli.interventions.generate import Sampling
from circuit_tracer_cli.interventions.plan import Plan
from circuit_tracer_cli.interventions.spec import as_interventions
from tests.builders import PROMPT, number_tokenizer, replacement

IDS = list(PROMPT)


def test_comparison_of_two_distributions() -> None:
    before = torch.log(torch.tensor([0.5, 0.25, 0.125, 0.125])) + 3
    after = torch.log(torch.tensor([0.125, 0.25, 0.125, 0.5]))
    found = compare(before, after, number_tokenizer(), top_k=1, also=[1])
    rows = [
        (t.token, t.text, round(t.before, 6), round(t.after, 6), t.rank_before, t.rank_after)
        for t in found.tokens
    ]
    assert rows == [(3, "3", 0.125, 0.5, 4, 1), (1, "1", 0.25, 0.25, 2, 2), (0, "0", 0.5, 0.125, 1, 3)]
    assert found.kl == pytest.approx(0.5 * math.log(4) + 0.125 * math.log(1 / 4))
    assert found.tokens[0].logit_before == pytest.approx(math.log(0.125) + 3)
    assert compare(before, before, None, top_k=9).kl == 0
    assert {t.text for t in compare(before, before, None, top_k=9).tokens} == {"⟨0⟩", "⟨1⟩", "⟨2⟩", "⟨3⟩"}


def test_an_experiment_reports_edits_and_consequences() -> None:
    model = replacement("llama", "plt")
    tokens = model.tokenize(IDS)
    _, activations = model.get_activations(IDS)
    plan = Plan(edits=as_interventions(["1/4@-1=x3", "0/2@5:=off", "2/7@1=4.5"]))
    found = run_experiment(
        model.interventions, tokens, plan, sampling=Sampling(max_new_tokens=3, do_sample=False)
    )
    cells = {(f.layer, f.position, f.feature): (f.before, f.after) for f in found.features}
    last = float(activations[1, -1, 4])
    assert set(cells) == {(1, 6, 4), (0, 5, 2), (0, 6, 2), (2, 1, 7)}
    assert cells[1, 6, 4] == pytest.approx((last, 3 * last))
    assert cells[0, 5, 2] == (float(activations[0, 5, 2]), 0.0)
    assert cells[2, 1, 7][1] == 4.5
    logits, _ = model.feature_intervention(IDS, plan.edits)
    probabilities = logits[0, -1].double().softmax(-1)
    assert found.next_token.tokens[0].after == pytest.approx(float(probabilities.max()))
    text = str(found.next_token.tokens[0].text)
    assert found.continuation_after is not None
    assert found.continuation_after.startswith(text)
    assert found.continuation_before is not None
    assert found.to_dict()["next_token"]["kl"] == found.next_token.kl


def test_without_a_change_nothing_differs() -> None:
    model = replacement("llama", "clt")
    plan = Plan(edits=as_interventions(["1/4@-1=x1"]), freeze_attention=False)
    found = run_experiment(model.interventions, model.tokenize(IDS), plan)
    assert found.next_token.kl == pytest.approx(0, abs=1e-9)
    assert found.continuation_after is None


def test_constraints_of_the_plan_count() -> None:
    model = replacement("llama", "plt")
    tokens, edits = model.tokenize(IDS), as_interventions(["0/4@2=30"])
    kls = [
        run_experiment(
            model.interventions, tokens, Plan(edits=edits, constrained_layers=layers)
        ).next_token.kl
        for layers in (None, (0, None), (0, 3), (1, 3))
    ]
    assert kls[1] == kls[2]
    assert kls[3] == pytest.approx(0, abs=1e-9)
    assert len({round(kl, 9) for kl in kls}) == 3


def test_conflicting_edits_are_named() -> None:
    model = replacement("llama", "plt")
    plan = Plan(edits=as_interventions(["1/4@-1=x3", "1/4@2:=off"]))
    with pytest.raises(BadIntervention, match=re.escape("1/4@-1=x3.0 and 1/4@2:=off")):
        run_experiment(model.interventions, model.tokenize(IDS), plan)
