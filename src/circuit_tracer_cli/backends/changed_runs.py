"""Changes to a run that no hook at a module's boundary can make: blocks left out, and attention with another pattern.

Both act on Hugging Face's own modules from outside, so that libraries that wrap them keep working.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from circuit_tracer_cli.backends.base import Edit, PartialRun
from circuit_tracer_cli.backends.modules import ModelModules
from circuit_tracer_cli.errors import UnsuitableIntervention


@contextmanager
def partial_run(modules: ModelModules, part: PartialRun) -> Iterator[None]:
    """Within this block, runs of the model skip the blocks before `part.first`, as if they had returned `part.residual`.

    Hugging Face's own modules are changed temporarily; libraries that wrap them keep working.
    """
    blocks = modules.blocks
    with ExitStack() as stack:
        if part.residual is not None:
            for block in blocks[: part.first]:
                stack.callback(_with_forward(block, _passing_on(part.outputs_of_block)))
            given = part.residual[None]
            hook = blocks[part.first].register_forward_pre_hook(_begins_with(given), with_kwargs=True)
            stack.callback(hook.remove)
        if part.last_logits:
            stack.enter_context(modules.only_logits())
        yield


def outputs_seen(block: Any, seen: list[int]) -> Callable[[], None]:
    """Record how many outputs a block returns, 0 for a bare tensor. Returns the function that stops it."""

    def note(_module: Any, _args: Any, out: Any) -> None:
        seen.append(len(out) if isinstance(out, tuple) else 0)

    end: Callable[[], None] = block.register_forward_hook(note).remove
    return end


def _with_forward(module: nn.Module, forward: Callable[..., Any]) -> Callable[[], None]:
    """Replace a module's `forward`. Returns the function that restores the old one."""
    own = vars(module).get("forward")
    vars(module)["forward"] = forward

    def restore() -> None:
        if own is None:
            del vars(module)["forward"]
        else:
            vars(module)["forward"] = own

    return restore


def _passing_on(n_outputs: int) -> Callable[..., Any]:
    def forward(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        return (hidden_states, *[None] * (n_outputs - 1)) if n_outputs else hidden_states

    return forward


def _begins_with(residual: Tensor) -> Callable[..., Any]:
    def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (residual, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": residual}

    return hook


def mixed(pattern: Tensor, values: Tensor) -> Tensor:
    """The heads' output: `pattern (batch, head, query, key)` over `values (batch, key, kv_head, d_head)`, heads joined."""
    group = pattern.shape[1] // values.shape[2]
    spread = torch.repeat_interleave(values, group, dim=2)
    return torch.einsum("bhqk,bkhd->bqhd", pattern.to(values.dtype), spread).flatten(2)


def values_before(past: Any, layer: int) -> Tensor | None:
    """Values `(batch, key, kv_head, d_head)` of the tokens in a key-value cache, as they are now; None without any."""
    layers = getattr(past, "layers", None)
    values = None if layers is None or layer >= len(layers) else getattr(layers[layer], "values", None)
    return None if values is None or not values.numel() else values.transpose(1, 2)


def edited_attention(
    modules: ModelModules,
    layer: int,
    out: Sequence[Any],
    projected: Tensor,
    edits: Sequence[Edit],
    earlier: Tensor | None = None,
) -> tuple[Any, ...] | None:
    """The outputs of an attention module after edits of its pattern, or None if none changes it.

    Args:
        modules: The model's modules.
        layer: The block.
        out: What the module returned: its output, the pattern `(batch, head, query, key)`, and perhaps more.
        projected: The output of the projection that contains the values, for the tokens of this pass.
        edits: The edits, in order.
        earlier: Values of earlier tokens, from `values_before` at the beginning of the pass.

    Raises UnsuitableIntervention if the cache lacks a value for some key.
    """
    attention, before, *rest = out
    pattern = before
    for edit in edits:
        changed = edit(pattern)
        pattern = pattern if changed is None else changed
    if pattern is before:
        return None
    project = modules.of_block[layer][modules.layout.o].forward
    values = modules.values(projected)
    if earlier is not None:
        values = torch.cat([earlier.to(values), values], dim=1)
    if values.shape[1] != pattern.shape[-1]:
        raise UnsuitableIntervention(
            f"layer {layer} looks at {pattern.shape[-1]} keys but its cache has {values.shape[1]} values, so its pattern "
            "can't be edited there",
            "limit edits of heads to the prompt, or generate nothing",
        )
    again = project(mixed(pattern, values)).to(attention.dtype)
    return again, pattern, *rest


@contextmanager
def patterns_edited(
    modules: ModelModules, edits: Mapping[int, Sequence[Edit]], past: Any = None
) -> Iterator[None]:
    """Edit the patterns of some layers while the model continues from a cache, through PyTorch's own hooks."""
    seen: dict[int, Tensor] = {}
    earlier = {layer: values_before(past, layer) for layer in edits}

    def keep(layer: int) -> Any:
        return lambda module, args, out: seen.__setitem__(layer, out)

    def change(layer: int) -> Any:
        return lambda module, args, out: edited_attention(
            modules, layer, out, seen.pop(layer), edits[layer], earlier[layer]
        )

    with ExitStack() as stack:
        for layer in edits:
            of_layer = modules.of_block[layer]
            stack.callback(of_layer[modules.layout.v].register_forward_hook(keep(layer)).remove)
            stack.callback(of_layer[modules.layout.attn].register_forward_hook(change(layer)).remove)
        yield
