"""A model is compared with its linear weights when it is loaded; what changes a module is used or refused, never left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.builders import D_MODEL, FAMILIES, PROMPT, new_model, number_tokenizer, transcoders
from torch import Tensor, nn

from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.backends import backend_class
from circuit_tracer_cli.backends.modules import dense_weight, is_plain
from circuit_tracer_cli.backends.proof import prove, prove_same, short_logits
from circuit_tracer_cli.backends.transformers import TransformersBackend
from circuit_tracer_cli.errors import UnsupportedArchitecture
from circuit_tracer_cli.replacement import ReplacementModel


def behind(model: Any) -> TransformersBackend:
    return TransformersBackend(model, number_tokenizer(), "tiny")


@pytest.mark.parametrize("family", FAMILIES)
def test_models_as_they_are_pass(family: str) -> None:
    prove(behind(new_model(family)))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "phi3"])
def test_rounded_models_pass(family: str) -> None:
    prove(behind(new_model(family, torch.bfloat16)))


class Adapted(nn.Module):
    """A low-rank adapter in the manner of PEFT's: the base's weight shows as its own."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, generator = base, torch.Generator().manual_seed(2)
        self.A = nn.Parameter(torch.randn(2, base.in_features, generator=generator) * 0.3)
        self.B = nn.Parameter(torch.randn(base.out_features, 2, generator=generator) * 0.3)

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    @property
    def in_features(self) -> int:
        return self.base.in_features

    @property
    def out_features(self) -> int:
        return self.base.out_features

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.A.T @ self.B.T

    def merged(self) -> nn.Linear:
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        linear.weight.data = self.base.weight + self.B @ self.A
        if self.bias is not None:
            linear.bias.data = self.bias
        return linear.requires_grad_(False)


def with_adapters(family: str, merged: bool) -> nn.Module:
    model = new_model(family)
    layout = behind(new_model(family)).shape.layout
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith((layout.v, layout.o, "lm_head", "embed_out")):
            adapted = Adapted(module)
            model.set_submodule(name, adapted.merged() if merged else adapted)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "family"),
    [("transformers", "phi3"), ("transformerlens", "llama"), ("nnsight", "phi3"), ("nnsight", "llama")],
)
def test_an_adapted_model_has_the_graph_of_the_merged_one(name: str, family: str) -> None:
    if name == "nnsight":
        pytest.importorskip("nnsight")
    graphs = []
    for merged in (False, True):
        model = with_adapters(family, merged)
        prove(behind(model))
        whole = ReplacementModel(backend_class(name)(model, number_tokenizer(), "tiny"), transcoders("plt"))
        graphs.append(attribute(list(PROMPT), whole))
    assert torch.equal(graphs[0].active_features, graphs[1].active_features)
    torch.testing.assert_close(graphs[0].adjacency_matrix, graphs[1].adjacency_matrix, atol=1e-4, rtol=1e-3)


def test_a_library_that_passes_by_an_adapter_is_refused() -> None:
    """TransformerLens splits fused projections and takes their weights alone."""
    model = with_adapters("phi3", merged=False)
    logits = short_logits(behind(model))
    wrapped = backend_class("transformerlens")(model, number_tokenizer(), "tiny")
    with pytest.raises(UnsupportedArchitecture, match="transformerlens doesn't compute") as caught:
        prove_same(wrapped, logits)
    assert caught.value.hint == "use --backend transformers"


def parametrised(linear: nn.Linear) -> None:
    class Double(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    torch.nn.utils.parametrize.register_parametrization(linear, "weight", Double())


CHANGES: dict[str, Callable[[nn.Linear], Any]] = {
    "a forward hook": lambda linear: linear.register_forward_hook(lambda m, args, out: 2 * out),
    "a pre-hook": lambda linear: linear.register_forward_pre_hook(lambda m, args: (2 * args[0],)),
    "a parametrisation": parametrised,
    "a forward of its own": lambda linear: setattr(linear, "forward", lambda x: 2 * (x @ linear.weight.T)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_linear_module_gives_what_it_does(change: str) -> None:
    linear = nn.Linear(6, 4, bias=False).requires_grad_(False)
    want = 2 * linear.weight.clone()
    assert is_plain(linear)
    CHANGES[change](linear)
    assert not is_plain(linear)
    torch.testing.assert_close(dense_weight(linear), want)


def gate_attention(model: Any) -> None:
    model.model.layers[1].self_attn.register_forward_hook(lambda m, args, out: (1.2 * out[0], *out[1:]))


def bend_values(model: Any) -> None:
    model.model.layers[2].self_attn.v_proj.register_forward_hook(lambda m, args, out: out.relu())


def steer(model: Any) -> None:
    vector = torch.ones(D_MODEL)
    model.model.layers[0].register_forward_hook(
        lambda m, args, out: (out[0] + vector, *out[1:]) if isinstance(out, tuple) else out + vector
    )


def scale_norm(model: Any) -> None:
    model.model.layers[1].input_layernorm.register_forward_hook(lambda m, args, out: 1.1 * out)


def scale_final_norm(model: Any) -> None:
    model.model.norm.register_forward_hook(lambda m, args, out: 1.1 * out)


REFUSED = {
    "layers.1.self_attn": gate_attention,
    "layers.2.self_attn": bend_values,
    "layers.0": steer,
    "layers.1.self_attn ": scale_norm,
    "unembedding": scale_final_norm,
}


@pytest.mark.parametrize("where", REFUSED)
def test_what_no_weights_can_say_is_refused_by_name(where: str) -> None:
    model = new_model("llama")
    REFUSED[where](model)
    with pytest.raises(
        UnsupportedArchitecture, match=rf"{where.strip()}\b.*doesn't match its weights"
    ) as caught:
        prove(behind(model))
    assert "adapter" in str(caught.value.hint)


def test_modules_of_zeros_pass() -> None:
    """Ablated weights give nothing and say nothing: both are zero, and there is no ratio of the two."""
    model = new_model("llama")
    layers = model.model.layers
    layers[1].self_attn.o_proj.weight.data.zero_()
    layers[2].mlp.down_proj.weight.data.zero_()
    prove(behind(model))


def test_a_module_that_is_silenced_is_refused_though_its_weights_are_not() -> None:
    model = new_model("llama")
    model.model.layers[1].self_attn.register_forward_hook(lambda m, args, out: (0 * out[0], *out[1:]))
    with pytest.raises(UnsupportedArchitecture, match=r"layers.1.self_attn\b.*doesn't match its weights"):
        prove(behind(model))
