"""Generation: cached equals uncached, open ends, sampling, arguments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from circuit_tracer_cli.errors import BadIntervention, BadPrompt, InvalidType, InvalidValue
from circuit_tracer_cli.interventions.generate import Sampling, choose, generate_steps
from circuit_tracer_cli.interventions.run import Constraints
from circuit_tracer_cli.interventions.spec import Scaled, as_interventions
from circuit_tracer_cli.replacement import ReplacementModel
from tests.builders import PROMPT, replacement

IDS = list(PROMPT)
GREEDY: dict[str, Any] = {"do_sample": False, "stop_at_eos": False}


def uncached(model: ReplacementModel, edits: list[Any], steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, logits and activations by running the whole text anew for every token."""
    ids, rows = list(IDS), []
    while True:
        logits, activations = model.feature_intervention(ids, edits, freeze_attention=False)
        assert activations is not None
        rows.append(logits[0, -1])
        if len(rows) == steps:
            return torch.tensor([*ids, int(rows[-1].argmax())]), torch.stack(rows), activations
        ids.append(int(rows[-1].argmax()))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gemma3", "gpt_oss", "gpt_neox", "mistral"])
def test_cached_generation_equals_uncached(family: str) -> None:
    model = replacement(family, "clt" if family in ("gpt2", "gemma3") else "plt", "jumprelu")
    edits = [(0, slice(2, None), 3, 2.0), (1, 4, 7, 3.0), (2, slice(len(IDS) + 1, None), 5, 2.5)]
    ids, logits, activations = model.feature_intervention_generate(
        torch.tensor(IDS), edits, freeze_attention=False, max_new_tokens=6, **GREEDY
    )
    wanted_ids, wanted_logits, wanted_activations = uncached(model, edits, 6)
    assert ids.tolist() == wanted_ids.tolist()
    assert logits.shape == (6, 48)
    assert activations is not None
    assert activations.shape == (3, len(IDS) + 5, 36)
    torch.testing.assert_close(logits, wanted_logits, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(activations, wanted_activations, atol=2e-5, rtol=1e-4)


def test_without_edits_it_is_the_models_own_text() -> None:
    model = replacement("llama", "plt")
    hf = model.model.hf_model
    wanted = hf.generate(
        torch.tensor([IDS]), max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    ids, _, _ = model.feature_intervention_generate(torch.tensor([IDS]), [], max_new_tokens=5, **GREEDY)
    assert ids.shape == (1, len(IDS) + 5)
    assert torch.equal(ids, wanted)


def test_an_open_end_goes_on_and_others_stop() -> None:
    model = replacement("llama", "plt")
    kwargs = {**GREEDY, "max_new_tokens": 4}
    _, closed, _ = model.feature_intervention_generate(IDS, [(1, slice(2, 7), 0, 9.0)], **kwargs)
    _, opened, _ = model.feature_intervention_generate(IDS, [(1, slice(2, None), 0, 9.0)], **kwargs)
    torch.testing.assert_close(opened[0], closed[0], atol=1e-6, rtol=1e-5)
    assert float((opened[1] - closed[1]).abs().max()) > 1e-3


def test_a_relative_value_refers_to_the_step_itself_at_generated_tokens() -> None:
    model = replacement("llama", "plt")
    kwargs = {**GREEDY, "max_new_tokens": 3, "freeze_attention": False}
    _, plain, _ = model.feature_intervention_generate(IDS, [], **kwargs)
    _, once, _ = model.feature_intervention_generate(
        IDS, [(1, slice(len(IDS), None), slice_of(model), Scaled(1.0))], **kwargs
    )
    _, twice, _ = model.feature_intervention_generate(
        IDS, [(1, slice(len(IDS), None), slice_of(model), Scaled(3.0))], **kwargs
    )
    torch.testing.assert_close(once, plain, atol=1e-5, rtol=1e-5)
    assert float((twice[1] - plain[1]).abs().max()) > 1e-3


def slice_of(model: ReplacementModel) -> Tensor:
    """All features of a layer, as a tensor of indices."""
    return torch.arange(model.transcoders.d_transcoder)


def test_flags_do_not_change_the_text() -> None:
    model = replacement("gemma2", "clt")
    edits = [(0, slice(3, None), 4, 3.0)]
    text = "3 42 7 7 29 35"
    results = [
        model.feature_intervention_generate(
            text, edits, max_new_tokens=4, sparse=sparse, return_activations=wanted, **GREEDY
        )
        for sparse, wanted in ((False, True), (True, True), (False, False))
    ]
    assert len({result[0] for result in results}) == 1
    assert text in results[0][0]
    assert results[2][2] is None
    torch.testing.assert_close(results[1][2].to_dense(), results[0][2], atol=1e-6, rtol=1e-5)
    for _, logits, _ in results[1:]:
        torch.testing.assert_close(logits, results[0][1], atol=1e-6, rtol=1e-5)


def test_the_prompts_pass_obeys_constraints() -> None:
    model = replacement("llama", "plt")
    edits = [(1, slice(2, 5), 0, 9.0)]
    logits, _ = model.feature_intervention(IDS, edits, constrained_layers=range(3))
    _, rows, _ = model.feature_intervention_generate(
        IDS, edits, constrained_layers=range(3), max_new_tokens=1, **GREEDY
    )
    torch.testing.assert_close(rows[0], logits[0, -1])


def test_it_stops_at_the_end_token() -> None:
    model = replacement("llama", "plt")
    ids, _, _ = model.feature_intervention_generate(IDS, [], max_new_tokens=5, **GREEDY)
    second = int(ids[len(IDS) + 1])
    stop = next(i for i, token in enumerate(ids[len(IDS) :].tolist()) if token == second)
    stopped, logits, _ = model.feature_intervention_generate(
        IDS, [], max_new_tokens=5, do_sample=False, eos_token_id=second
    )
    assert torch.equal(stopped, ids[: len(IDS) + stop + 1])
    assert len(logits) == stop + 1


def test_a_seed_repeats_the_draws() -> None:
    model = replacement("llama", "plt")
    draw = [
        model.feature_intervention_generate(IDS, [], max_new_tokens=8, seed=seed, stop_at_eos=False)[
            0
        ].tolist()
        for seed in (3, 3, 4)
    ]
    assert draw[0] == draw[1] != draw[2]


LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, 3.0])


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        (Sampling(top_k=1), {4}),
        (Sampling(top_k=2), {4, 0}),
        (Sampling(top_p=0.5), {4}),
        (Sampling(top_p=0.8), {4, 0}),
        (Sampling(temperature=0.0), {4}),
        (Sampling(do_sample=False), {4}),
        (Sampling(top_k=1, freq_penalty=2.0), {0}),
    ],
)
def test_draws_come_from_the_allowed_tokens(sampling: Sampling, possible: set[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    seen = torch.tensor([4, 4, 3])
    assert {choose(LOGITS, seen, sampling, generator) for _ in range(60)} == possible


def test_who_stops_listening_stops_the_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    model = replacement("llama", "plt")
    calls = []
    run = model.model.run
    monkeypatch.setattr(model.model, "run", lambda *given: calls.append(1) or run(*given))
    tokens = model.tokenize(IDS)
    steps = generate_steps(
        model.interventions, tokens, as_interventions([]), Constraints(), Sampling(max_new_tokens=30)
    )
    next(steps)
    steps.close()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("kwargs", "error", "part"),
    [
        ({"max_new_tokens": 0}, InvalidValue, "max_new_tokens"),
        ({"top_k": 0}, InvalidValue, "top_k"),
        ({"top_p": 0.0}, InvalidValue, "top_p"),
        ({"temperature": -1.0}, InvalidValue, "temperature"),
        ({"use_past_kv_cache": False}, InvalidValue, "cache"),
        ({"return_type": "html"}, InvalidValue, "return_type"),
        ({"num_beams": 4}, InvalidType, "num_beams"),
        ({"max_new_tokens": 100}, BadPrompt, "exceed the model's limit of 64"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict[str, Any], error: type[Exception], part: str) -> None:
    with pytest.raises(error, match=part):
        replacement("llama", "plt").feature_intervention_generate(IDS, [], **kwargs)


def test_an_open_ended_value_must_fit_a_single_token() -> None:
    edit = (1, slice(2, None), 0, torch.ones(len(IDS) - 2))
    with pytest.raises(BadIntervention, match=r"value of shape \(5,\)"):
        replacement("llama", "plt").feature_intervention_generate(IDS, [edit])
