"""Passes with edits: flags, reuse, hooks, precision of what is pinned, positions that count as zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from circuit_tracer_cli.backends.base import Hooks
from circuit_tracer_cli.errors import BadIntervention
from circuit_tracer_cli.interventions import passes
from circuit_tracer_cli.interventions.spec import Scaled
from circuit_tracer_cli.replacement import ReplacementModel
from tests.builders import PROMPT, replacement

IDS = list(PROMPT)
FLAGS: list[dict[str, Any]] = [
    {},
    {"freeze_attention": False},
    {"constrained_layers": range(3)},
    {"constrained_layers": range(1, 3)},
    {"freeze_attention": False, "apply_activation_function": False},
]


def first_active(model: ReplacementModel, layer: int = 1) -> tuple[int, int, int, float]:
    """Layer, position, feature and activation of some active feature behind the first token."""
    _, activations = model.get_activations(IDS)
    position, feature = activations[layer, 2:].nonzero()[0].tolist()
    return layer, position + 2, feature, float(activations[layer, position + 2, feature])


def dense(activations: Tensor | None) -> Tensor:
    assert activations is not None
    return activations.to_dense() if activations.is_sparse else activations


@pytest.mark.parametrize("kind", ["plt", "clt"])
@pytest.mark.parametrize("flags", FLAGS)
def test_results_do_not_depend_on_how_they_are_delivered(kind: str, flags: dict[str, Any]) -> None:
    model = replacement("llama", kind, "jumprelu", skip=True)
    layer, position, feature, value = first_active(model)
    edits = [(layer, position, feature, 3 * value), (0, slice(3, None), 5, 2.0)]
    logits, activations = model.feature_intervention(IDS, edits, **flags)
    same_logits, sparse = model.feature_intervention(IDS, edits, sparse=True, **flags)
    bare_logits, nothing = model.feature_intervention(IDS, edits, return_activations=False, **flags)
    assert nothing is None
    assert logits.shape == (1, len(IDS), 48)
    assert sparse is not None
    assert sparse.is_coalesced()
    torch.testing.assert_close(same_logits, logits, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(bare_logits, logits, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(dense(sparse), dense(activations), atol=1e-6, rtol=1e-5)


def test_sparse_activations_are_the_dense_ones() -> None:
    model = replacement("qwen3", "plt", "topk")
    for applied in (True, False):
        logits, full = model.get_activations(IDS, apply_activation_function=applied)
        same, sparse = model.get_activations(IDS, sparse=True, apply_activation_function=applied)
        assert sparse.is_coalesced()
        assert torch.equal(sparse.to_dense(), full)
        assert torch.equal(same, logits)
        assert not full[:, 0].any()


def test_without_edits_nothing_is_pinned() -> None:
    model = replacement("llama", "plt")
    plain, _ = model.get_activations(IDS)
    for flags in FLAGS:
        logits, _ = model.feature_intervention(IDS, [], **flags)
        assert torch.equal(logits, plain)


def test_text_and_ids_are_the_same_prompt() -> None:
    model = replacement("llama", "plt")
    from_ids, _ = model.get_activations(torch.tensor([0, 3, 42, 7]))
    from_text, _ = model.get_activations("3 42 7")
    assert torch.equal(from_ids, from_text)


def test_an_edit_to_the_original_value_changes_nothing() -> None:
    model = replacement("gemma2", "clt", "jumprelu")
    plain, _ = model.get_activations(IDS)
    for flags in FLAGS:
        logits, _ = model.feature_intervention(IDS, [(1, slice(1, None), 4, Scaled(1.0))], **flags)
        torch.testing.assert_close(logits, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("flags", FLAGS)
def test_relative_values_are_multiples_of_the_unmodified_activation(flags: dict[str, Any]) -> None:
    model = replacement("llama", "plt")
    layer, position, feature, value = first_active(model, layer=2)
    other = (0, slice(1, None), 3, 4.0)
    relative, _ = model.feature_intervention(IDS, [other, (layer, position, feature, Scaled(-2.0))], **flags)
    absolute, _ = model.feature_intervention(IDS, [other, (layer, position, feature, -2 * value)], **flags)
    text, _ = model.feature_intervention(IDS, ["0/3@1:=4", f"{layer}/{feature}@{position}=x-2"], **flags)
    torch.testing.assert_close(relative, absolute, atol=1e-5, rtol=1e-5)
    assert torch.equal(text, relative)


def test_at_a_zeroed_position_the_activation_counts_as_zero() -> None:
    model = replacement("llama", "plt")
    hook, seen = model.model.write_hook("hook_mlp_out"), {}
    edit = (1, 0, 4, 1.5)
    row = model.transcoders.decoder_rows(1, torch.tensor([4]))[0, 0]
    plain = model.interventions.unmodified(model.tokenize(IDS)).frozen.layers[1].feature_output
    edited = passes.EditedPass(
        model.interventions.site,
        passes_cells(model, edit),
        None,
        None,
        zeroed=[0],
    )
    hooks = edited.hooks()
    name = f"blocks.1.{hook}"
    keep = [*hooks.by_name[name], lambda value: seen.__setitem__("out", value[0])]
    model.model.run(torch.tensor(IDS), Hooks({**hooks.by_name, name: keep}))
    torch.testing.assert_close(seen["out"][0], plain[0] + 1.5 * row, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen["out"][1:], plain[1:], atol=1e-6, rtol=1e-6)


def passes_cells(model: ReplacementModel, edit: tuple[Any, ...]) -> Any:
    """The cells of one edit."""
    from circuit_tracer_cli.interventions.cells import resolve
    from circuit_tracer_cli.interventions.spec import as_interventions

    return resolve(as_interventions([edit]), len(IDS), model.transcoders)


def test_cross_layer_writes_outside_the_range_are_dropped() -> None:
    model = replacement("llama", "clt")
    layer, position, feature, value = first_active(model, layer=0)
    edit = (layer, position, feature, 5 * value)
    _, base = model.get_activations(IDS, apply_activation_function=False)
    _, after = model.feature_intervention(
        IDS, [edit], constrained_layers=[2], apply_activation_function=False
    )
    torch.testing.assert_close(dense(after), base, atol=1e-5, rtol=1e-5)
    logits, _ = model.feature_intervention(IDS, [edit], constrained_layers=[2])
    plain, _ = model.get_activations(IDS)
    assert float((logits - plain).abs().max()) > 1e-3


def test_the_unmodified_run_is_computed_once_per_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ReplacementModel(replacement("llama", "plt").model, replacement("llama", "plt").transcoders)
    calls = []
    frozen_pass = model.model.frozen_pass
    monkeypatch.setattr(model.model, "frozen_pass", lambda *given: calls.append(1) or frozen_pass(*given))
    for feature in range(4):
        model.feature_intervention(IDS, [(1, 2, feature, 3.0)], constrained_layers=range(3))
    assert len(calls) == 1
    model.feature_intervention(IDS[:-1], [(1, 2, 0, 3.0)])
    model.feature_intervention(IDS, [(1, 2, 0, 3.0)])
    assert len(calls) == 2
    model.interventions.forget()
    model.feature_intervention(IDS, [(1, 2, 0, 3.0)])
    assert len(calls) == 3


def test_only_what_is_needed_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = replacement("llama", "plt")
    model.interventions.forget()
    encoded: list[int] = []
    encode_layer = model.transcoders.encode_layer

    def counting(x: Tensor, layer: int, apply_activation_function: bool = True) -> Tensor:
        encoded.append(layer)
        return encode_layer(x, layer, apply_activation_function)

    monkeypatch.setattr(model.transcoders, "encode_layer", counting, raising=False)
    model.feature_intervention(IDS, [(1, 2, 0, 3.0)], return_activations=False)
    assert encoded == [1]
    model.feature_intervention(IDS, [(2, 2, 0, 3.0)], constrained_layers=range(3), return_activations=False)
    assert encoded == [1, 2]
    model.feature_intervention(IDS, [(2, 2, 0, 4.0)], constrained_layers=range(3), return_activations=False)
    assert encoded == [1, 2]


def test_hooks_are_gone_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    model = replacement("llama", "plt")
    plain, _ = model.get_activations(IDS)

    def broken(*given: object) -> Tensor:
        raise RuntimeError("no rows")

    monkeypatch.setattr(model.transcoders, "decoder_rows", broken, raising=False)
    with pytest.raises(RuntimeError, match="no rows"):
        model.feature_intervention(IDS, [(1, 2, 0, 30.0)], constrained_layers=range(3))
    with pytest.raises(RuntimeError, match="no rows"):
        model.feature_intervention_generate(IDS, [(1, slice(2, None), 0, 30.0)])
    monkeypatch.undo()
    again, _ = model.get_activations(IDS)
    assert torch.equal(again, plain)


@pytest.mark.parametrize(
    ("layers", "part"),
    [
        ([], "empty"),
        (range(4), "names layer 3"),
        ([-1], "names layer -1"),
        (5, "not a range"),
        (["a"], "not a range"),
    ],
)
def test_constrained_layers_that_cannot_be(layers: Any, part: str) -> None:
    model = replacement("llama", "plt")
    with pytest.raises(BadIntervention, match=part):
        model.feature_intervention(IDS, [(1, 2, 0, 3.0)], constrained_layers=layers)


def test_sixteen_bits_go_through() -> None:
    model = replacement("llama", "plt", dtype=torch.bfloat16)
    layer, position, feature, _ = first_active(model)
    plain, _ = model.get_activations(IDS)
    logits, activations = model.feature_intervention(IDS, [(layer, position, feature, Scaled(8.0))])
    assert logits.dtype == dense(activations).dtype == torch.bfloat16
    assert float((logits - plain).abs().max()) > 0
