"""Runs a model through TransformerLens 4's `TransformerBridge`. The only file that imports transformer_lens.

The bridge runs Hugging Face's own modules without weight processing, so dtype and memory are Hugging Face's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from circuit_tracer_cli.backends.base import Hooks
from circuit_tracer_cli.backends.changed_runs import patterns_edited
from circuit_tracer_cli.backends.hooked import HookedBackend
from circuit_tracer_cli.backends.loading import quiet_loading


def _bridge_tokenizer() -> Any:
    """A tokenizer for the bridge, which requires one, changes it, and may look for it on the hub. Ours isn't touched."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    marks = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "?")
    return PreTrainedTokenizerFast(tokenizer_object=inner, name_or_path="unused", add_bos_token=True, **marks)


class TransformerLensBackend(HookedBackend):
    """A Hugging Face model behind a TransformerBridge; see HookedBackend for the arguments."""

    name = "transformerlens"
    runs_parts = True

    def __init__(self, hf_model: Any, tokenizer: Any, name: str) -> None:
        super().__init__(hf_model, tokenizer, name)
        from transformer_lens.model_bridge import TransformerBridge
        from transformer_lens.model_bridge.generalized_components import AttentionBridge

        with quiet_loading():
            self.bridge: Any = TransformerBridge.boot_transformers(
                name,
                hf_model=hf_model,
                tokenizer=_bridge_tokenizer(),
                device=str(self.device),
                dtype=self.dtype,
            )
        self.bridge.requires_grad_(False)
        # The plain attention bridge exposes the pattern afterwards, so a hook's return value has no effect.
        self._shows_pattern_late = type(self.bridge.blocks[0].attn) is AttentionBridge

    def run_batch(self, tokens: Tensor, hooks: Hooks, past: Any = None) -> tuple[Tensor, Any]:
        """Logits `(batch, pos, vocab)` of one pass over `tokens (batch, pos)`, and the key-value cache."""
        by_name, patterns = dict(hooks.by_name), {}
        if self._shows_pattern_late:
            names = {i: f"blocks.{i}.attn.hook_pattern" for i in range(self.shape.n_layers)}
            patterns = {i: by_name.pop(name) for i, name in names.items() if name in by_name}
        adapted = [(name, _adapt(edit)) for name, edits in by_name.items() for edit in edits]
        context: AbstractContextManager[Any] = (
            self.bridge.hooks(fwd_hooks=adapted) if adapted else nullcontext()
        )
        with context, patterns_edited(self.modules, patterns), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logits, cache = self.bridge(
                tokens.to(self.device),
                return_type="logits_and_cache",
                past_key_values=past,
                use_cache=True,
            )
        return logits, cache


def _adapt(edit: Callable[[Tensor], Tensor | None]) -> Callable[..., Tensor | None]:
    """Drop the hook point that TransformerLens also passes."""

    def hook(value: Tensor, hook: Any) -> Tensor | None:
        return edit(value)

    return hook
