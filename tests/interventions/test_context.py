"""The local replacement model as plain tensors, against the reference's own and against its definitions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from circuit_tracer_cli.backends.base import Hooks
from circuit_tracer_cli.errors import BadIntervention
from circuit_tracer_cli.replacement import ReplacementModel
from tests.builders import PROMPT, replacement

IDS = list(PROMPT)


@pytest.mark.parametrize("case", ["gemma2-plt-jumprelu-full", "llama-plt-relu-full"])
def test_the_context_is_the_references(golden: Path, case: str) -> None:
    folder = golden / "cases" / case
    inputs = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
    setup, expected = load_file(folder / "setup.safetensors"), load_file(folder / "expected.safetensors")
    model = ReplacementModel.from_pretrained(
        *[str((folder / inputs[part]).resolve()) for part in ("model", "transcoders")], device="cpu"
    )
    context = model.setup_attribution(inputs["prompt"])
    matrix = context.activation_matrix
    assert matrix.is_coalesced()
    assert torch.equal(matrix.indices().T, expected["active_features"])
    torch.testing.assert_close(matrix.values(), expected["activation_values"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(context.logits[0, -1], setup["logits"].flatten()[-model.W_U.shape[1] :])
    for name in ("error_vectors", "token_vectors", "encoder_vecs", "decoder_vecs"):
        torch.testing.assert_close(getattr(context, name), setup[name], atol=1e-4, rtol=1e-5)
    assert torch.equal(context.decoder_locations, setup["decoder_locations"])
    assert torch.equal(context.encoder_to_decoder_map, torch.arange(len(matrix.values())))


def test_a_cross_layer_feature_has_an_entry_for_every_layer_from_its_own() -> None:
    model = replacement("llama", "clt", "jumprelu", skip=True)
    context = model.setup_attribution(IDS)
    indices = context.activation_matrix.indices().T
    n_layers = model.transcoders.n_layers
    entry = 0
    for active, (layer, position, feature) in enumerate(indices.tolist()):
        rows = model.transcoders.decoder_rows(layer, torch.tensor([feature]))[0]
        for target in range(layer, n_layers):
            assert context.encoder_to_decoder_map[entry] == active
            assert context.decoder_locations[:, entry].tolist() == [target, position]
            wanted = rows[target - layer] * context.activation_matrix.values()[active]
            torch.testing.assert_close(context.decoder_vecs[entry], wanted)
            entry += 1
    assert entry == len(context.decoder_vecs)


@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_entries_and_errors_make_up_the_outputs(kind: str) -> None:
    model = replacement("gemma2", kind, "relu")
    context = model.setup_attribution(IDS)
    frozen = model.frozen_pass(context.tokens)
    for layer in range(model.transcoders.n_layers):
        here = context.decoder_locations[0] == layer
        total = model.transcoders.bias(layer).repeat(len(IDS), 1)
        total.index_add_(0, context.decoder_locations[1, here], context.decoder_vecs[here])
        torch.testing.assert_close(
            (total + context.error_vectors[layer])[1:],
            frozen.layers[layer].feature_output[1:],
            atol=1e-5,
            rtol=1e-4,
        )
    assert not context.error_vectors[:, 0].any()


@pytest.mark.parametrize("layers", [None, range(3)])
def test_hooks_pin_another_run(layers: range | None) -> None:
    model = replacement("llama", "plt", "relu")
    n_layers = model.transcoders.n_layers
    activations, hooks = model.setup_intervention_with_freeze(IDS, constrained_layers=layers)
    torch.testing.assert_close(activations, model.get_activations(IDS)[1])
    by_name: dict[str, list[Any]] = {}
    for name, edit in hooks:
        by_name.setdefault(name, []).append(edit)
    assert len(by_name) >= n_layers
    other = torch.tensor([IDS[0], *reversed(IDS[1:])])
    frozen_logits, _ = model.model.run(other, Hooks(by_name))
    free_logits, _ = model.model.run(other, Hooks())
    own_logits, _ = model.model.run(torch.tensor(IDS), Hooks())
    assert not torch.allclose(frozen_logits, free_logits, atol=1e-3)
    assert not torch.allclose(frozen_logits, own_logits, atol=1e-3)
    again, _ = model.model.run(torch.tensor(IDS), Hooks(by_name))
    torch.testing.assert_close(again, own_logits, atol=1e-4, rtol=1e-4)


def test_layers_that_do_not_exist() -> None:
    with pytest.raises(BadIntervention, match="names layer 5"):
        replacement("llama", "plt", "relu").setup_intervention_with_freeze(IDS, range(5, 8))
