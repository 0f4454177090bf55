"""Models whose files are quantised, through the loader: MXFP4 as GPT-OSS is published, and bitsandbytes where it is installed."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.builders import FAMILIES, PROMPT, number_tokenizer, randomise, transcoders
from tests.cases import one_of
from torch import Tensor

from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.backends import backend_class
from circuit_tracer_cli.replacement import ReplacementModel

CPU = torch.device("cpu")
WIDE = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "head_dim": 16}
"""Sizes that hold whole blocks of 32 numbers."""

FP4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
FP4 = torch.cat([FP4, -FP4])


def tiny(family: str, **settings: Any) -> Any:
    """A tiny model of a family, wide enough for blocks."""
    import transformers

    class_name, values = FAMILIES[family]
    values = {**values, **WIDE, **settings}
    config = getattr(transformers, class_name)(**values, bos_token_id=0, eos_token_id=1, pad_token_id=None)
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    )
    randomise(model, seed=4)
    return model.eval()


def replacement(model: Any) -> ReplacementModel:
    """A loaded backend with a tiny set of its width."""
    return ReplacementModel(model, transcoders("plt", d_model=64))


def packed(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """MXFP4 of `(expert, in, out)`: two numbers of four bits in a byte, one power of two for 32 of them, and what that means."""
    groups = weight.transpose(1, 2).unflatten(-1, (-1, 32))
    exponent = groups.abs().amax(-1).log2().floor() - 2
    codes = (groups / exponent.exp2()[..., None])[..., None].sub(FP4).abs().argmin(-1)
    meant = (FP4[codes] * exponent.exp2()[..., None]).flatten(-2).transpose(1, 2)
    blocks = (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)
    return blocks, (exponent + 127).to(torch.uint8), meant


def mxfp4_folder(folder: Path) -> Any:
    """A GPT-OSS with packed experts in a folder, and the model that it means."""
    model = tiny("gpt_oss", tie_word_embeddings=False)
    tensors: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            tensors[f"{name}_blocks"], tensors[f"{name}_scales"], meant = packed(weight)
            weight.copy_(meant)
        else:
            weight.copy_(weight.bfloat16())
            tensors[name] = weight.bfloat16().clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    config = model.config.to_dict() | {
        "architectures": ["GptOssForCausalLM"],
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": kept},
    }
    (folder / "config.json").write_text(json.dumps(config, default=str), encoding="utf-8")
    number_tokenizer().save_pretrained(folder)
    return model


def test_a_published_gpt_oss_is_unpacked_and_traced(tmp_path: Path) -> None:
    plain = mxfp4_folder(tmp_path)
    plain.config.architectures = ["GptOssForCausalLM"]
    loaded = backend_class("transformerlens").from_pretrained(str(tmp_path), CPU, torch.float32)
    want = attribute(list(PROMPT), replacement(type(loaded)(plain, number_tokenizer(), "tiny")))
    got = attribute(list(PROMPT), replacement(loaded))
    assert torch.equal(got.active_features, want.active_features)
    torch.testing.assert_close(got.adjacency_matrix, want.adjacency_matrix, atol=1e-5, rtol=1e-4)


def stored_weight(module: Any, bits: int) -> Tensor:
    """What a bitsandbytes module's storage means, by the library's own functions, before its first use."""
    functional = pytest.importorskip("bitsandbytes").functional
    if bits == 4:
        meant: Tensor = functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
        return meant.float()
    scales = (
        module.weight.SCB if module.weight.SCB is not None else module.state.SCB
    )  # moved by the first pass
    return module.weight.data.float() * scales.float()[:, None] / 127


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("bits", "name"), one_of(*product([4, 8], ["transformerlens", "nnsight"])))
def test_a_model_of_bitsandbytes_is_traced(tmp_path: Path, bits: int, name: str) -> None:
    """`W_V` and `W_O` are what the storage means and MLPs stay packed; in 8 bits rows equal autograd as far as rounding goes."""
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    tiny("llama", head_dim=16).save_pretrained(tmp_path)
    number_tokenizer().save_pretrained(tmp_path)
    how = {8: {"load_in_8bit": True}, 4: {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32}}[
        bits
    ]
    model = backend_class(name).from_pretrained(
        str(tmp_path), CPU, torch.float32, quantization_config=BitsAndBytesConfig(**how)
    )
    block = model.modules.of_block[1]
    want = stored_weight(
        getattr(block["self_attn.v_proj"], "original_component", block["self_attn.v_proj"]), bits
    )
    got = model.weights.layers[1].W_V.flatten(0, 1)
    torch.testing.assert_close(got, want, atol=2**-8 * float(want.abs().max()), rtol=2**-7)
    graph = attribute(list(PROMPT), replacement(model))
    assert graph.metadata["engine"] == "closed-form"
    assert block["mlp"].gate_proj.weight.dtype in (torch.uint8, torch.int8)
    if bits == 4:  # whose products in bfloat16 on a CPU with AVX-512 have no gradient
        return
    by_autograd = attribute(list(PROMPT), replacement(model), engine="vector-jacobian").adjacency_matrix
    difference = float((graph.adjacency_matrix - by_autograd).abs().max())
    assert difference < 0.03 * float(by_autograd.abs().max())
