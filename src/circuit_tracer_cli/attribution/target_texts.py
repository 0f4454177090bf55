"""Targets that name their place: tokens at positions, features, and directions from files; and how they are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.errors import BadTarget, BadTranscoders, UnsuitableTarget
from circuit_tracer_cli.files.tensors import TensorFile

DIFFERENCE = " - "
KEY = "direction"
"""The tensor that a file with several is expected to name so."""
_NUMBER = r"\d{1,9}"
_TOKEN = re.compile(rf"token:(.+)@(-?{_NUMBER})", re.DOTALL)
_FEATURE = re.compile(rf"feature:({_NUMBER})/(\d{{1,18}})@(-?{_NUMBER})")
_DIRECTION = re.compile(rf"direction:(.+)@({_NUMBER})/(-?{_NUMBER})", re.DOTALL)
_FORMS = {
    "token:": "token:TEXT@POSITION",
    "feature:": "feature:LAYER/FEATURE@POSITION",
    "direction:": "direction:FILE@LAYER/POSITION",
}


@dataclass(frozen=True, slots=True)
class TokenAt:
    """A token as the one that follows a position of the prompt.

    Args:
        token: As in `--target`, or its id.
        position: Where it is predicted; negative positions count from the end.
    """

    token: str | int
    position: int = -1


@dataclass(frozen=True, slots=True)
class FeatureAt:
    """A feature's pre-activation at a position.

    Args:
        layer, feature: The feature.
        position: Negative positions count from the end.
        weight: Of this target in influence computations.
    """

    layer: int
    feature: int
    position: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class DirectionAt:
    """A direction, such as a probe, at the transcoders' read point of a layer.

    Args:
        label: Its name.
        vector: `(d_model)`, used as given.
        layer: The layer; the number of layers for the output of the final norm.
        position: Negative positions count from the end.
        weight: Of this target in influence computations.
    """

    label: str
    vector: Tensor
    layer: int
    position: int
    weight: float = 1.0


Placed = TokenAt | FeatureAt | DirectionAt


def read_target(text: str) -> Placed | None:
    """Return the target that a text names with its place; None for a token or a difference.

    Raises BadTarget for a text that begins like one but isn't, and for a file of directions that can't be used.
    """
    if found := _TOKEN.fullmatch(text):
        return TokenAt(found[1], int(found[2]))
    if found := _FEATURE.fullmatch(text):
        return FeatureAt(int(found[1]), int(found[2]), int(found[3]))
    if found := _DIRECTION.fullmatch(text):
        return _direction(Path(found[1]).expanduser(), int(found[2]), int(found[3]))
    for start, form in _FORMS.items():
        if text.startswith(start) and (start != "token:" or "@" in text):
            raise BadTarget(f"target {text!r} isn't of the form {form}", hint=f'--target "{form}"')
    return None


def placed(given: Any) -> list[Placed]:
    """Return targets that name their place, if any of them does; else an empty list.

    Among tokens, those without a position are at the last one. Raises BadTarget for a mixture with other kinds.
    """
    items = [given] if isinstance(given, str | Placed) else given
    if not isinstance(items, Sequence):
        return []
    found: list[Any] = [read_target(one) if isinstance(one, str) else one for one in items]
    if not any(isinstance(one, Placed) for one in found):
        return []
    for number, one in enumerate(items):
        if isinstance(one, str) and found[number] is None and DIFFERENCE not in one:
            found[number] = TokenAt(one)
    if len({_family(one) for one in found}) > 1:
        raise BadTarget(
            "tokens, differences and targets inside the model can't be mixed", hint="trace them separately"
        )
    return found


def _family(target: Any) -> str:
    if isinstance(target, TokenAt):
        return "token"
    return "inside" if isinstance(target, FeatureAt | DirectionAt) else "other"


def check_inside(targets: Sequence[Placed], n_layers: int, d_model: int) -> None:
    """Raise UnsuitableTarget for features and directions that a model of these sizes doesn't have or can't explain together."""
    inside = [one for one in targets if not isinstance(one, TokenAt)]
    for one in inside:
        name = name_of(one)
        last = n_layers - 1 if isinstance(one, FeatureAt) else n_layers
        if not 0 <= one.layer <= last:
            raise UnsuitableTarget(
                f"target {name}: there is no layer {one.layer}", f"layers go from 0 to {last}"
            )
        if isinstance(one, DirectionAt) and one.vector.shape != (d_model,):
            raise UnsuitableTarget(f"target {name} has shape {tuple(one.vector.shape)}, not ({d_model},)")
    top = max((one.layer for one in inside), default=0)
    for one in inside:
        if isinstance(one, FeatureAt) and one.layer < top:
            raise UnsuitableTarget(
                f"target {name_of(one)} is an input of the target at layer {top}, so one graph can't explain both",
                "trace them separately",
            )
    if len({name_of(one) for one in inside}) < len(inside):
        raise UnsuitableTarget("a target is given twice", "name each once")


def name_of(target: FeatureAt | DirectionAt) -> str:
    """The name of a target in a graph."""
    if isinstance(target, FeatureAt):
        return f"{target.layer}/{target.feature}@{target.position}"
    return f"{target.label} {target.layer}@{target.position}"


def _direction(path: Path, layer: int, position: int) -> DirectionAt:
    """Return a direction from a safetensors file. Raises BadTarget."""
    if path.suffix != ".safetensors":
        raise UnsuitableTarget(f"{path} isn't a safetensors file", f'save it as safetensors, under "{KEY}"')
    try:
        file = TensorFile(path)
    except BadTranscoders as error:
        raise UnsuitableTarget(str(error)) from None
    names = list(file.tensors)
    name = KEY if KEY in names else names[0] if len(names) == 1 else None
    if name is None:
        raise UnsuitableTarget(
            f"{path} has {len(names)} tensors, none of them called {KEY!r}", f'save one vector under "{KEY}"'
        )
    vector = file.private(name).clone()
    if vector.ndim != 1 or not vector.is_floating_point() or not bool(torch.isfinite(vector).all()):
        raise UnsuitableTarget(
            f"{name!r} in {path} isn't one vector of finite numbers", f'save one under "{KEY}"'
        )
    return DirectionAt(path.stem, vector, layer, position)
