"""Runs the part of a model that an edit can change: from one block on, and the last position's logits if no others are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from circuit_tracer_cli.backends.base import Part
from circuit_tracer_cli.backends.model_parts import ModelParts


@contextmanager
def partial_run(parts: ModelParts, part: Part) -> Iterator[None]:
    """While this lasts, a run of the model leaves out the blocks before `part.first`, as if they had given `part.residual`.

    Hugging Face's own modules are changed for so long; whatever wraps them goes on working.
    """
    blocks = parts.blocks
    with ExitStack() as stack:
        if part.residual is not None:
            for block in blocks[: part.first]:
                stack.callback(_with_forward(block, _passing_on(part.outputs_of_block)))
            given = part.residual[None]
            hook = blocks[part.first].register_forward_pre_hook(_begins_with(given), with_kwargs=True)
            stack.callback(hook.remove)
        if part.last_logits:
            stack.enter_context(parts.only_last_logits())
        yield


def outputs_seen(block: Any, seen: list[int]) -> Callable[[], None]:
    """Notes how many outputs a block gives when it runs, 0 for a bare tensor. Returns the function that ends it."""

    def note(_module: Any, _args: Any, out: Any) -> None:
        seen.append(len(out) if isinstance(out, tuple) else 0)

    end: Callable[[], None] = block.register_forward_hook(note).remove
    return end


def _with_forward(module: nn.Module, forward: Callable[..., Any]) -> Callable[[], None]:
    """Exchange a module's `forward`. Returns the function that brings the old one back."""
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
