"""Runs a model through nnsight, by module boundaries alone. The only file that imports nnsight.

The pattern inside attention isn't at a module boundary, so it is changed by recomputation: the attention module's output is
computed from the new pattern, the values and the output projection. Nothing inside a transformers function is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from circuit_tracer_cli.backends.base import Edit, Hooks
from circuit_tracer_cli.backends.changed_runs import edited_attention, values_before
from circuit_tracer_cli.backends.hooked import HookedBackend
from circuit_tracer_cli.errors import MissingExtra

_ORDER = ("ln1", "attn", "ln1_post", "ln2", "mlp", "ln2_post")
"""The modules of a block in execution order, with post norms right after what they normalize."""


class NnsightBackend(HookedBackend):
    """A Hugging Face model inside an nnsight trace; see HookedBackend for the arguments."""

    name = "nnsight"

    def __init__(self, hf_model: Any, tokenizer: Any, name: str) -> None:
        self.require()
        super().__init__(hf_model, tokenizer, name)
        from nnsight import NNsight

        self.traced: Any = NNsight(hf_model)

    @classmethod
    def require(cls) -> None:
        """Raise MissingExtra if nnsight isn't installed."""
        if find_spec("nnsight") is None:
            raise MissingExtra(
                "the nnsight backend needs the package nnsight",
                hint="pip install 'circuit-tracer-cli[nnsight]', or omit --backend",
            )

    def run_batch(self, tokens: Tensor, hooks: Hooks, past: Any = None) -> tuple[Tensor, Any]:
        """Logits `(batch, pos, vocab)` of one pass over `tokens (batch, pos)`, and the key-value cache."""
        import nnsight

        visits = list(self._visits(hooks, past))
        with self.traced.trace(input_ids=tokens.to(self.device), past_key_values=past, use_cache=True):
            for visit in visits:
                visit()
            out = nnsight.save(self.traced.output)
        return out.logits, out.past_key_values

    def _visits(self, hooks: Hooks, past: Any) -> Iterator[Callable[[], None]]:
        """What to do at the hooked modules, in order. Raises KeyError for an unknown name."""
        left = dict(hooks.by_name)
        layout, root = self.shape.layout, self.traced
        yield from _boundary(root.get(layout.embed), left, "embed")
        for layer in range(self.shape.n_layers):
            block, prefix = root.get(f"{layout.layers}.{layer}"), f"blocks.{layer}"
            yield from _input(block, left.pop(f"{prefix}.hook_in", ()))
            for part in _ORDER:
                path = getattr(layout, part)
                if path is None or (part == "ln2" and layout.one_norm):
                    continue
                if part == "attn":
                    earlier = values_before(past, layer)
                    edits = left.pop(f"{prefix}.attn.hook_pattern", ())
                    yield from self._attention(layer, block, edits, earlier)
                else:
                    yield from _boundary(block.get(path), left, f"{prefix}.{part}")
        yield from _boundary(root.get(layout.ln_final), left, "ln_final")
        if left:
            raise KeyError(f"there is no hook {sorted(left)[0]}")

    def _attention(
        self, layer: int, block: Any, edits: Sequence[Edit], earlier: Tensor | None
    ) -> Iterator[Callable[[], None]]:
        """Edits of the pattern `(batch, head, query, key)`."""
        if not edits:
            return
        seen: dict[str, Tensor] = {}
        attn, values = block.get(self.shape.layout.attn), block.get(self.shape.layout.v)

        def keep_values() -> None:
            seen["projected"] = values.output

        def edit_pattern() -> None:
            changed = edited_attention(self.modules, layer, attn.output, seen["projected"], edits, earlier)
            if changed is not None:
                attn.output = changed

        yield keep_values
        yield edit_pattern


def _boundary(module: Any, hooks: dict[str, Sequence[Edit]], name: str) -> Iterator[Callable[[], None]]:
    """Edits at a module's input and output."""
    yield from _input(module, hooks.pop(f"{name}.hook_in", ()))
    edits = hooks.pop(f"{name}.hook_out", ())
    if edits:
        yield lambda: _edit_output(module, edits)


def _input(module: Any, edits: Sequence[Edit]) -> Iterator[Callable[[], None]]:
    if edits:
        yield lambda: _edit_input(module, edits)


def _edit_input(module: Any, edits: Sequence[Edit]) -> None:
    for edit in edits:
        changed = edit(module.input)
        if changed is not None:
            module.input = changed


def _edit_output(module: Any, edits: Sequence[Edit]) -> None:
    """A module with several outputs (an MLP of experts can add its router's) is edited at the first."""
    for edit in edits:
        out = module.output
        changed = edit(out[0] if isinstance(out, tuple) else out)
        if changed is not None:
            module.output = (changed, *out[1:]) if isinstance(out, tuple) else changed
