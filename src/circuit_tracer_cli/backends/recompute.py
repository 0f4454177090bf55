"""Attention with another pattern, made again from outside: values, pattern and output projection, no look inside a function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.backends.base import Edit
from circuit_tracer_cli.backends.model_parts import ModelParts


def mixed(pattern: Tensor, values: Tensor) -> Tensor:
    """What heads read: `pattern (batch, head, query, key)` over `values (batch, key, kv_head, d_head)`, heads joined."""
    group = pattern.shape[1] // values.shape[2]
    spread = torch.repeat_interleave(values, group, dim=2)
    return torch.einsum("bhqk,bkhd->bqhd", pattern.to(values.dtype), spread).flatten(2)


def edited_attention(
    parts: ModelParts, layer: int, out: Sequence[Any], projected: Tensor, edits: Sequence[Edit]
) -> tuple[Any, ...] | None:
    """The outputs of an attention module after edits of its pattern, or None if none changes it.

    Args:
        parts: The model's parts.
        layer: The block.
        out: What the module returned: its output and the pattern `(batch, head, query, key)`, and perhaps more.
        projected: The output of the projection that holds the values, for the same positions as the keys.
        edits: The edits, one after the other.
    """
    attention, before, *rest = out
    pattern = before
    for edit in edits:
        changed = edit(pattern)
        pattern = pattern if changed is None else changed
    if pattern is before:
        return None
    project = parts.of_block[layer][parts.parts.o].forward
    again = project(mixed(pattern, parts.values(projected))).to(attention.dtype)
    return again, pattern, *rest


@contextmanager
def patterns_edited(parts: ModelParts, edits: Mapping[int, Sequence[Edit]]) -> Iterator[None]:
    """Edit the patterns of some layers while the model runs, through PyTorch's own hooks."""
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        return lambda module, args, out: seen.__setitem__(layer, out)

    def change(layer: int) -> Any:
        return lambda module, args, out: edited_attention(parts, layer, out, seen.pop(layer), edits[layer])

    with ExitStack() as stack:
        for layer in edits:
            modules = parts.of_block[layer]
            stack.callback(modules[parts.parts.v].register_forward_hook(keep(layer)).remove)
            stack.callback(modules[parts.parts.attn].register_forward_hook(change(layer)).remove)
        yield
