"""A model's own neurons as features: their linearisation against autograd, the nodes that are chosen, the model itself edited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import NEURONS, PROMPT, backend, new_model, replacement
from torch import Tensor

from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.attribution.rows import encoder_rows
from circuit_tracer_cli.backends.mlps import neuron_values
from circuit_tracer_cli.errors import InvalidValue, UnknownReference, UnsuitableValue, UnsupportedArchitecture
from circuit_tracer_cli.features.build import build_features
from circuit_tracer_cli.graph.proposals import PROPOSALS, proposals_of
from circuit_tracer_cli.prepare import set_up
from circuit_tracer_cli.replacement import ReplacementModel, neurons_of
from circuit_tracer_cli.request import TraceRequest
from circuit_tracer_cli.transcoders.components import active_features
from circuit_tracer_cli.transcoders.references import NeuronReference, neuron_reference, resolve
from circuit_tracer_cli.validation.direct import measure_direct_effects
from circuit_tracer_cli.validation.faithfulness import measure_layers
from circuit_tracer_cli.validation.subject import Subject

RULES = [("llama", "half rule"), ("llama", "gate frozen"), ("phi3", "half rule"), ("gpt2", "half rule")]


def frozen_neurons(mlp: Any, x: Tensor, rule: str) -> Tensor:
    """RelP's rules by stopping gradients, `(pos, neuron)`: the model's values, the linearisation's gradients."""
    up = x @ mlp.up.T + (0 if mlp.up_bias is None else mlp.up_bias)
    first = up if mlp.gate is None else x @ mlp.gate.T + (0 if mlp.gate_bias is None else mlp.gate_bias)
    act = first * (mlp.activation(first) / first).detach()
    if mlp.gate is None:
        return act
    if rule == "gate frozen":
        return act.detach() * up
    product = act * up
    return 0.5 * product + 0.5 * product.detach()


@pytest.mark.parametrize(("family", "rule"), RULES)
def test_encoder_rows_are_the_gradients_of_the_frozen_linearisation(family: str, rule: str) -> None:
    model = replacement(family, "neurons", rule, dtype=torch.float64)
    frozen = model.frozen_pass(model.tokenize(list(PROMPT)).ids)
    inputs = [layer.feature_input for layer in frozen.layers]
    active = active_features(model.transcoders, inputs, range(1))
    rows = encoder_rows(model.transcoders, active.indices, active.inputs)
    for layer, given in enumerate(inputs):
        mlp, x = model.model.mlp_weights(layer), given.clone().requires_grad_()
        linear = frozen_neurons(mlp, x, rule)
        y = linear.detach()
        assert torch.allclose(y, neuron_values(mlp, given), rtol=0, atol=1e-12)
        # What the error node is measured against is the module's own output.
        written = y @ mlp.down.T + (0 if mlp.down_bias is None else mlp.down_bias)
        assert torch.allclose(written, frozen.layers[layer].feature_output, rtol=0, atol=1e-12)
        span = active.of_layer(layer)
        for (_, pos, neuron), row, value in list(
            zip(active.indices[span].tolist(), rows[span], active.values[span], strict=True)
        )[::7]:
            (gradient,) = torch.autograd.grad(linear[pos, neuron], x, retain_graph=True)
            assert torch.allclose(row, gradient[pos], rtol=0, atol=1e-12)
            assert abs(float(value - y[pos, neuron])) < 1e-12
            biases = (mlp.up_bias, mlp.gate_bias)
            if all(bias is None for bias in biases):
                assert abs(float(row @ given[pos] - value)) < 1e-12


def test_the_slope_at_zero_stands_for_the_ratio_of_a_neuron_at_rest() -> None:
    model = replacement("llama", "neurons", dtype=torch.float64)
    rest = torch.zeros(1, model.cfg.d_model, dtype=torch.float64)
    rows = model.transcoders.encoder_rows(0, torch.tensor([3]), rest)
    assert torch.isfinite(rows).all()
    assert not rows.any()  # silu(0) * up is 0 whatever the input does to first order


def test_only_the_neurons_that_write_most_are_nodes_and_none_at_the_first_position() -> None:
    model = replacement("gemma2", "neurons")
    tokens = model.tokenize(list(PROMPT))
    inputs = [layer.feature_input for layer in model.frozen_pass(tokens.ids).layers]
    active = active_features(model.transcoders, inputs, ())
    assert set(active.indices[:, 1].tolist()) == set(range(1, len(PROMPT)))
    mlp = model.model.mlp_weights(1)
    size = neuron_values(mlp, inputs[1]).abs() * mlp.down.norm(dim=0)
    for pos in range(1, len(PROMPT)):
        here = active.indices[(active.indices[:, 0] == 1) & (active.indices[:, 1] == pos), 2]
        assert set(here.tolist()) == set(size[pos].topk(NEURONS).indices.tolist())


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_interventions_on_the_pinned_model_change_targets_by_the_edges(family: str) -> None:
    model = replacement(family, "neurons")
    graph = attribute(list(PROMPT), model, max_n_logits=3)
    subject = Subject(graph, model)
    nodes = {kind: subject.nodes(kind)[::25] for kind in ("feature", "error", "token")}
    assert any(graph.layout.error_place(node)[1] == 0 for node in subject.nodes("error"))
    found = measure_direct_effects(subject, nodes)
    assert found.agrees
    assert found.n_entries > 200
    (layer,) = measure_layers(subject, [0], count=3, seed=0)
    assert 0.2 < layer.cosine < 1  # what isn't a node, and what is frozen, doesn't follow


def test_an_edited_neuron_is_that_neuron_of_the_model() -> None:
    model = replacement("phi3", "neurons", backend_name="transformers")
    edited, _ = model.feature_intervention(list(PROMPT), ["1/17@4=5"], freeze_attention=False)
    bare = new_model("phi3")

    def edit(_module: Any, given: tuple[Tensor]) -> tuple[Tensor]:
        given[0][0, 4, 17] = 5
        return given

    bare.model.layers[1].mlp.down_proj.register_forward_pre_hook(edit)
    with torch.no_grad():
        wanted = bare(torch.tensor([list(PROMPT)])).logits
    assert torch.allclose(edited, wanted, rtol=0, atol=1e-5)
    plain, _ = model.get_activations(list(PROMPT))
    assert float((plain - wanted).abs().max()) > 0.05


def test_a_graph_says_which_conventions_it_follows() -> None:
    said = [
        attribute(list(PROMPT), replacement(family, "neurons", rule), max_n_logits=1).metadata["transcoders"]
        for family, rule in RULES
    ]
    assert [one["neurons"]["linearisation"].partition(":")[0] for one in said] == [
        "half rule",
        "gate frozen",
        "half rule",
        "ratio act(x)/x frozen",
    ]
    assert said[0]["neurons"]["per_layer_and_position"] == NEURONS
    assert said[1]["scan"] == f"neurons:gate-frozen,top={NEURONS}@tiny/llama"


def test_labels_of_negative_neurons_say_what_they_do_on_this_prompt() -> None:
    model = replacement("llama", "neurons")
    metadata = attribute(list(PROMPT), model, max_n_logits=1).metadata
    negative = metadata[PROPOSALS]["negative"]
    assert negative
    node = next(one for one in negative if one in proposals_of(metadata, None))
    layer, feature, _ = node.split("_")
    of_decoder = metadata[PROPOSALS]["features"][f"{layer}/{feature}"]
    shown = proposals_of(metadata, None)[node]
    assert shown["promotes"] == [[token, -strength] for token, strength in of_decoder["suppresses"]]
    assert shown["suppresses"] == [[token, -strength] for token, strength in of_decoder["promotes"]]


@pytest.mark.parametrize("family", ["gpt_oss", "mixtral", "qwen3_moe"])
def test_neurons_of_experts_are_refused_by_name(family: str) -> None:
    model = backend(family, name="transformers")
    with pytest.raises(UnsupportedArchitecture, match=f"neurons of {model.config.original_architecture}"):
        neurons_of(model, NeuronReference())


def test_a_changed_mlp_is_refused() -> None:
    from circuit_tracer_cli.backends import backend_class

    bare = new_model("llama")
    bare.model.layers[1].mlp.register_forward_hook(lambda _m, _i, out: 2 * out)
    with pytest.raises(UnsupportedArchitecture, match="layer 1"):
        neurons_of(backend_class("transformers")(bare, None, "tiny"), NeuronReference())


@pytest.mark.parametrize(
    ("text", "gate", "top"),
    [
        ("neurons", "half", 128),
        ("neurons:gate-frozen", "frozen", 128),
        ("neurons:top=9", "half", 9),
        ("neurons:gate-frozen,top=9", "frozen", 9),
    ],
)
def test_references_to_neurons(text: str, gate: str, top: int) -> None:
    found = neuron_reference(text)
    assert found is not None
    assert (found.gate, found.top, found.text) == (gate, top, text)
    assert neuron_reference(found.scan("user/name")) == NeuronReference(found.gate, top, "user/name")


def test_wrong_references_to_neurons_are_refused(tmp_path: Path) -> None:
    for text in ("neurons:", "neurons:top=0", "neurons:top=x", "neurons:half"):
        with pytest.raises(InvalidValue, match="neurons can't be chosen by"):
            neuron_reference(text)
    assert neuron_reference("neurons2") is None
    assert neuron_reference(tmp_path / "neurons") is None
    with pytest.raises(UnknownReference, match="no files"):
        resolve("neurons")
    gpt2 = backend("gpt2", name="transformers")
    with pytest.raises(UnsuitableValue, match="no gate"):
        neurons_of(gpt2, NeuronReference("frozen"))
    with pytest.raises(UnsuitableValue, match="neurons of other/model"):
        neurons_of(gpt2, NeuronReference(model="other/model"))


def test_neurons_need_a_model_and_features_build_needs_transcoders(tmp_path: Path) -> None:
    with pytest.raises(UnsuitableValue, match="no model is named"):
        set_up(TraceRequest(transcoder_set="neurons"))
    described = set_up(TraceRequest(transcoder_set="neurons", model="demo")).described
    loaded = ReplacementModel.from_pretrained("demo", "neurons", backend="transformers", device="cpu")
    assert described is not None
    assert described.config.scan == loaded.scan
    assert described.shape.d_transcoder == loaded.transcoders.d_transcoder
    with pytest.raises(UnsuitableValue, match="nearly all are active"):
        build_features(loaded, ["text"], tmp_path)
