"""The linear weights and norms of a Hugging Face model, by the parts that its family declares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from circuit_tracer_cli.backends.base import LayerWeights, LinearWeights, ModelShape, NormWeights, WeightGroup
from circuit_tracer_cli.backends.families.base import Layout
from circuit_tracer_cli.errors import UnsupportedArchitecture

NORM_PARTS = ("ln1", "ln1_post", "ln2", "ln2_post")

HARMLESS = "circuit_tracer_moves_only"
"""Marks hooks that move inputs to another device without changing values."""


def is_plain(module: Any) -> bool:
    """True if a module does `x @ weight.T + bias` and nothing else: a stock class without hooks or a replaced forward."""
    own_class = type(module) is nn.Linear or (
        type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"
    )
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    weight = getattr(module, "weight", None)
    return (
        own_class
        and "forward" not in vars(module)
        and all(getattr(hook, HARMLESS, False) for hook in hooks)
        and isinstance(weight, Tensor)
        and weight.is_floating_point()
        and weight.ndim == 2
    )


def dense_weight(module: Any, plain: bool | None = None) -> Tensor:
    """The weight `(out, in)` of a linear module: a view if it's stored as numbers, else the images of the unit vectors.

    Quantized modules, and those changed by adapters, hooks or parametrizations, are linear in their input, so the images of
    the unit vectors are their weights, whatever the storage.
    """
    if is_plain(module) if plain is None else plain:
        weight: Tensor = module.weight.detach()
        return weight.t() if type(module).__name__ == "Conv1D" else weight
    zero, probe = _probes(module)
    with torch.no_grad():
        found: Tensor = (module(probe) - module(zero)).T
    return found


def bias_of(module: Any, plain: bool) -> Tensor | None:
    """The bias `(out)` of a linear module, or None; for a changed module, its output for zero."""
    bias = getattr(module, "bias", None)
    if plain:
        return None if bias is None else bias.detach()
    with torch.no_grad():
        origin: Tensor = module(_probes(module)[0])[0]
    return origin if bias is not None or bool(origin.any()) else None


def _probes(module: Any) -> tuple[Tensor, Tensor]:
    """A zero `(1, in)` and the unit vectors `(in, in)`, as the module takes them."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    size = getattr(module, "in_features", None)
    if size is None and type(module).__name__ == "Conv1D":
        size = module.weight.shape[0]
    if size is None:
        raise UnsupportedArchitecture(
            f"the projection {type(module).__name__} has no weights that can be read"
        )
    device = weight.device if isinstance(weight, Tensor) else None
    if isinstance(weight, Tensor) and weight.is_floating_point():
        dtype = weight.dtype
    elif isinstance(bias, Tensor):
        dtype = bias.dtype
    else:
        dtype = getattr(module, "compute_dtype", None) or torch.float32
    probe = torch.eye(int(size), device=device, dtype=dtype)
    return torch.zeros_like(probe[:1]), probe


def norm_record(module: Any, layout: Layout) -> NormWeights:
    """The record of a norm module."""
    eps = next((getattr(module, name) for name in ("eps", "variance_epsilon") if hasattr(module, name)), None)
    if eps is None:
        raise UnsupportedArchitecture(f"the norm {type(module).__name__} has no known epsilon")
    gain = module.weight.detach()
    gain = layout.gain_offset + gain.float() if layout.gain_offset else gain
    bias = getattr(module, "bias", None)
    return NormWeights(layout.norm, gain, float(eps), None if bias is None else bias.detach())


class ModelModules:
    """A loaded model's parts under canonical names.

    Args:
        model: Hugging Face's causal language model.
        shape: Its sizes and the paths of its layout.
    """

    def __init__(self, model: Any, shape: ModelShape) -> None:
        self.model, self.shape, self.layout = model, shape, shape.layout
        layout = self.layout
        self.blocks: list[Any] = list(self.module(layout.layers))
        self.n_layers = len(self.blocks)
        paths = {getattr(layout, part) for part in NORM_PARTS} - {None} | {
            layout.v,
            layout.o,
            layout.attn,
            layout.mlp,
        }
        # Found once, before anything wraps the model.
        self.of_block = [{path: self.module(path, block) for path in paths} for block in self.blocks]
        self.embed, self.unembed = self.module(layout.embed), model.get_output_embeddings()
        self.final_norm = self.module(layout.ln_final)
        # Checked now, since libraries around the model add their own hooks to its modules.
        linear = [block[path] for block in self.of_block for path in (layout.v, layout.o)]
        self._plain = {id(module) for module in (*linear, self.unembed) if is_plain(module)}

    @property
    def layer_devices(self) -> tuple[torch.device, ...]:
        """The device of each block's weights."""
        return tuple(next(block[self.layout.o].parameters()).device for block in self.of_block)

    def module(self, path: str, within: nn.Module | None = None) -> Any:
        """A module by its path in the model or in a block. Raises UnsupportedArchitecture naming what is missing."""
        start = self.model if within is None else within
        try:
            return start.get_submodule(path)
        except AttributeError:
            raise UnsupportedArchitecture(
                f"{type(self.model).__name__} has no {path}",
                hint="another version of transformers may have it",
            ) from None

    def parameters_of(self, part: WeightGroup) -> list[Tensor]:
        """The parameters of all MLPs, or of embedding and unembedding; each once, including tied ones."""
        mlps = [block[self.layout.mlp] for block in self.of_block]
        modules = mlps if part == "mlp" else [self.embed, self.unembed]
        found = {id(parameter): parameter for module in modules for parameter in module.parameters()}
        return list(found.values())

    @contextmanager
    def only_logits(self, positions: Sequence[int] = (-1,)) -> Iterator[None]:
        """Make the model unembed only some positions: for a long prompt, all logits would be larger than everything else."""

        def chosen(module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return given[0][..., list(positions), :], *given[1:]

        hook = self.unembed.register_forward_pre_hook(chosen)
        try:
            yield
        finally:
            hook.remove()

    def has(self, part: str) -> bool:
        """True if each block has its own norm with this name."""
        return getattr(self.layout, part) is not None and not (part == "ln2" and self.layout.one_norm)

    def norm(self, layer: int, part: str) -> NormWeights:
        """A block's norm, or one that does nothing if the family has none."""
        path = getattr(self.layout, part)
        if path is None:
            like = self.of_block[layer][self.layout.ln1_post or self.layout.o].weight
            ones = torch.ones(self.shape.d_model, device=like.device, dtype=torch.float32)
            return NormWeights("none", ones, 0.0)
        return norm_record(self.of_block[layer][path], self.layout)

    @property
    def ln_final(self) -> NormWeights:
        """The final norm."""
        return norm_record(self.final_norm, self.layout)

    @property
    def W_E(self) -> Tensor:
        """Raw token embeddings `(vocab, d_model)`."""
        weight: Tensor = self.embed.weight.detach()
        return weight

    @property
    def W_U(self) -> Tensor:
        """The unembedding `(vocab, d_model)`."""
        return dense_weight(self.unembed, id(self.unembed) in self._plain)

    def values(self, projected: Tensor) -> Tensor:
        """The values `(…, kv_head, d_head)` in the output `(…, out)` of the projection that contains them."""
        n_kv, d_head = self.shape.n_kv_heads, self.shape.d_head
        if self.layout.v_interleaved:
            return projected.reshape(*projected.shape[:-1], n_kv, 3, d_head)[..., 2, :]
        return projected[..., -n_kv * d_head :].reshape(*projected.shape[:-1], n_kv, d_head)

    def layer_weights(self, layer: int) -> LayerWeights:
        """The linear weights of one block, as views if the storage allows."""
        v, o = self.of_block[layer][self.layout.v], self.of_block[layer][self.layout.o]
        plain_v, plain_o = id(v) in self._plain, id(o) in self._plain
        W_O, b_V, b_O = dense_weight(o, plain_o), bias_of(v, plain_v), bias_of(o, plain_o)
        post1, post2 = self.layout.ln1_post, self.layout.ln2_post
        return LayerWeights(
            W_V=self.values(dense_weight(v, plain_v).T).permute(1, 2, 0),
            W_O=W_O.reshape(W_O.shape[0], -1, self.shape.d_head),
            b_V=None if b_V is None else self.values(b_V),
            b_O=b_O,
            ln1=self.norm(layer, "ln1"),
            ln2=self.norm(layer, "ln2"),
            ln1_post=None if post1 is None else self.norm(layer, "ln1_post"),
            ln2_post=None if post2 is None else self.norm(layer, "ln2_post"),
        )

    def linear_weights(self) -> LinearWeights:
        """The linear weights of the whole model."""
        with torch.no_grad():
            return LinearWeights(
                layers=tuple(self.layer_weights(layer) for layer in range(self.n_layers)),
                ln_final=self.ln_final,
                W_U=self.W_U,
                W_E=self.W_E,
                parallel=self.shape.parallel,
            )
