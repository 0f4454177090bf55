"""A model with layers on several devices: where its modules go, and how hidden states follow them.

Blocks are placed as units, so one hook at a block's entrance moves all inputs. The embedding and everything outside the blocks
are with the first layer, the final norm with the last, the unembedding with the last unless it is tied to the embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from circuit_tracer_cli.backends.devices import Placement
from circuit_tracer_cli.backends.families.base import Layout
from circuit_tracer_cli.backends.modules import HARMLESS
from circuit_tracer_cli.errors import ModelMismatch


def is_tied(model: Any, layout: Layout) -> bool:
    """True if the unembedding is tied to the embedding."""
    unembed = model.get_output_embeddings()
    return unembed is not None and unembed.weight is model.get_submodule(layout.embed).weight


def homes(model: Any, layout: Layout, placement: Placement) -> dict[nn.Module, torch.device]:
    """The device of every part that is placed as a unit; other parts are with the first layer.

    Raises ModelMismatch if the placement is for another number of layers.
    """
    blocks = list(model.get_submodule(layout.layers))
    if len(blocks) != len(placement.layers):
        raise ModelMismatch(
            f"the device map is for {len(placement.layers)} layers, but the model has {len(blocks)}"
        )
    last = placement.layers[-1]
    unembed = model.get_output_embeddings()
    tied = is_tied(model, layout)
    return {
        **dict(zip(blocks, placement.layers, strict=True)),
        model.get_submodule(layout.ln_final): last,
        unembed: placement.first if tied else last,
    }


def module_map(whole: nn.Module, text: Any, layout: Layout, placement: Placement) -> dict[str, torch.device]:
    """Names of modules that cover `whole`, and their devices, as for Hugging Face's loader.

    Args:
        whole: The class that is loaded; may be without weights.
        text: The language model in it, or the model itself.
        layout: Paths of the parts of `text`.
        placement: The device of each layer.
    """
    home = homes(text, layout, placement)
    found: dict[str, torch.device] = {}

    def visit(module: nn.Module, name: str) -> None:
        if module in home:
            found[name] = home[module]
        elif not name or any(child in home for child in module.modules()):
            for child_name, child in module.named_children():
                visit(child, f"{name}.{child_name}" if name else child_name)
        else:
            found[name] = placement.first

    visit(whole, "")
    return found


def place(model: Any, layout: Layout, placement: Placement) -> None:
    """Move a model's modules to their devices, one by one, and make hidden states follow."""
    _forget_others_hooks(model)
    home = homes(model, layout, placement)
    for module, device in home.items():
        module.to(device)
        module.register_forward_pre_hook(_mover(device), with_kwargs=True)
    inside = {id(child) for module in home for child in module.modules()}
    for module in model.modules():
        if id(module) not in inside:
            _place_own(module, placement.first)


def _place_own(module: nn.Module, device: torch.device) -> None:
    """Move the tensors that belong to a module itself."""
    module._apply(lambda tensor: tensor.to(device), recurse=False)


def _forget_others_hooks(model: Any) -> None:
    """Remove the hooks that Hugging Face's loader puts on every module of a spread model; ours work by block."""
    if getattr(model, "hf_device_map", None):
        from accelerate.hooks import remove_hook_from_submodules

        remove_hook_from_submodules(model)
        del model.hf_device_map


def _mover(device: torch.device) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return moved(args, device), moved(kwargs, device)

    setattr(hook, HARMLESS, True)
    return hook


def moved(value: Any, device: torch.device) -> Any:
    """Move tensors to a device, also in tuples, lists and dictionaries; anything else, such as key-value caches, is unchanged."""
    if isinstance(value, Tensor):
        return value.to(device)
    if type(value) is dict:
        return {key: moved(item, device) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(moved(item, device) for item in value)
    return value
