"""Edits of heads: what the model loses without one is what the frozen network says, and rows become what they are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from circuit_tracer_cli.attention.constants import origins
from circuit_tracer_cli.attention.loadings import loadings
from circuit_tracer_cli.attention.prompt import FrozenPrompt
from circuit_tracer_cli.attribution.linear import FoldedLayer
from circuit_tracer_cli.backends.base import Hooks
from circuit_tracer_cli.errors import BadIntervention
from circuit_tracer_cli.interventions.experiment import run_experiment
from circuit_tracer_cli.interventions.plan import Plan, plan_from_json
from circuit_tracer_cli.interventions.spec import HeadEdit, LooksAt, Scaled, parse_intervention
from circuit_tracer_cli.validation.attention import ablation_effects
from tests.attention.prompts import frozen_prompt
from tests.builders import PROMPT

IDS = list(PROMPT)
LAST = len(IDS) - 1


def logits(prompt: FrozenPrompt, edits: list[Any], **flags: Any) -> Tensor:
    """The last position's, demeaned, in float64."""
    with prompt.model.zero_softcap():
        found, _ = prompt.model.feature_intervention(IDS, edits, return_activations=False, **flags)
    last = found[0, -1].double()
    return last - last.mean()


@pytest.mark.parametrize(
    ("backend_name", "family", "kind"),
    [
        ("transformerlens", "llama", "plt"),
        ("transformers", "gpt2", "clt"),
        ("transformerlens", "gemma2", "clt"),
        ("transformers", "gpt_oss", "plt"),
        ("transformerlens", "gpt_neox", "clt"),
        ("transformers", "qwen2", "plt"),
    ],
)
def test_the_model_loses_what_goes_through_the_head(backend_name: str, family: str, kind: str) -> None:
    prompt = frozen_prompt(family, kind, backend_name=backend_name, precise=False)
    layout, targets = prompt.graph.layout, prompt.graph.logit_targets
    rows = prompt.targets(range(layout.logit_offset, layout.n_nodes))
    effects = ablation_effects(prompt, rows)
    ids = [target.vocab_idx for target in targets]
    everything: dict[str, Any] = {"constrained_layers": range(prompt.engine.n_layers)}
    before = logits(prompt, ["L0H0=x1"], **everything)[ids]
    for text, told in (
        ("L1H2=off", effects[:, 1, 2].sum(-1)),
        (f"L2H0@{LAST}=off", effects[:, 2, 0, LAST]),
        ("L0H3@2:4=x0.5", 0.5 * effects[:, 0, 3, 2:4].sum(-1)),
    ):
        lost = before - logits(prompt, [text], **everything)[ids]
        assert float((lost - told).abs().max()) < 2e-5 * max(1.0, float(before.abs().max()))
    assert float(effects.sum(-1).abs().max()) > 1e-3


def _forgotten_scale(prompt: FrozenPrompt, layer: int) -> FoldedLayer:
    folded, scale = prompt.engine.layers[layer], prompt.frozen.layers[layer].ln1_scale
    return replace(folded, pattern=folded.pattern * scale[:, None, None])


def _forgotten_gain(prompt: FrozenPrompt, layer: int) -> FoldedLayer:
    folded, weights = prompt.engine.layers[layer], prompt.engine.weights.layers[layer]
    return replace(folded, W_V=folded.W_V / weights.ln1.gain)


def _forgotten_post_norm(prompt: FrozenPrompt, layer: int) -> FoldedLayer:
    weights = prompt.engine.weights.layers[layer]
    return replace(prompt.engine.layers[layer], W_O=weights.W_O.flatten(1))


@pytest.mark.parametrize("mistake", [_forgotten_scale, _forgotten_gain, _forgotten_post_norm])
def test_a_forgotten_factor_shows_in_the_model(mistake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over heads close with any factor; only the model tells."""
    prompt = frozen_prompt("gemma2", "clt", precise=False)
    everything: dict[str, Any] = {"constrained_layers": range(prompt.engine.n_layers)}
    target, ids = prompt.targets([prompt.graph.layout.logit_offset]), prompt.graph.logit_targets[0].vocab_idx
    lost = logits(prompt, ["L1H2=x1"], **everything)[ids] - logits(prompt, ["L1H2=off"], **everything)[ids]

    def error() -> float:
        return abs(float(lost - ablation_effects(prompt, target)[0, 1, 2].sum()))

    right = error()
    layers = list(prompt.engine.layers)
    layers[1] = mistake(prompt, 1)
    monkeypatch.setattr(prompt.engine, "layers", tuple(layers))
    assert error() > 50 * right


def test_the_frozen_network_says_the_same_of_all_sources_together() -> None:
    """Of what sources have written, a target loses the sum over its edges."""
    prompt = frozen_prompt("qwen3", "plt")
    logit = prompt.graph.layout.logit_offset
    columns, _ = prompt.graph.edges.row(logit)
    written = [
        replace(layer, residual=origins(prompt, number).sources)
        for number, layer in enumerate(prompt.frozen.layers)
    ]
    alone = replace(prompt, frozen=replace(prompt.frozen, layers=tuple(written)))
    effects = ablation_effects(alone, prompt.targets([logit]))[0].sum(-1)
    through = torch.zeros_like(effects)
    for edge in loadings(prompt, [(source, logit) for source in columns.tolist()], "through", 0):
        for share in edge.heads:
            through[share.layer, share.head] += share.value
    assert float((effects - through).abs().max()) < 1e-9 * float(effects.abs().max())


@pytest.mark.parametrize("backend_name", ["transformerlens", "transformers"])
@pytest.mark.parametrize("frozen", [True, False])
def test_rows_become_what_they_are_told(backend_name: str, frozen: bool) -> None:
    model = frozen_prompt("llama", "plt", backend_name=backend_name, precise=False).model
    seen: dict[str, Tensor] = {}
    row = torch.tensor([0.5, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0])
    edits = [HeadEdit(1, 1, 2, row), HeadEdit(1, 1, -1, LooksAt(-3)), "L1H2@3:5=x2", "L1H3=off"]
    tokens = model.tokenize(IDS)
    interventions = model.interventions
    heads = interventions.heads([parse_intervention(e) if isinstance(e, str) else e for e in edits], len(IDS))
    from circuit_tracer_cli.interventions.passes import EditedPass
    from circuit_tracer_cli.interventions.run import Constraints

    pins = interventions.pins(tokens, Constraints(freeze_attention=frozen))
    hooks = dict(EditedPass(interventions.site, {}, pins, None, heads=heads).hooks().by_name)
    name = "blocks.1.attn.hook_pattern"
    hooks[name] = [*hooks[name], lambda pattern: seen.__setitem__("pattern", pattern[0].clone())]
    model.model.run(tokens.ids, Hooks(hooks))
    before = interventions.unmodified(tokens).frozen.layers[1].pattern
    after = seen["pattern"]
    assert torch.equal(after[1, 2], row)
    assert after[1, -1].tolist() == [0, 0, 0, 0, 1, 0, 0]
    torch.testing.assert_close(after[2, 3:5], 2 * before[2, 3:5])
    torch.testing.assert_close(after[2, :3], before[2, :3])
    assert not after[3].any()
    torch.testing.assert_close(after[0], before[0])


def test_free_and_frozen_patterns_differ_and_the_record_tells_what_was_cut() -> None:
    prompt = frozen_prompt("llama", "plt", precise=False)
    free, held = (logits(prompt, ["L0H1=off"], freeze_attention=flag) for flag in (False, True))
    assert not torch.allclose(free, held)
    tokens = prompt.model.tokenize(IDS)
    plan = Plan(edits=(parse_intervention("l0h1@3=off"), parse_intervention("1/4@2=off")))
    found = run_experiment(prompt.model.interventions, tokens, plan)
    (head,) = found.heads
    row = prompt.frozen.layers[0].pattern[1, 3]
    assert (head.layer, head.head, head.position, head.edit) == (0, 1, 3, "off")
    assert head.attention == pytest.approx(float(row[head.key]))
    assert [(one.layer, one.feature) for one in found.features] == [(1, 4)]


@pytest.mark.parametrize(
    "text", ["L14H3=off", "L1H2@8=off", "L1H2@-3:=x0.5", "L0H0@2:5=@4", "L0H0@::2=x-1.0"]
)
def test_text_and_plan_round_trip(text: str) -> None:
    edit = parse_intervention(text)
    assert str(edit) == text
    (again,) = plan_from_json(Plan(edits=(edit,)).to_json()).edits
    assert str(again) == text


def test_a_row_survives_a_plan() -> None:
    edit = HeadEdit(1, 2, slice(3, None), torch.tensor([0.5, 0.5, 0.0]))
    (again,) = plan_from_json(Plan(edits=(edit,)).to_json()).edits
    assert isinstance(again, HeadEdit)
    assert (again.layer, again.head, again.position) == (1, 2, slice(3, None, None))
    assert isinstance(again.value, Tensor)
    assert again.value.tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize(
    ("backend_name", "family"),
    [
        ("transformerlens", "llama"),
        ("transformers", "llama"),
        ("transformers", "mistral"),
        ("transformerlens", "gemma2"),
    ],
)
def test_generated_tokens_have_the_edits_without_an_end(backend_name: str, family: str) -> None:
    """Every step is a pass over the whole text with the edits, up to the rounding of cached keys; windows move on."""
    model = frozen_prompt(family, "plt", backend_name=backend_name, precise=False).model
    edits = ["L1H2=off", f"L0H1@{LAST}=off", f"L2H3@{LAST + 1}:=x-1"]
    options = {"do_sample": False, "max_new_tokens": 3, "stop_at_eos": False, "return_activations": False}
    ids, steps, _ = model.feature_intervention_generate(IDS, edits, freeze_attention=False, **options)
    whole, _ = model.feature_intervention(ids[:-1], edits, freeze_attention=False, return_activations=False)
    torch.testing.assert_close(steps, whole[0, LAST:], atol=1e-4, rtol=1e-4)


def test_a_generated_token_looks_where_it_is_told() -> None:
    edits = [f"L2H3@{LAST + 1}:=@3"]
    options = {"do_sample": False, "max_new_tokens": 2, "stop_at_eos": False, "return_activations": False}
    model = frozen_prompt("llama", "plt", backend_name="transformers", precise=False).model
    ids, steps, _ = model.feature_intervention_generate(IDS, edits, freeze_attention=False, **options)
    whole, _ = model.feature_intervention(ids[:-1], edits, freeze_attention=False, return_activations=False)
    torch.testing.assert_close(steps, whole[0, LAST:], atol=1e-4, rtol=1e-4)
    windowed = frozen_prompt("mistral", "plt", backend_name="transformers", precise=False).model
    with pytest.raises(BadIntervention, match="its window has moved on"):
        windowed.feature_intervention_generate(IDS, edits, freeze_attention=False, **options)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("L9H0=off", "layer 9 doesn't exist"),
        ("L1H9=off", "head 9 doesn't exist"),
        ("L1H0@7=off", "position 7 is outside the 7 tokens"),
        ("L1H0@3:3=off", "the slice contains none"),
        ("L1H0=@4", "query 0 can't look ahead to key 4"),
        ("L1H0@6=@9", "key 9 is outside"),
        ("L1H0=2", "is not valid for a head"),
        ("L1H0@1", "doesn't have the form L14H3@POS=VALUE"),
        ("L1H=off", "doesn't have the form"),
        ("L1H0@x=off", "position 'x' is not a whole number"),
        ("L1H0=xnan", "not finite"),
        (HeadEdit(1, 0, 2, torch.ones(3)), "doesn't fit"),
        (HeadEdit(1, 0, 2, torch.ones(7)), "looks ahead"),
        (HeadEdit(1, 0, 2, 0.5), "is not valid for a head"),  # type: ignore[arg-type]
        (HeadEdit(1.5, 0, 2, Scaled(0.5)), "layer is not a whole number"),  # type: ignore[arg-type]
    ],
)
def test_what_does_not_fit_is_named(edit: Any, message: str) -> None:
    model = frozen_prompt("llama", "plt", precise=False).model
    with pytest.raises(BadIntervention, match=message):
        model.feature_intervention(IDS, [edit])


def test_two_edits_of_one_row_are_refused() -> None:
    model = frozen_prompt("llama", "plt", precise=False).model
    plan = Plan(edits=(parse_intervention("L1H0=off"), parse_intervention("L1H0@3=x2")))
    with pytest.raises(BadIntervention, match="give the same look different values"):
        run_experiment(model.interventions, model.tokenize(IDS), plan)
