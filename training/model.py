"""The demo model in plain PyTorch, with the parameter names and the arithmetic of Hugging Face's Llama.

Training needs what the Hugging Face class doesn't give cheaply: replacing MLP outputs at one position, reading
the residual stream early, and the size of the MLP's activations. Export is a copy of the state dict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

Edit = Callable[[int, Tensor, Tensor], Tensor]

# Interchange training replaces the outputs of the first two MLPs at the entity's position.
PATCHED_LAYERS = 2


@dataclass(frozen=True)
class Shape:
    """Sizes of the demo model."""

    vocabulary: int
    layers: int = 5
    width: int = 128
    heads: int = 4
    hidden: int = 384
    context: int = 64


@dataclass
class Trace:
    """What one forward pass gives: logits, residual stream after the patched layers, MLP outputs, sparsity."""

    logits: Tensor
    early: Tensor
    mlp_inputs: list[Tensor]
    mlp_outputs: list[Tensor]
    sparsity: Tensor


class Attention(nn.Module):
    """Causal attention with rotary positions, no biases."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.head_width = shape.heads, shape.width // shape.heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(shape.width, shape.width, bias=False) for _ in range(4)
        )

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows, length, width = x.shape
        q, k, v = (
            projection(x).view(rows, length, self.heads, self.head_width).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(rows, length, width))
        return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in Hugging Face's half-split convention."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Mlp(nn.Module):
    """Gated MLP with ReLU on the gate."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down_proj = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and the L1 size of the activations in units of what they write, per position."""
        activations = F.relu(self.gate_proj(x)) * self.up_proj(x)
        size = activations.abs() @ self.down_proj.weight.norm(dim=0)
        return self.down_proj(activations), size


class Block(nn.Module):
    """Attention and MLP, each behind its norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(shape), Mlp(shape)
        self.input_layernorm = nn.RMSNorm(shape.width, eps=1e-5)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, eps=1e-5)


class Decoder(nn.Module):
    """Embedding, blocks and final norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=1e-5)


class DemoTransformer(nn.Module):
    """A small Llama whose MLP outputs can be replaced while training."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Decoder(shape)
        self.lm_head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                closing = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.03 if closing else 0.06)

    def forward(self, ids: Tensor, edit: Edit | None = None) -> Trace:
        """Run the model; `edit`, if given, gets every layer's MLP input and output and returns the output to use."""
        x = self.model.embed_tokens(ids)
        early = x
        cos, sin = rotary_table(ids.shape[1], self.shape.width // self.shape.heads)
        inputs, outputs = [], []
        sparsity = x.new_zeros(())
        for number, block in enumerate(self.model.layers):
            assert isinstance(block, Block)
            x = x + block.self_attn(block.input_layernorm(x), cos, sin)
            inputs.append(block.post_attention_layernorm(x))
            output, size = block.mlp(inputs[-1])
            sparsity = sparsity + size[:, 1:].mean()
            if edit is not None:
                output = edit(number, inputs[-1], output)
            outputs.append(output)
            x = x + output
            if number == PATCHED_LAYERS - 1:
                early = x
        return Trace(self.read(x), early, inputs, outputs, sparsity)

    def read(self, residual: Tensor) -> Tensor:
        """Logits from a residual stream, final or early."""
        logits: Tensor = self.lm_head(self.model.norm(residual))
        return logits


def rotary_table(length: int, head_width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, (length, head width)."""
    frequencies = 10000.0 ** (-torch.arange(0, head_width, 2) / head_width)
    angles = torch.arange(length)[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def export_model(model: DemoTransformer, folder: Path) -> None:
    """Write a Hugging Face folder in bfloat16 that carries no path of this machine."""
    shape = model.shape
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        hidden_act="relu",
        max_position_embeddings=shape.context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
    )
    llama = LlamaForCausalLM(config)
    llama.load_state_dict(model.state_dict())
    half = llama.to(dtype=torch.bfloat16)  # type: ignore[call-arg]
    half.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def import_model(folder: Path) -> DemoTransformer:
    """Read an exported folder back, in float32."""
    llama = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = llama.config
    model = DemoTransformer(
        Shape(
            config.vocab_size,
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            config.max_position_embeddings,
        )
    )
    model.load_state_dict(llama.state_dict())
    return model.eval()
