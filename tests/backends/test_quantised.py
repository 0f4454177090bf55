"""Weights of quantised projections, by a stand-in with the interface of bitsandbytes' modules: packed storage, own forward."""

from __future__ import annotations

import pytest
import torch
from tests.builders import PROMPT, new_model, number_tokenizer, transcoders
from tests.cases import one_of
from torch import Tensor, nn

from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.backends.families import family_for
from circuit_tracer_cli.backends.modules import dense_weight
from circuit_tracer_cli.backends.transformerlens import TransformerLensBackend
from circuit_tracer_cli.replacement import ReplacementModel


class PackedLinear(nn.Module):
    """A linear map kept as int8 with a scale per row; `weight` is no matrix of numbers that could be used as it is."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = linear.weight.abs().amax(1) / 127
        packed = (linear.weight / scale[:, None]).round().to(torch.int8).flatten()[:, None]
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.scale, self.bias = scale.detach(), linear.bias

    def unpacked(self) -> Tensor:
        """`(out, in)`."""
        return self.weight.view(self.out_features, self.in_features) * self.scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        out = x @ self.unpacked().T
        return out if self.bias is None else out + self.bias


def quantised(family: str, everywhere: bool) -> nn.Module:
    """A tiny model whose projections are packed; if not everywhere, plain layers with the same rounded weights."""
    model = new_model(family)
    for name, module in list(model.named_modules()):
        if not isinstance(module, nn.Linear) or name == "lm_head":
            continue
        packed = PackedLinear(module)
        if everywhere:
            model.set_submodule(name, packed)
        else:
            module.weight.data = packed.unpacked()
    return model


@pytest.mark.parametrize("bias", [False, True])
def test_packed_weights_are_unpacked_bias_apart(bias: bool) -> None:
    torch.manual_seed(0)
    packed = PackedLinear(nn.Linear(6, 4, bias=bias))
    torch.testing.assert_close(dense_weight(packed), packed.unpacked(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", one_of("llama", "qwen2"))
def test_a_quantised_model_has_the_graph_of_its_rounded_weights(family: str) -> None:
    graphs = [
        attribute(
            list(PROMPT),
            ReplacementModel(
                TransformerLensBackend(quantised(family, everywhere), number_tokenizer(), "tiny"),
                transcoders("plt"),
            ),
        )
        for everywhere in (True, False)
    ]
    assert torch.equal(graphs[0].active_features, graphs[1].active_features)
    torch.testing.assert_close(graphs[0].adjacency_matrix, graphs[1].adjacency_matrix, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["bitsandbytes", "mxfp4"])
def test_known_storage_is_no_reason_to_refuse(method: str) -> None:
    config = {"architectures": ["GptOssForCausalLM"], "quantization_config": {"quant_method": method}}
    assert family_for(config).name == "GPT-OSS"
