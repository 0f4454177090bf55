"""Shared by all backends: frozen quantities from a model that runs with functions at named hooks.

The names are TransformerLens's: `blocks.0.ln1.hook_in`, `blocks.0.attn.hook_pattern`, `blocks.0.mlp.hook_out`. A backend defines
how to run the model with them; the family's declared parts determine which exist.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.backends.base import (
    FreezeNames,
    FrozenGraph,
    FrozenLayer,
    FrozenPass,
    Hooks,
    LinearWeights,
    MlpWeights,
    ModelShape,
    NormWeights,
    PartialRun,
    ScoreWeights,
    WeightGroup,
)
from circuit_tracer_cli.backends.changed_runs import outputs_seen, partial_run
from circuit_tracer_cli.backends.families import architecture_of, family_for
from circuit_tracer_cli.backends.frozen_run import run_frozen
from circuit_tracer_cli.backends.mlps import MlpModules
from circuit_tracer_cli.backends.model_config import model_shape, unified_config
from circuit_tracer_cli.backends.modules import NORM_PARTS, ModelModules
from circuit_tracer_cli.backends.points import (
    READ_HOOKS,
    WRITE_HOOKS,
    FeaturePoints,
    feature_points,
    read_hook,
)
from circuit_tracer_cli.backends.scores import ScoreModules
from circuit_tracer_cli.errors import InvalidValue


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


class HookedBackend:
    """A Hugging Face model behind canonical hook names.

    Args:
        hf_model: The loaded causal language model, eager attention.
        tokenizer: Its tokenizer, or None if prompts are given as ids.
        name: Its folder or name on the hub; stored in graphs.
    """

    name = ""
    runs_parts = False
    """True if blocks can be left out of a run."""

    def __init__(self, hf_model: Any, tokenizer: Any, name: str) -> None:
        config = hf_model.config.to_dict()
        original = getattr(hf_model, "circuit_tracer_architecture", None)
        config["architectures"] = [original] if original else config.get("architectures")
        self.family = family_for(config)
        self.hf_model, self.tokenizer = hf_model.eval(), tokenizer
        self.hf_model.requires_grad_(False)
        self.shape: ModelShape = model_shape(config)
        self.modules = ModelModules(hf_model, self.shape)
        self.scores = ScoreModules(self.modules, architecture_of(config))
        self.mlps = MlpModules(self.modules, architecture_of(config))
        self.device: torch.device = self.modules.embed.weight.device
        self.layer_devices: tuple[torch.device, ...] = self.modules.layer_devices
        self.dtype = next(p.dtype for p in hf_model.parameters() if p.is_floating_point())
        self.config = unified_config(config, name, dtype_name(self.dtype))
        self._outputs_seen: list[int] = []
        _forget_longer_texts(hf_model)

    @classmethod
    def from_pretrained(cls, model_name: str, device: torch.device, dtype: torch.dtype, **kwargs: Any) -> Any:
        """Load a local folder or a model of the hub; see `loading.load_model`. Raises BadModel, UnsupportedArchitecture."""
        from circuit_tracer_cli.backends.loading import load_model
        from circuit_tracer_cli.backends.proof import prove, prove_same, short_logits
        from circuit_tracer_cli.backends.transformers import TransformersBackend

        if kwargs.pop("remote", False):
            raise InvalidValue(
                "remote=True isn't supported: models run on this machine",
                hint="use --device-map to spread a large model over GPUs; see docs/models.md",
            )
        cls.require()
        loaded = load_model(model_name, device, dtype, **kwargs)
        plain = TransformersBackend(*loaded)
        prove(plain)
        if cls is TransformersBackend:
            return plain
        logits = short_logits(plain)
        made = cls(*loaded)
        prove_same(made, logits)
        return made

    @classmethod
    def from_config(cls, config: Any, tokenizer: Any = None, **kwargs: Any) -> Any:
        """Return a randomly initialized model of a Hugging Face configuration."""
        from circuit_tracer_cli.backends.loading import random_model

        cls.require()
        return cls(random_model(config, **kwargs), tokenizer, config._name_or_path or "random-model")

    @classmethod
    def require(cls) -> None:
        """Raise MissingExtra if the library behind the backend isn't installed."""

    def run(self, tokens: Tensor, hooks: Hooks, past: Any = None) -> tuple[Tensor, Any]:
        """Logits `(pos, vocab)` of one pass over `tokens (pos)`, and the key-value cache.

        A hook gets `(1, pos, …)` and may return a replacement. Gradients flow if the caller has them on.
        """
        logits, cache = self.run_batch(tokens[None], hooks, past)
        return logits[0], cache

    def run_batch(self, tokens: Tensor, hooks: Hooks, past: Any = None) -> tuple[Tensor, Any]:
        """Logits `(batch, pos, vocab)` of one pass over `tokens (batch, pos)`, and the key-value cache."""
        raise NotImplementedError

    @property
    def W_E(self) -> Tensor:
        """Raw token embeddings `(vocab, d_model)`."""
        return self.modules.W_E

    @property
    def W_U(self) -> Tensor:
        """The unembedding `(vocab, d_model)`."""
        return self.modules.W_U

    @functools.cached_property
    def weights(self) -> LinearWeights | None:
        """The linear weights, or None if the family has no closed form."""
        return self.modules.linear_weights() if self.family.closed_form else None

    @property
    def has_closed_form(self) -> bool:
        """True if the family has linear weights."""
        return self.family.closed_form

    @property
    def n_parameters(self) -> int:
        """Number of the model's parameters, counting tied ones once."""
        return sum(parameter.numel() for parameter in self.hf_model.parameters())

    def score_weights(self, layer: int, n_pos: int) -> ScoreWeights:
        """How a block's attention scores are made. Raises UnsupportedArchitecture if the family doesn't declare it."""
        return self.scores.weights(layer, n_pos)

    def mlp_weights(self, layer: int) -> MlpWeights:
        """A block's MLP. Raises UnsupportedArchitecture where its neurons can't be traced."""
        return self.mlps.weights(layer)

    def forget_weights(self) -> None:
        """Drop the record of linear weights, whose views would keep moved parameters in memory."""
        self.__dict__.pop("weights", None)

    def parameters_of(self, part: WeightGroup) -> list[Tensor]:
        """The parameters of all MLPs, or of embedding and unembedding; each once, including tied ones."""
        return self.modules.parameters_of(part)

    @property
    def start_hook(self) -> str:
        """The hook at which the token part of the residual stream can be read."""
        return "embed.hook_out" if self.shape.layout.learned_positions else "blocks.0.hook_in"

    def write_hook(self, feature_output_hook: str) -> str:
        """The component hook that carries a feature output hook's value."""
        post = self.shape.layout.ln2_post is not None and WRITE_HOOKS[feature_output_hook] == "mlp_out"
        return "ln2_post.hook_out" if post else "mlp.hook_out"

    def read_hook(self, feature_input_hook: str) -> str:
        """The component hook that carries a feature input hook's value."""
        return read_hook(feature_input_hook, self.shape.layout)

    def feature_points(self, feature_input_hook: str, feature_output_hook: str) -> FeaturePoints:
        """The meaning of the two hook names in this model. Raises ModelMismatch naming the hooks that exist."""
        shape = self.shape
        points = feature_points(
            feature_input_hook,
            feature_output_hook,
            parallel=shape.parallel,
            model=self.config.original_architecture,
            layout=shape.layout,
        )
        return points if shape.layout.ln2_post is not None else FeaturePoints(points.read, "mlp_out")

    @property
    def outputs_of_block(self) -> int | None:
        """Number of outputs of a block, 0 for a bare tensor; None before a pass with residuals, or if parts can't be run."""
        return self._outputs_seen[0] if self._outputs_seen else None

    @torch.no_grad()
    def run_part(self, tokens: Tensor, hooks: Hooks, part: PartialRun) -> Tensor:
        """Logits `(pos, vocab)`, or `(1, vocab)`, of a part of a pass over `tokens (pos)`."""
        with partial_run(self.modules, part):
            return self.run(tokens, hooks)[0]

    @torch.no_grad()
    def frozen_pass(
        self, tokens: Tensor, feature_input_hook: str, feature_output_hook: str, residuals: bool = False
    ) -> FrozenPass:
        """One forward pass on `tokens (pos)`; see FrozenPass for what is kept."""
        points = self.feature_points(feature_input_hook, feature_output_hook)
        read, write = self.read_hook(feature_input_hook), self.write_hook(feature_output_hook)
        norms = [part for part in NORM_PARTS if self.modules.has(part)]
        at_layer = {"attn.hook_pattern", read, write, *(f"{part}.hook_in" for part in norms)}
        at_layer |= {"hook_in"} if residuals else set()
        names = [f"blocks.{layer}.{part}" for layer in range(self.shape.n_layers) for part in at_layer]
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[[Tensor], None]:
            device = self.device_at(name)
            return lambda value: seen.__setitem__(name, value[0].detach().to(device))

        names += [self.start_hook, "ln_final.hook_in"]
        with ExitStack() as stack, self.modules.only_logits():
            if residuals and self.runs_parts and not self._outputs_seen:
                stack.callback(outputs_seen(self.modules.blocks[0], self._outputs_seen))
            logits, _ = self.run(tokens, Hooks({name: [keep(name)] for name in names}))
        layers = [
            self._frozen_layer(
                layer, {part: seen[f"blocks.{layer}.{part}"] for part in at_layer}, read, write, points
            )
            for layer in range(self.shape.n_layers)
        ]
        final = self.modules.ln_final.scale(seen["ln_final.hook_in"])
        return FrozenPass(tokens, seen[self.start_hook], tuple(layers), final, logits[-1])

    @torch.no_grad()
    def logits_at(self, tokens: Tensor, positions: Sequence[int]) -> Tensor:
        """Logits `(n, vocab)` of the unmodified model at some positions of `tokens (pos)`."""
        with self.modules.only_logits(positions):
            return self.run(tokens, Hooks())[0]

    def device_at(self, hook: str) -> torch.device:
        """The device of a hook's module; a value that arrives there may still be on another device."""
        if hook.startswith("blocks."):
            return self.layer_devices[int(hook.split(".")[1])]
        part = self.modules.final_norm if hook.startswith("ln_final.") else self.modules.embed
        device: torch.device = part.weight.device
        return device

    def _frozen_layer(
        self, layer: int, at: dict[str, Tensor], read: str, write: str, points: FeaturePoints
    ) -> FrozenLayer:
        """The record of one block from its recorded values."""
        scales = {
            part: self.modules.norm(layer, part).scale(at[f"{part}.hook_in"])
            for part in NORM_PARTS
            if self.modules.has(part)
        }
        one = torch.ones(len(at[read]), device=at[read].device)
        ln1 = scales.get("ln1", one)
        value = at[read]
        return FrozenLayer(
            pattern=at["attn.hook_pattern"],
            ln1_scale=ln1,
            ln2_scale=scales.get("ln2", ln1 if self.shape.layout.one_norm else one),
            feature_input=self.modules.norm(layer, "ln2").normalized(value)
            if points.read == "normalized"
            else value,
            feature_output=at[write],
            ln1_post_scale=scales.get("ln1_post"),
            ln2_post_scale=scales.get("ln2_post"),
            residual=at.get("hook_in"),
        )

    @torch.no_grad()
    def feature_inputs(self, tokens: Tensor, feature_input_hook: str) -> tuple[Tensor, ...]:
        """For each layer, the values `(batch, pos, d_model)` at the read point, for `tokens (batch, pos)` padded on the right.

        No position sees a later one, so padding changes nothing before it.
        """
        part, layers = self.read_hook(feature_input_hook), range(self.shape.n_layers)
        seen: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[[Tensor], None]:
            device = self.layer_devices[layer]
            return lambda value: seen.__setitem__(layer, value.detach().to(device))

        with self.modules.only_logits():
            self.run_batch(tokens, Hooks({f"blocks.{i}.{part}": [keep(i)] for i in layers}))
        if READ_HOOKS[feature_input_hook][1] != "normalized":
            return tuple(seen[i] for i in layers)
        return tuple(self.modules.norm(i, "ln2").normalized(seen[i]) for i in layers)

    def freeze_names(self, feature_input_hook: str, feature_output_hook: str) -> FreezeNames:
        """Where this model can be frozen."""
        layers = range(self.shape.n_layers)
        norms: list[tuple[str, NormWeights]] = [
            (f"blocks.{i}.{part}", self.modules.norm(i, part))
            for i in layers
            for part in NORM_PARTS
            if self.modules.has(part)
        ]
        read, write = self.read_hook(feature_input_hook), self.write_hook(feature_output_hook)
        read_norm = "ln1" if self.shape.layout.one_norm else "ln2"
        return FreezeNames(
            start=self.start_hook,
            patterns=tuple(f"blocks.{i}.attn.hook_pattern" for i in layers),
            norms=(*norms, ("ln_final", self.modules.ln_final)),
            read_norms=tuple(f"blocks.{i}.{read_norm}" for i in layers),
            read=tuple(f"blocks.{i}.{read}" for i in layers),
            write=tuple(f"blocks.{i}.{write}" for i in layers),
        )

    def frozen_graph(
        self,
        tokens: Tensor,
        feature_input_hook: str,
        feature_output_hook: str,
        skips: Sequence[Tensor | None],
    ) -> FrozenGraph:
        """One forward pass with everything non-linear frozen and its autograd graph kept."""
        names = self.freeze_names(feature_input_hook, feature_output_hook)
        points = self.feature_points(feature_input_hook, feature_output_hook)
        with torch.enable_grad():
            return run_frozen(lambda hooks: self.run(tokens, hooks), names, points, skips)

    @contextmanager
    def zero_softcap(self) -> Iterator[None]:
        """Switch the final logit softcap off; restored on exit."""
        config = self.hf_model.config
        if getattr(config, "final_logit_softcapping", None) is None:
            yield
            return
        saved, config.final_logit_softcapping = config.final_logit_softcapping, None
        try:
            yield
        finally:
            config.final_logit_softcapping = saved


def _forget_longer_texts(model: Any) -> None:
    """Reset the model's rotary frequencies before every new text.

    Dynamic scaling keeps those of the longest text so far, so a text's numbers would depend on what ran before it.
    """
    rotary = [
        module
        for module in model.modules()
        if "dynamic" in str(getattr(module, "rope_type", "")) and hasattr(module, "original_max_seq_len")
    ]

    def reset(_model: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        past = kwargs.get("past_key_values")
        if past is not None and past.get_seq_length():
            return
        for module in rotary:
            module.register_buffer(
                "inv_freq", module.original_inv_freq.to(module.inv_freq.device), persistent=False
            )
            module.max_seq_len_cached = module.original_max_seq_len

    if rotary:
        model.register_forward_pre_hook(reset, with_kwargs=True)
