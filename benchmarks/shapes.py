"""Random models and transcoder sets of real shapes, for measuring. Nothing here is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.backends.transformerlens import TransformerLensBackend
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.transcoders.activations import JumpReLU
from circuit_tracer_cli.transcoders.clt import CrossLayerTranscoder
from circuit_tracer_cli.transcoders.plt import SingleLayerTranscoder, TranscoderSet

VOCABULARY = 65_536
L0 = 45
"""Active features per position and layer that thresholds are calibrated to."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a Llama-shaped model and of its transcoders."""

    d_model: int = 1024
    n_layers: int = 16
    n_heads: int = 16
    n_kv_heads: int = 4
    d_mlp: int = 4096
    plt_features: int = 16_384
    clt_features: int = 8_192
    head_width: int = 0
    vocabulary: int = VOCABULARY

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.head_width or self.d_model // self.n_heads


SHAPES = {
    "bench": Shape(),
    "llama-3.2-1b": Shape(2048, 16, 32, 8, 8192, 32_768, 16_384, head_width=64, vocabulary=128_256),
    "gemma-2-2b": Shape(2304, 26, 8, 4, 9216, 16_384, 16_384, head_width=256, vocabulary=256_000),
    "qwen3-4b": Shape(2560, 36, 32, 8, 9728, 32_768, 16_384, head_width=128, vocabulary=151_936),
}
"""Sizes of real models. All are built as Llamas: norms and biases cost next to nothing."""


def number_tokenizer() -> Any:
    """A tokenizer whose words are numbers; prompts are random ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({str(i): i for i in range(256)}, unk_token="1"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="0", unk_token="1")


def random_backend(shape: Shape, device: torch.device, dtype: torch.dtype) -> TransformerLensBackend:
    """A Llama-shaped model with random weights, ready to be traced."""
    return TransformerLensBackend(llama(shape).to(device, dtype), number_tokenizer(), "random/llama")


def llama(shape: Shape) -> Any:
    """A Llama-shaped model with random weights, always the same."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.d_model,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_kv_heads,
        head_dim=shape.d_head,
        intermediate_size=shape.d_mlp,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.config.architectures = ["LlamaForCausalLM"]
    return model.eval()


def thresholds(backend: TransformerLensBackend, encoders: list[Tensor], n_tokens: int = 64) -> list[Tensor]:
    """Per layer the threshold that leaves `L0` features active on random tokens."""
    tokens = random_prompt(n_tokens, backend.device)
    frozen = backend.frozen_pass(tokens, "mlp.hook_in", "hook_mlp_out")
    found = []
    for layer, W_enc in zip(frozen.layers, encoders, strict=True):
        z = layer.feature_input.to(W_enc) @ W_enc.T
        cut = torch.topk(z, L0 + 1, dim=1).values[:, -1].mean()
        found.append(cut.clamp_min(1e-4).expand(len(W_enc)).to(W_enc).clone())
    return found


def random_prompt(n_tokens: int, device: torch.device | str = "cpu") -> Tensor:
    """Random ids, the special first token in front."""
    generator = torch.Generator().manual_seed(n_tokens)
    ids = torch.randint(2, VOCABULARY, (n_tokens,), generator=generator)
    ids[0] = 0
    return ids.to(device)


def random_model(kind: str, shape: Shape, device: torch.device, dtype: torch.dtype) -> ReplacementModel:
    """A random model with a random per-layer (`plt`) or cross-layer (`clt`) set."""
    backend = random_backend(shape, device, dtype)
    generator = torch.Generator(device).manual_seed(1)

    def normal(*size: int) -> Tensor:
        return torch.empty(*size, device=device, dtype=dtype).normal_(
            std=shape.d_model**-0.5, generator=generator
        )

    n_features = shape.plt_features if kind == "plt" else shape.clt_features
    encoders = [normal(n_features, shape.d_model) for _ in range(shape.n_layers)]
    cuts = thresholds(backend, encoders)
    b_enc = [torch.zeros(n_features, device=device, dtype=dtype) for _ in encoders]
    b_dec = [torch.zeros(shape.d_model, device=device, dtype=dtype) for _ in encoders]
    if kind == "plt":
        members = [
            SingleLayerTranscoder.from_tensors(
                W_enc, normal(n_features, shape.d_model), b_enc[i], b_dec[i], JumpReLU(cuts[i])
            )
            for i, W_enc in enumerate(encoders)
        ]
        return ReplacementModel(backend, TranscoderSet(members, "mlp.hook_in", "hook_mlp_out", scan="random"))
    decoders = [normal(n_features, shape.n_layers - i, shape.d_model) for i in range(shape.n_layers)]
    transcoders = CrossLayerTranscoder.from_tensors(
        encoders,
        decoders,
        b_enc,
        b_dec,
        activations=[JumpReLU(cut) for cut in cuts],
        feature_input_hook="mlp.hook_in",
        feature_output_hook="hook_mlp_out",
        scan="random",
    )
    return ReplacementModel(backend, transcoders)
