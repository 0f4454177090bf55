"""Supernodes as edits: a group of nodes, named in a graph file, gets one factor. Reads ids, not files."""

from __future__ import annotations

from collections.abc import Sequence

from circuit_tracer_cli.errors import BadIntervention, UnsuitableIntervention
from circuit_tracer_cli.interventions.spec import Intervention, Scaled, parse_value


def supernode_edits(
    supernodes: Sequence[Sequence[str]], name: str, factor: str
) -> tuple[tuple[Intervention, ...], tuple[str, ...]]:
    """Edits for the features of a supernode, and the ids of its other nodes, which can't be edited.

    Args:
        supernodes: Lists of a name and the ids of its nodes, as in a graph file's `qParams`.
        name: Whose features to edit; those of all supernodes of that name.
        factor: A multiple of the original activations (`-1`, `x2`), or `off`.

    Raises:
        BadIntervention: No supernode has the name, none of its nodes is a feature, or the factor isn't one.
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
        raise UnsuitableIntervention(f"supernode {name!r} holds no feature, and only features can be edited")
    return known, tuple(node for node, edit in edits.items() if edit is None)


def parse_factor(text: str) -> float | Scaled:
    """A multiple of the original activation, with or without `x`, or `off`. Raises BadIntervention."""
    try:
        value = parse_value(text)
    except BadIntervention:
        raise BadIntervention(
            f"the factor {text!r} is neither a number nor off", hint="for example -1, x2 or off"
        ) from None
    return value if text == "off" or isinstance(value, Scaled) else Scaled(float(text))


def feature_edit(node_id: str, value: float | Scaled) -> Intervention | None:
    """The edit of the feature with the id `layer_feature_position`, or None if the id is no feature's."""
    parts = node_id.split("_")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    layer, feature, position = (int(part) for part in parts)
    return Intervention(layer, position, feature, value)
