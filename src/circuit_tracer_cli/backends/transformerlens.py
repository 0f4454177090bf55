"""Fills the records from TransformerLens 4's `TransformerBridge`. The only file that imports transformer_lens.

The bridge runs Hugging Face's own modules without weight processing, so dtype and memory are Hugging Face's. Norm scales are
recomputed from the norms' inputs; everything else is read at hooks.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.backends.base import (
    FrozenGraph,
    FrozenLayer,
    FrozenPass,
    Hooks,
    LinearWeights,
    ModelShape,
    NormWeights,
)
from circuit_tracer_cli.backends.bridge_weights import has_component, linear_weights, norm_weights
from circuit_tracer_cli.backends.families import family_for
from circuit_tracer_cli.backends.frozen_run import FreezeNames, run_frozen
from circuit_tracer_cli.backends.model_config import model_shape, read_config, unified_config
from circuit_tracer_cli.backends.points import READ_HOOKS, WRITE_HOOKS, FeaturePoints, feature_points
from circuit_tracer_cli.backends.tokenizers import load_tokenizer
from circuit_tracer_cli.errors import BadModel


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep the libraries' progress bars and advice off the terminal while a model is loaded."""
    from transformers.utils import logging as hf_logging

    level = hf_logging.get_verbosity()
    tl_logger = logging.getLogger("transformer_lens")
    tl_level = tl_logger.level
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    tl_logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hf_logging.set_verbosity(level)
        hf_logging.enable_progress_bar()
        tl_logger.setLevel(tl_level)


def _bridge_tokenizer() -> Any:
    """A tokenizer for the bridge to keep: it insists on one, changes it, and may look for it on the hub. Ours stays untouched."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    marks = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "?")
    return PreTrainedTokenizerFast(tokenizer_object=inner, name_or_path="unused", add_bos_token=True, **marks)


class TransformerLensBackend:
    """A Hugging Face model behind a TransformerBridge.

    Args:
        hf_model: The loaded model, eager attention, in evaluation mode.
        tokenizer: Its tokenizer, or None when prompts come as ids.
        name: Where it came from; stored in graphs.
    """

    name = "transformerlens"

    def __init__(self, hf_model: Any, tokenizer: Any, name: str) -> None:
        config = hf_model.config.to_dict()
        self.family = family_for(config)
        from transformer_lens.model_bridge import TransformerBridge

        parameter = next(hf_model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        with quiet_loading():
            self.bridge: Any = TransformerBridge.boot_transformers(
                name,
                hf_model=hf_model.eval(),
                tokenizer=_bridge_tokenizer(),
                device=str(self.device),
                dtype=self.dtype,
            )
        self.bridge.requires_grad_(False)
        self.tokenizer = tokenizer
        self.shape: ModelShape = model_shape(config)
        self.config = unified_config(config, name, dtype_name(self.dtype))

    @classmethod
    def from_pretrained(
        cls, model_name: str, device: torch.device, dtype: torch.dtype, **kwargs: Any
    ) -> TransformerLensBackend:
        """Load a local folder or a model of the hub.

        Raises:
            BadModel: missing folder, missing or damaged files.
            UnsupportedArchitecture: unknown class or setting; checked before weights are read when the folder is local.
        """
        folder = Path(model_name).expanduser()
        if folder.is_dir():
            family_for(read_config(folder))
            model_name = str(folder)
        tokenizer = load_tokenizer(model_name)
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM

        try:
            with quiet_loading():
                model: Any = AutoModelForCausalLM.from_pretrained(
                    model_name, attn_implementation="eager", dtype=dtype, **kwargs
                )
                model = model.to(device)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise BadModel(
                f"the model {model_name!r} can't be loaded: {first}",
                hint="name a local Hugging Face model folder, or log in with `hf auth login` for a gated model",
            ) from error
        return cls(model, tokenizer, model_name)

    @classmethod
    def from_config(cls, config: Any, tokenizer: Any = None, **kwargs: Any) -> TransformerLensBackend:
        """A randomly initialised model of a Hugging Face config."""
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", **kwargs)
        return cls(model, tokenizer, getattr(config, "_name_or_path", "") or "random-model")

    @property
    def W_E(self) -> Tensor:
        """Raw token embeddings `(vocab, d_model)`."""
        weight: Tensor = self.bridge.embed.original_component.weight
        return weight.detach()

    @property
    def W_U(self) -> Tensor:
        """The unembedding `(vocab, d_model)`."""
        weight: Tensor = self.bridge.unembed.original_component.weight
        return weight.detach()

    @functools.cached_property
    def weights(self) -> LinearWeights | None:
        """The linear weights, or None where the family has no closed form."""
        if not self.family.closed_form:
            return None
        return linear_weights(self.bridge, self.shape.d_head, parallel=self.shape.parallel)

    @property
    def has_pos_embed(self) -> bool:
        """Whether learned position embeddings are added to the stream."""
        return "pos_embed" in self.bridge.adapter.component_mapping

    def has_post_norms(self) -> tuple[bool, bool]:
        """Whether blocks have a norm after attention, and after the MLP."""
        block = self.bridge.blocks[0]
        return has_component(block, "ln1_post"), has_component(block, "ln2_post")

    def write_hook(self, feature_output_hook: str) -> str:
        """The component hook that carries a feature output hook's value."""
        post = self.has_post_norms()[1] and WRITE_HOOKS[feature_output_hook] == "mlp_out"
        return "ln2_post.hook_out" if post else "mlp.hook_out"

    def feature_points(self, feature_input_hook: str, feature_output_hook: str) -> FeaturePoints:
        """What the two hook names mean here. Raises ModelMismatch naming the hooks that exist."""
        points = feature_points(
            feature_input_hook,
            feature_output_hook,
            parallel=self.shape.parallel,
            model=self.config.original_architecture,
        )
        return points if self.has_post_norms()[1] else FeaturePoints(points.read, "mlp_out")

    @torch.no_grad()
    def frozen_pass(self, tokens: Tensor, feature_input_hook: str, feature_output_hook: str) -> FrozenPass:
        """One forward pass on `tokens (pos)`; see FrozenPass for what is kept."""
        points = self.feature_points(feature_input_hook, feature_output_hook)
        post1, post2 = self.has_post_norms()
        read, write = READ_HOOKS[feature_input_hook][0], self.write_hook(feature_output_hook)
        parts = {"ln1.hook_in", "ln2.hook_in", "attn.hook_pattern", read, write}
        parts |= {"ln1_post.hook_in"} if post1 else set()
        parts |= {"ln2_post.hook_in"} if post2 else set()
        start = "embed.hook_out" if self.has_pos_embed else "blocks.0.hook_in"
        names = [
            start,
            "ln_final.hook_in",
            *(f"blocks.{i}.{p}" for i in range(self.shape.n_layers) for p in parts),
        ]
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[[Tensor], None]:
            return lambda value: seen.__setitem__(name, value[0].detach())

        logits, _ = self.run(tokens, Hooks({name: [keep(name)] for name in names}))
        layers = []
        for i, block in enumerate(self.bridge.blocks):
            at = {part: seen.pop(f"blocks.{i}.{part}") for part in parts}
            ln2 = norm_weights(block.ln2)
            ln2_scale = ln2.scale(at["ln2.hook_in"])
            feature_input = at[read]
            if points.read == "normalized":
                x = feature_input.to(ln2_scale.dtype)
                feature_input = (x - x.mean(-1, keepdim=True) if ln2.kind == "layer" else x) / ln2_scale[
                    :, None
                ]
            layers.append(
                FrozenLayer(
                    pattern=at["attn.hook_pattern"],
                    ln1_scale=norm_weights(block.ln1).scale(at["ln1.hook_in"]),
                    ln2_scale=ln2_scale,
                    feature_input=feature_input,
                    feature_output=at[write],
                    ln1_post_scale=norm_weights(block.ln1_post).scale(at["ln1_post.hook_in"])
                    if post1
                    else None,
                    ln2_post_scale=norm_weights(block.ln2_post).scale(at["ln2_post.hook_in"])
                    if post2
                    else None,
                )
            )
        final_scale = norm_weights(self.bridge.ln_final).scale(seen["ln_final.hook_in"])
        return FrozenPass(tokens, seen[start], tuple(layers), final_scale, logits[-1])

    @torch.no_grad()
    def feature_inputs(self, tokens: Tensor, feature_input_hook: str) -> tuple[Tensor, ...]:
        """Per layer the values `(batch, pos, d_model)` at the read point, for `tokens (batch, pos)` padded on the right.

        No position sees a later one, so padding changes nothing before it.
        """
        part, kind = READ_HOOKS[feature_input_hook]
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            return lambda value, hook: seen.__setitem__(name, value.detach())

        names = [f"blocks.{i}.{part}" for i in range(self.shape.n_layers)]
        with self.bridge.hooks(fwd_hooks=[(name, keep(name)) for name in names]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.bridge(tokens.to(self.device), return_type="logits")
        if kind != "normalized":
            return tuple(seen[name] for name in names)
        norms = [norm_weights(block.ln2) for block in self.bridge.blocks]
        return tuple(norm.normalized(seen[name]) for norm, name in zip(norms, names, strict=True))

    def freeze_names(self, feature_input_hook: str, feature_output_hook: str) -> FreezeNames:
        """Where this model can be frozen."""
        norms: list[tuple[str, NormWeights]] = []
        for i, block in enumerate(self.bridge.blocks):
            parts = [part for part in ("ln1", "ln1_post", "ln2", "ln2_post") if has_component(block, part)]
            norms += [(f"blocks.{i}.{part}", norm_weights(getattr(block, part))) for part in parts]
        layers = range(self.shape.n_layers)
        return FreezeNames(
            start="embed.hook_out" if self.has_pos_embed else "blocks.0.hook_in",
            patterns=tuple(f"blocks.{i}.attn.hook_pattern" for i in layers),
            norms=(*norms, ("ln_final", norm_weights(self.bridge.ln_final))),
            read_norms=tuple(f"blocks.{i}.ln2" for i in layers),
            read=tuple(f"blocks.{i}.{READ_HOOKS[feature_input_hook][0]}" for i in layers),
            write=tuple(f"blocks.{i}.{self.write_hook(feature_output_hook)}" for i in layers),
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

    def run(self, tokens: Tensor, hooks: Hooks, past: Any = None) -> tuple[Tensor, Any]:
        """Logits `(pos, vocab)` of one pass over `tokens (pos)`, and the key-value cache.

        A hook gets `(1, pos, …)` and may return a replacement. Gradients flow if the caller has them on.
        """
        adapted = [(name, _adapt(edit)) for name, edits in hooks.by_name.items() for edit in edits]
        context: AbstractContextManager[Any] = (
            self.bridge.hooks(fwd_hooks=adapted) if adapted else nullcontext()
        )
        with context, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logits, cache = self.bridge(
                tokens[None].to(self.device),
                return_type="logits_and_cache",
                past_key_values=past,
                use_cache=True,
            )
        return logits[0], cache

    @contextmanager
    def zero_softcap(self) -> Iterator[None]:
        """Switch the final logit softcap off; restored on exit."""
        config = self.bridge.original_model.config
        if getattr(config, "final_logit_softcapping", None) is None:
            yield
            return
        saved, config.final_logit_softcapping = config.final_logit_softcapping, None
        try:
            yield
        finally:
            config.final_logit_softcapping = saved


def _adapt(edit: Callable[[Tensor], Tensor | None]) -> Callable[..., Tensor | None]:
    """TransformerLens passes the hook point too; ours don't want it."""

    def hook(value: Tensor, hook: Any) -> Tensor | None:
        return edit(value)

    return hook
