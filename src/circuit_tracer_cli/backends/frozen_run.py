"""The forward pass with everything non-linear frozen and its autograd graph kept, through any backend's hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from circuit_tracer_cli.backends.base import Edit, FreezeNames, FrozenGraph, Hooks, NormWeights
from circuit_tracer_cli.backends.points import FeaturePoints


def freeze_hooks(
    names: FreezeNames, points: FeaturePoints, skips: Sequence[Tensor | None], seen: dict[str, Tensor]
) -> Hooks:
    """Hooks that freeze a run; values are stored in `seen` under the hook's name, leaves under `leaf:`."""
    hooks: dict[str, list[Edit]] = {}

    def leaf(name: str) -> Edit:
        def edit(value: Tensor) -> Tensor:
            seen[f"leaf:{name}"] = value[0].detach().clone().requires_grad_(True)
            return seen[f"leaf:{name}"][None]

        return edit

    def keep(name: str) -> Edit:
        return lambda value: seen.__setitem__(name, value[0])

    hooks[names.start] = [leaf(names.start)]
    for name in names.patterns:
        hooks[name] = [lambda value: value.detach()]
    for prefix, norm in names.norms:
        hooks.setdefault(f"{prefix}.hook_in", []).append(keep(f"{prefix}.hook_in"))
        hooks.setdefault(f"{prefix}.hook_out", []).append(_frozen_norm(prefix, norm, seen))
    for layer, (read, write) in enumerate(zip(names.read, names.write, strict=True)):
        hooks.setdefault(read, []).append(keep(f"read:{layer}"))
        hooks.setdefault(write, []).append(_replaced_output(layer, write, names, points, skips[layer], seen))
    return Hooks(hooks)


def _frozen_norm(prefix: str, norm: NormWeights, seen: dict[str, Tensor]) -> Edit:
    """The norm's output recomputed at its own, detached scale."""

    def edit(value: Tensor) -> Tensor:
        x = seen[f"{prefix}.hook_in"].to(norm.gain.device)
        x = x if x.dtype in (torch.float32, torch.float64) else x.float()
        return norm.apply(x, norm.scale(x).detach())[None].to(value.dtype)

    return edit


def read_value(layer: int, names: FreezeNames, points: FeaturePoints, seen: dict[str, Tensor]) -> Tensor:
    """The value at a layer's read point, as the transcoders see it."""
    value = seen[f"read:{layer}"]
    if points.read != "normalized":
        return value
    norm = dict(names.norms)[names.read_norms[layer]]
    x = value if value.dtype in (torch.float32, torch.float64) else value.float()
    centred = x - x.mean(-1, keepdim=True) if norm.kind == "layer" else x
    return centred / norm.scale(x).detach()[:, None]


def _replaced_output(
    layer: int,
    write: str,
    names: FreezeNames,
    points: FeaturePoints,
    skip: Tensor | None,
    seen: dict[str, Tensor],
) -> Edit:
    """The feature output as a leaf, plus the skip connection's change, which is zero in value."""

    def edit(value: Tensor) -> Tensor:
        seen[f"leaf:{layer}"] = value[0].detach().clone().requires_grad_(True)
        out = seen[f"leaf:{layer}"]
        if skip is not None:
            through = read_value(layer, names, points, seen).to(skip) @ skip
            out = out + (through - through.detach()).to(out)
        return out[None]

    return edit


def run_frozen(
    run: Callable[[Hooks], object], names: FreezeNames, points: FeaturePoints, skips: Sequence[Tensor | None]
) -> FrozenGraph:
    """Run a model frozen and collect the tensors."""
    seen: dict[str, Tensor] = {}
    hooks = freeze_hooks(names, points, skips, seen)
    final, norm = names.norms[-1]
    run(hooks)
    layers = range(len(names.read))
    x = seen[f"{final}.hook_in"].to(norm.gain.device)
    return FrozenGraph(
        embed=seen[f"leaf:{names.start}"],
        writes=tuple(seen[f"leaf:{layer}"] for layer in layers),
        reads=tuple(
            read_value(layer, names, points, seen).to(seen[f"leaf:{layer}"].device) for layer in layers
        ),
        final=norm.apply(x, norm.scale(x).detach()),
    )
