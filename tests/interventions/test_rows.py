"""The reference's validation contract (spec/interventions.md 8.6, spec/reference-tests.md 11), and the tests that hold its rows.

| row | test | tolerance |
|---|---|---|
| 8.6, 11.1 a doubled feature changes all by its column | `test_adjacency.py` (all families, kinds, backends); deep: here | 5e-5 |
| 8.6, 11.1 an error or token vector once more | `test_adjacency.py`, deep: here | 5e-5 |
| 8.6, 11.1 demeaned logits, in both | the same | 1e-5, rtol 1e-3 |
| 8.6, 11.2 a difference of logits as target | `test_a_difference_of_logits…` here | 2e-4, rtol 1e-3 |
| 8.6, 11.6 `sparse`, `return_activations` change nothing | `test_run.py`, `test_generate.py`; families: here | 1e-6 |
| 8.6, 11.7 both backends agree, greedy text too | `test_both_backends…` here | logits 1e-4, others 5e-5 |
| 11.2 targets | `tests/attribution/test_targets.py` | |
| 11.5 gradients are the pinned prompt's; none is curved | `test_gradients…`, `test_second_derivatives…` here | 1e-5 |
| 11.6 open ends, generation, 2-D logits | `test_generate.py` | |
| 11.7 error, encoder, decoder vectors | `test_context.py` | 1e-4 |
| 11.7 both backends' graphs | `tests/attribution/test_exactness.py` | 1e-5 of the largest |
| 11.7 amplified features widen the gap | `test_amplified_features…` here | |
| golden interventions, every case and setting | `test_golden.py` | logits 1e-4, activations 5e-4 |
| golden graphs | `tests/parity/test_golden_graphs.py` | |
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from circuit_tracer_cli import CustomTarget, attribute
from circuit_tracer_cli.backends.base import Hooks
from circuit_tracer_cli.interventions.passes import EditedPass, Pins
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.validation.subject import Subject
from tests import builders
from tests.builders import BACKEND_NAMES, FAMILIES, PROMPT, replacement
from tests.interventions.test_adjacency import Measured

IDS = list(PROMPT)
FAST = "gemma2"
"""The family that stands for all others outside the long suite: softcaps, windows, norms before and after."""

families = pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name == FAST else [pytest.mark.long]) for name in FAMILIES]
)


def edits_of(model: ReplacementModel) -> list[tuple[Any, ...]]:
    return [(1, slice(3, None), 4, 3.0), (0, 2, torch.tensor([5, 6]), torch.tensor([1.0, 2.0]))]


@families
@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_delivery_changes_nothing(family: str, kind: str) -> None:
    model = replacement(family, kind, "jumprelu")
    for flags in ({}, {"constrained_layers": range(3)}, {"freeze_attention": False}):
        given: dict[str, Any] = {**flags}
        logits, full = model.feature_intervention(IDS, edits_of(model), **given)
        same, sparse = model.feature_intervention(IDS, edits_of(model), sparse=True, **given)
        bare, nothing = model.feature_intervention(IDS, edits_of(model), return_activations=False, **given)
        assert nothing is None
        assert full is not None
        assert sparse is not None
        for other in (same, bare):
            torch.testing.assert_close(other, logits, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(sparse.to_dense(), full, atol=1e-6, rtol=1e-5)


@families
def test_both_backends_agree_on_activations_edits_and_text(family: str) -> None:
    models = [replacement(family, "clt", "relu", backend_name=name) for name in BACKEND_NAMES]
    for flags in (
        {},
        {"constrained_layers": range(3)},
        {"constrained_layers": range(2)},
        {"freeze_attention": False},
    ):
        given: dict[str, Any] = {**flags, "apply_activation_function": False}
        (a, x), *others = (model.feature_intervention(IDS, edits_of(model), **given) for model in models)
        for b, y in others:
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)
            torch.testing.assert_close(x, y, atol=5e-5, rtol=1e-5)
    greedy: dict[str, Any] = {"do_sample": False, "max_new_tokens": 10, "stop_at_eos": False}
    texts = [
        model.feature_intervention_generate("3 4 7 7 2 9", edits_of(model), **greedy)[0] for model in models
    ]
    assert len(set(texts)) == 1


def difference(model: ReplacementModel) -> CustomTarget:
    W_U = model.W_U
    return CustomTarget("difference", 1.0, W_U[:, 3] - W_U[:, 7])


@families
def test_a_difference_of_logits_changes_by_its_row(family: str) -> None:
    model = replacement(family, "plt", "relu")
    graph = attribute(IDS, model, attribution_targets=[difference(model)])
    subject, row = Subject(graph, model), graph.adjacency_matrix[graph.layout.logit_offset]
    everything = range(model.transcoders.n_layers)
    with model.zero_softcap():
        nodes = subject.nodes("feature")
        for node in nodes[:: max(1, len(nodes) // 10)]:
            layer, position, feature = subject.features[node].tolist()
            changes = [
                model.feature_intervention(IDS, [f"{layer}/{feature}@{position}=x{factor}"], everything)[0][
                    0, -1
                ]
                for factor in (1, 2)
            ]
            gap = [float(logits[3] - logits[7]) for logits in changes]
            assert gap[1] - gap[0] == pytest.approx(float(row[node]), abs=2e-4, rel=1e-3)


@pytest.mark.parametrize("name", BACKEND_NAMES)
def test_amplified_features_widen_the_gap(name: str) -> None:
    model = replacement("llama", "plt", "relu", backend_name=name)
    graph = attribute(IDS, model, attribution_targets=[difference(model)])
    row = graph.adjacency_matrix[graph.layout.logit_offset, : graph.layout.n_features]
    places = graph.active_features[graph.selected_features][row.topk(10).indices].tolist()
    edits = [f"{layer}/{feature}@{position}=x10" for layer, position, feature in places]
    logits, _ = model.feature_intervention(IDS, edits, range(3), return_activations=False)
    plain, _ = model.get_activations(IDS)
    gaps = [float(one[0, -1, 3] - one[0, -1, 7]) for one in (plain, logits)]
    assert gaps[1] - gaps[0] == pytest.approx(9 * float(row.topk(10).values.sum()), rel=1e-3)
    assert gaps[1] > gaps[0] + 1


class Frozen:
    """The model with patterns and norm scales of one prompt, as a function of embeddings and MLP outputs.

    Args:
        model: The model.
        ids: The prompt that runs; its own patterns and scales don't count.
    """

    def __init__(self, model: ReplacementModel, ids: list[int]) -> None:
        self.model, self.ids = model, torch.tensor(ids)
        self.site = model.interventions.site
        self.frozen = model.interventions.unmodified(model.tokenize(IDS)).frozen
        plain = model.frozen_pass(self.ids)
        self.leaves = [plain.embed.clone(), *(layer.feature_output.clone() for layer in plain.layers)]

    def logit(self, *leaves: Tensor) -> Tensor:
        """The logit that the first prompt has largest, with these embeddings and outputs."""
        pins = Pins(self.frozen, patterns=True, scales=True)
        hooks = {k: list(v) for k, v in EditedPass(self.site, {}, pins, None).hooks().by_name.items()}
        names = [self.site.names.start, *self.site.names.write]
        for name, leaf in zip(names, leaves, strict=True):
            hooks.setdefault(name, []).append(lambda value, leaf=leaf: leaf[None].to(value.dtype))
        with self.model.zero_softcap():
            logits, _ = self.model.model.run(self.ids, Hooks(hooks))
        return logits[-1, int(self.frozen.logits.argmax())]

    def gradients(self) -> tuple[Tensor, ...]:
        """Of the logit, by embeddings and MLP outputs."""
        leaves = [leaf.requires_grad_() for leaf in self.leaves]
        return torch.autograd.grad(self.logit(*leaves), leaves)


@families
def test_gradients_are_those_of_the_pinned_prompt(family: str) -> None:
    model = replacement(family, "plt", "relu")
    others = [IDS[0], *((7 * token + 5) % 40 + 2 for token in IDS[1:])]
    assert others != IDS
    own, other = Frozen(model, IDS).gradients(), Frozen(model, others).gradients()
    for one, another in zip(own, other, strict=True):
        assert float(one.abs().max()) > 1e-3
        torch.testing.assert_close(one, another, atol=1e-5, rtol=1e-4)


@families
def test_second_derivatives_are_zero(family: str) -> None:
    frozen = Frozen(replacement(family, "plt", "relu"), IDS)
    leaves = [leaf.requires_grad_() for leaf in frozen.leaves]
    first = torch.autograd.grad(frozen.logit(*leaves), leaves, create_graph=True)
    generator = torch.Generator().manual_seed(0)
    for gradient in first:
        flat = gradient.flatten()
        for index in torch.randint(len(flat), (5,), generator=generator).tolist():
            if not flat[index].requires_grad:
                continue  # no graph leads back: constant, as it should be
            second = torch.autograd.grad(flat[index], leaves, retain_graph=True, allow_unused=True)
            assert all(part is None or float(part.abs().max()) < 1e-5 for part in second)


@pytest.mark.long
@pytest.mark.parametrize(("family", "kind"), [("gemma2", "plt"), ("llama", "clt")])
def test_columns_of_a_deep_model(family: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class_name, values = FAMILIES[family]
    types = {"layer_types": 8 * ["sliding_attention", "full_attention"]} if "layer_types" in values else {}
    monkeypatch.setitem(
        builders.FAMILIES, f"{family}-deep", (class_name, {**values, "num_hidden_layers": 16, **types})
    )
    model = replacement(f"{family}-deep", kind, "jumprelu", n_layers=16)
    with model.zero_softcap():
        measured = Measured(model)
        nodes = measured.subject.nodes("feature")
        for node in nodes[:: max(1, len(nodes) // 100)]:
            measured.double(node)
        errors = measured.subject.nodes("error")
        for node in errors[:: max(1, len(errors) // 20)]:
            measured.add(node)
        for position in range(measured.graph.layout.n_pos):
            measured.add(measured.graph.layout.token_offset + position)
