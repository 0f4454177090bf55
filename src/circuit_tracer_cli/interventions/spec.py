"""Edits as records: from tuples, text, or a graph file's supernodes. `cells.py` and `heads.py` check them against a model.

An edit changes features or the attention of a head. The text form for features is `LAYER/FEATURE@POS=VALUE`. `POS` is an index
(`3`, `-1`) or a slice (`2:5`, `6:`), `VALUE` an absolute activation (`4.5`), a multiple of the original one (`x2`, `x-1`), or
`off`.

The text form for heads is `L14H3@POS=VALUE`. `POS` are the positions that look (default: all); `VALUE` is `off`, a multiple
(`x0.5`), or `@KEY`, which makes the head look at one position only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.errors import BadIntervention, UnsuitableIntervention

FORM = "LAYER/FEATURE@POS=VALUE"
EXAMPLE = "for example 3/120@-1=x2, 3/120@2:5=off or 3/120@6:=4.5"
HEAD_FORM = "L14H3@POS=VALUE"
HEAD_EXAMPLE = "for example L14H3=off, L14H3@8=x0.5 or L14H3@8=@4"
_HEAD = re.compile(r"\s*[Ll]\s*\d*\s*[Hh]")
_HEAD_PARTS = re.compile(r"[Ll](\d{1,18})[Hh](\d{1,18})(?:@([^@=]*))?=(.*)", re.DOTALL)
_PARTS = re.compile(r"([^/@=]*)/([^/@=]*)@([^/@=]*)=(.*)", re.DOTALL)
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Scaled:
    """`factor` times the activation in the unmodified run; at a generated token, times that of the same step before the edit."""

    factor: float


Position = int | slice | Tensor
Value = float | Tensor | Scaled


@dataclass(frozen=True, slots=True, eq=False)
class Intervention:
    """One edit: features of a layer get a new activation at some positions.

    Args:
        layer: The layer that the features read.
        position: An index, counted from the end if negative; a slice, which also covers generated tokens if it has no end;
            or a tensor of indices.
        feature: An index, or a tensor of them; two tensors are paired as in indexing.
        value: The new activation, broadcast against the addressed cells, or a multiple of the original one.
    """

    layer: int
    position: Position
    feature: int | Tensor
    value: Value

    @property
    def open_ended(self) -> bool:
        """True if it also covers generated tokens."""
        return isinstance(self.position, slice) and self.position.stop is None

    def __str__(self) -> str:
        """The text form; tensors are shown as lists."""
        return (
            f"{self.layer}/{_plain(self.feature)}@{_position_text(self.position)}={_value_text(self.value)}"
        )


@dataclass(frozen=True, slots=True)
class LooksAt:
    """A pattern row that pays all attention to one position; negative ones count from the end of the prompt."""

    key: int


@dataclass(frozen=True, slots=True, eq=False)
class HeadEdit:
    """One edit of a head's attention: its pattern rows from some positions are scaled or replaced.

    Args:
        layer, head: The head, both counted from 0.
        position: The positions that look: an index, counted from the end if negative, or a slice. One without an end also covers
            generated tokens.
        value: A multiple of the row (0 ablates the head), one position to look at, or the row itself, `(key)` or
            `(query, key)`; the last doesn't cover generated tokens.
    """

    layer: int
    head: int
    position: int | slice = field(default_factory=lambda: slice(None))
    value: Scaled | LooksAt | Tensor = Scaled(0.0)

    @property
    def open_ended(self) -> bool:
        """True if it also covers generated tokens."""
        return isinstance(self.position, slice) and self.position.stop is None

    @property
    def name(self) -> str:
        """`L14H3`."""
        return f"L{self.layer}H{self.head}"

    def __str__(self) -> str:
        """The text form; a tensor is shown as a list."""
        everywhere = self.position == slice(None)
        where = "" if everywhere else f"@{_position_text(self.position)}"
        if isinstance(self.value, LooksAt):
            return f"{self.name}{where}=@{self.value.key}"
        off = isinstance(self.value, Scaled) and self.value.factor == 0
        return f"{self.name}{where}={'off' if off else _value_text(self.value)}"


AnyEdit = Intervention | HeadEdit


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def _position_text(position: Position) -> str:
    if not isinstance(position, slice):
        return str(_plain(position))
    ends = ["" if end is None else str(end) for end in (position.start, position.stop)]
    return ":".join(ends if position.step is None else [*ends, str(position.step)])


def _value_text(value: Value) -> str:
    if isinstance(value, Scaled):
        return f"x{value.factor!r}"
    return "off" if isinstance(value, float) and value == 0 else repr(_plain(value))


def parse_intervention(text: str) -> AnyEdit:
    """Parse an edit of features or of a head. Raises BadIntervention naming the invalid part."""
    return parse_head_edit(text) if _HEAD.match(text) else parse_feature_edit(text)


def parse_head_edit(text: str) -> HeadEdit:
    """Parse an edit of a head. Raises BadIntervention naming the invalid part."""
    parts = _HEAD_PARTS.fullmatch(text.strip())
    if parts is None:
        raise BadIntervention(f"edit {text!r} doesn't have the form {HEAD_FORM}", hint=HEAD_EXAMPLE)
    layer, head, position, value = parts.groups()
    where = slice(None) if position is None else _parsed_position(position.strip(), text)
    return HeadEdit(int(layer), int(head), where, _head_value(value.strip(), text))


def _head_value(text: str, edit: str) -> Scaled | LooksAt:
    if text.startswith("@"):
        return LooksAt(_parsed_index(text[1:].strip(), "position", edit))
    value = parse_value(text, edit)
    if isinstance(value, Scaled):
        return value
    if value == 0:
        return Scaled(0.0)
    raise BadIntervention(
        f"in edit {edit!r} the value {text!r} is not valid for a head", hint="use off, xFACTOR or @KEY"
    )


def parse_feature_edit(text: str) -> Intervention:
    """Parse an edit of a feature. Raises BadIntervention naming the invalid part."""
    parts = _PARTS.fullmatch(text.strip())
    if parts is None:
        raise BadIntervention(f"edit {text!r} doesn't have the form {FORM}", hint=EXAMPLE)
    layer, feature, position, value = (part.strip() for part in parts.groups())
    return Intervention(
        _parsed_index(layer, "layer", text),
        _parsed_position(position, text),
        _parsed_index(feature, "feature", text),
        parse_value(value, text),
    )


def _parsed_index(text: str, what: str, edit: str) -> int:
    if not _WHOLE.fullmatch(text) or (what != "position" and int(text) < 0):
        kind = "a whole number" if what == "position" else "a whole number of 0 or more"
        raise BadIntervention(f"in edit {edit!r} the {what} {text!r} is not {kind}", hint=EXAMPLE)
    return int(text)


def _parsed_position(text: str, edit: str) -> int | slice:
    if ":" not in text:
        return _parsed_index(text, "position", edit)
    parts = text.split(":")
    if len(parts) > 3:
        raise BadIntervention(f"in edit {edit!r} the position {text!r} is not a slice", hint=EXAMPLE)
    ends = [_parsed_index(part, "position", edit) if part.strip() else None for part in parts]
    return checked_slice(slice(*ends), edit)


def checked_slice(position: slice, edit: str) -> slice:
    """Return the slice. Raises BadIntervention if its ends aren't whole numbers or its step isn't positive."""
    ends = (position.start, position.stop, position.step)
    if any(end is not None and (isinstance(end, bool) or not isinstance(end, int)) for end in ends):
        raise BadIntervention(
            f"in edit {edit!r} the ends of the position slice are not whole numbers", hint=EXAMPLE
        )
    if position.step is not None and position.step < 1:
        raise BadIntervention(
            f"in edit {edit!r} the step of the position slice must be at least 1, not {position.step}",
            hint=EXAMPLE,
        )
    return position


def parse_value(text: str, edit: str = "") -> float | Scaled:
    """Parse a number, `xN` for a multiple of the original activation, or `off`. Raises BadIntervention."""
    if text == "off":
        return 0.0
    relative = text[:1] in ("x", "×")
    try:
        number = float(text[1:] if relative else text)
    except ValueError:
        raise BadIntervention(
            f"{_in_edit(edit)}the value {text!r} is neither a number, nor xN, nor off", hint=EXAMPLE
        ) from None
    if not math.isfinite(number):
        raise BadIntervention(f"{_in_edit(edit)}the value {text!r} is not finite", hint=EXAMPLE)
    return Scaled(number) if relative else number


def _in_edit(edit: str) -> str:
    return f"in edit {edit!r} " if edit else ""


def as_interventions(edits: Iterable[Any]) -> tuple[AnyEdit, ...]:
    """Make records from records, texts and tuples `(layer, position, feature, value)`, checking types and values.

    Raises BadIntervention naming the edit and its invalid part.
    """
    if isinstance(edits, str | Intervention | HeadEdit) or not isinstance(edits, Iterable):
        raise BadIntervention("interventions must be a list of (layer, position, feature, value)")
    return tuple(_as_intervention(edit, number) for number, edit in enumerate(edits))


def _as_intervention(edit: Any, number: int) -> AnyEdit:
    if isinstance(edit, str):
        return parse_intervention(edit)
    if isinstance(edit, HeadEdit):
        return _checked_head(edit, f"#{number}")
    if isinstance(edit, Intervention):
        edit = (edit.layer, edit.position, edit.feature, edit.value)
    name = f"#{number}"
    if not isinstance(edit, Sequence) or len(edit) != 4:
        raise BadIntervention(f"edit {name} is not (layer, position, feature, value)")
    layer, position, feature, value = edit
    layer_index = _as_index(layer, "layer", name)
    if not isinstance(layer_index, int):
        raise BadIntervention(f"in edit {name} the layer is not a single number")
    where = (
        checked_slice(position, name)
        if isinstance(position, slice)
        else _as_index(position, "position", name)
    )
    return Intervention(layer_index, where, _as_index(feature, "feature", name), _as_value(value, name))


def _checked_head(edit: HeadEdit, name: str) -> HeadEdit:
    """A head's edit with its types checked."""
    layer, head = (_as_index(getattr(edit, part), part, name) for part in ("layer", "head"))
    where: Any = edit.position
    where = checked_slice(where, name) if isinstance(where, slice) else _as_index(where, "position", name)
    if not (isinstance(layer, int) and isinstance(head, int) and isinstance(where, int | slice)):
        raise BadIntervention(f"in edit {name} layer, head or position is a list", hint=HEAD_EXAMPLE)
    if isinstance(edit.value, LooksAt):
        key = _as_index(edit.value.key, "key", name)
        if not isinstance(key, int):
            raise BadIntervention(f"in edit {name} the key is a list", hint=HEAD_EXAMPLE)
        return HeadEdit(layer, head, where, LooksAt(key))
    value = _as_value(edit.value, name)
    if isinstance(value, float):
        raise BadIntervention(
            f"in edit {name} the value {value!r} is not valid for a head",
            hint="Scaled(0.5), LooksAt(4) or a row",
        )
    return HeadEdit(layer, head, where, value)


def _as_index(value: Any, what: str, edit: str) -> int | Tensor:
    """A whole number, or a tensor of them. A tensor without axes is a number."""
    try:
        index = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise BadIntervention(
            f"in edit {edit!r} the {what} is not a whole number or a list of them"
        ) from None
    if index.dtype is torch.bool or index.is_floating_point() or index.is_complex():
        raise BadIntervention(f"in edit {edit!r} the {what} is not a whole number or a list of them")
    return int(index) if index.ndim == 0 else index.to(torch.int64)


def _as_value(value: Any, edit: str) -> Value:
    if isinstance(value, str):
        return parse_value(value, edit)
    inner = value.factor if isinstance(value, Scaled) else value
    try:
        number = torch.as_tensor(inner).detach()
        finite = not number.is_complex() and bool(torch.isfinite(number).all())
    except (TypeError, ValueError, RuntimeError):
        raise BadIntervention(f"in edit {edit!r} the value is not a number") from None
    if not finite:
        raise BadIntervention(
            f"in edit {edit!r} the value is not finite", hint="NaN and infinity can't be activations"
        )
    if isinstance(value, Scaled):
        return value
    return float(number) if number.ndim == 0 else number


def supernode_edits(
    supernodes: Sequence[Sequence[str]], name: str, factor: str
) -> tuple[tuple[Intervention, ...], tuple[str, ...]]:
    """Edits for the features of a supernode, and the ids of its other nodes, which can't be edited.

    Args:
        supernodes: Lists of a name and the ids of its nodes, as in a graph file's `qParams`.
        name: Name of the supernode, or of several, whose features to edit.
        factor: A multiple of the original activations (`-1`, `x2`), or `off`.

    Raises:
        BadIntervention: No supernode has the name, none of its nodes is a feature, or the factor is invalid.
    """
    found = [node for group in supernodes for node in group[1:] if group[0] == name]
    if not found:
        names = list(dict.fromkeys(group[0] for group in supernodes))
        hint = (
            f"it has {', '.join(map(repr, names))}"
            if names
            else "group nodes in the viewer and save, or use --edit"
        )
        raise UnsuitableIntervention(f"the graph has no supernode {name!r}", hint=hint)
    value = parse_factor(factor)
    edits = {node: feature_edit(node, value) for node in dict.fromkeys(found)}
    known = tuple(edit for edit in edits.values() if edit is not None)
    if not known:
        raise UnsuitableIntervention(f"supernode {name!r} has no features, and only features can be edited")
    return known, tuple(node for node, edit in edits.items() if edit is None)


def parse_factor(text: str) -> float | Scaled:
    """Parse a multiple of the original activation, with or without `x`, or `off`. Raises BadIntervention."""
    try:
        value = parse_value(text)
    except BadIntervention:
        raise BadIntervention(
            f"the factor {text!r} is neither a number nor off", hint="for example -1, x2 or off"
        ) from None
    return value if text == "off" or isinstance(value, Scaled) else Scaled(float(text))


def feature_edit(node_id: str, value: float | Scaled) -> Intervention | None:
    """The edit of the feature with the id `layer_feature_position`, or None if the id isn't a feature's."""
    parts = node_id.split("_")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    layer, feature, position = (int(part) for part in parts)
    return Intervention(layer, position, feature, value)
