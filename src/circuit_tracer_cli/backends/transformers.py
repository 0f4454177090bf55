"""Runs a model through PyTorch's own hooks on the modules of transformers: without another library, so it starts fastest.

The family's layout maps canonical names to modules; `changed_runs.py` edits attention patterns from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from circuit_tracer_cli.backends.base import Edit, Hooks
from circuit_tracer_cli.backends.changed_runs import patterns_edited
from circuit_tracer_cli.backends.hooked import HookedBackend

_OF_BLOCK = ("ln1", "attn", "ln1_post", "ln2", "mlp", "ln2_post")


class TransformersBackend(HookedBackend):
    """A Hugging Face model as it is; see HookedBackend for the arguments."""

    name = "transformers"
    runs_parts = True

    def run_batch(self, tokens: Tensor, hooks: Hooks, past: Any = None) -> tuple[Tensor, Any]:
        """Logits `(batch, pos, vocab)` of one pass over `tokens (batch, pos)`, and the key-value cache."""
        by_name = dict(hooks.by_name)
        names = {layer: f"blocks.{layer}.attn.hook_pattern" for layer in range(self.shape.n_layers)}
        patterns = {layer: by_name.pop(name) for layer, name in names.items() if name in by_name}
        with ExitStack() as stack:
            stack.enter_context(patterns_edited(self.modules, patterns, past))
            for name, edits in by_name.items():
                stack.callback(self._register(name, edits))
            out = self.hf_model(input_ids=tokens.to(self.device), past_key_values=past, use_cache=True)
        return out.logits, out.past_key_values

    def _register(self, name: str, edits: Sequence[Edit]) -> Callable[[], None]:
        """Add edits at a canonical hook name. Returns the function that removes them; raises KeyError for an unknown name."""
        place, _, side = name.rpartition(".")
        module = self._module_at(place)
        if module is None or side not in ("hook_in", "hook_out"):
            raise KeyError(f"there is no hook {name}")
        remove: Callable[[], None]
        if side == "hook_in":
            remove = module.register_forward_pre_hook(_at_input(edits), with_kwargs=True).remove
        else:
            remove = module.register_forward_hook(_at_output(edits)).remove
        return remove

    def _module_at(self, place: str) -> nn.Module | None:
        """The module at `embed`, `ln_final`, `blocks.3` or `blocks.3.mlp`; None if there is none."""
        if place in ("embed", "ln_final"):
            found: nn.Module = self.modules.embed if place == "embed" else self.modules.final_norm
            return found
        head, layer, *part = place.split(".")
        if head != "blocks" or not layer.isdigit() or int(layer) >= self.shape.n_layers:
            return None
        if not part:
            block: nn.Module = self.modules.blocks[int(layer)]
            return block
        path = getattr(self.shape.layout, part[0], None) if part[0] in _OF_BLOCK else None
        return None if path is None else self.modules.of_block[int(layer)][path]


def _at_input(edits: Sequence[Edit]) -> Callable[..., Any]:
    """A hook that edits a module's first argument, by position or by its name `hidden_states`."""

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = before = args[0] if args else kwargs["hidden_states"]
        for edit in edits:
            changed = edit(value)
            value = value if changed is None else changed
        if value is before:
            return None
        return ((value, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": value})

    return hook


def _at_output(edits: Sequence[Edit]) -> Callable[..., Any]:
    """A hook that edits a module's output, the first of several (attention, an MLP of experts with its router's scores)."""

    def hook(_module: nn.Module, _args: tuple[Any, ...], out: Any) -> Any:
        value = before = out[0] if isinstance(out, tuple) else out
        for edit in edits:
            changed = edit(value)
            value = value if changed is None else changed
        if value is before:
            return None
        return (value, *out[1:]) if isinstance(out, tuple) else value

    return hook
