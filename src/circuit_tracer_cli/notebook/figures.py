"""Figures of supernodes: boxes in rows from the prompt up, with what an intervention does to them, as SVG."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.notebook.html import Html, text

if TYPE_CHECKING:
    from torch import Tensor

WIDTH, HEIGHT = 700, 400
_BOX, _GAP, _AREA = (100, 35), 50, (600, 250)
_LEFT, _TOP = (WIDTH - _AREA[0]) / 2, 40
_REPLACEMENT = (30, -35)
_DIM = 0.25
_ARROW, _NEW_ARROW = "#8b5e3c", "#c2570c"
_MOST_OUTPUTS = 6


@dataclass(eq=False, slots=True)
class Supernode:
    """A group of features, drawn as one box.

    Args:
        name: Text of the box.
        features: Tuples `(layer, pos, feature)`; empty for a box that is only shown, such as an output.
        children: The boxes that it points at.
        intervention: Text of its intervention, such as `-2x`.
        replacement_node: A box that replaces it.

    Attributes:
        activation: Its activation as a fraction of the original one; None until that is known.
        default_activations: Activation of each feature without interventions.
    """

    name: str
    features: list[Any] = field(default_factory=list)
    children: list[Supernode] = field(default_factory=list)
    intervention: str | None = None
    replacement_node: Supernode | None = None
    activation: float | None = None
    default_activations: list[float] = field(default_factory=list)


class InterventionGraph:
    """Rows of supernodes, from the bottom up, over one prompt.

    Args:
        ordered_nodes: The rows of nodes, from the bottom up.
        prompt: Text below the figure.
    """

    def __init__(self, ordered_nodes: Sequence[Sequence[Supernode]], prompt: str) -> None:
        self.ordered_nodes = [list(row) for row in ordered_nodes]
        self.prompt = prompt
        self.nodes: dict[str, Supernode] = {}

    def initialize_node(self, node: Supernode, activations: Tensor) -> None:
        """Store the activations of a node's features without interventions, from `(layer, pos, feature)`."""
        self.nodes[node.name] = node
        node.default_activations = _values(node, activations)

    def set_node_activation_fractions(self, current: Tensor) -> None:
        """Set every node's activation to the mean ratio of new to default activations, and clear interventions and replacements.

        Features that weren't active before are left out.
        """
        for node in self.nodes.values():
            fractions = [
                now / before
                for now, before in zip(_values(node, current), node.default_activations, strict=True)
                if before != 0
            ]
            node.activation = sum(fractions) / len(fractions) if fractions else None
            node.intervention, node.replacement_node = None, None


def create_graph_visualization(
    graph: InterventionGraph, top_outputs: Sequence[tuple[str, float]] = ()
) -> Html:
    """Return the figure. `top_outputs` are tokens and their probabilities; the first six are shown.

    Raises InvalidValue for a graph without nodes.
    """
    if not any(graph.ordered_nodes):
        raise InvalidValue("the figure has no nodes", "give InterventionGraph at least one row")
    places = _places(graph)
    arrows = "".join(_arrows(graph, places))
    boxes = "".join(_box(node, *places[id(node)]) for node in _all_nodes(graph))
    return Html(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{arrows}{boxes}'
        f"{_outputs(top_outputs)}{_prompt(graph.prompt)}</svg>"
    )


def _values(node: Supernode, activations: Tensor) -> list[float]:
    dense = activations.to_dense() if activations.is_sparse else activations
    return [float(dense[layer, position, feature]) for layer, position, feature in node.features]


def _all_nodes(graph: InterventionGraph) -> Iterator[Supernode]:
    for row in graph.ordered_nodes:
        for node in row:
            yield node
            if node.replacement_node is not None:
                yield node.replacement_node


def _places(graph: InterventionGraph) -> dict[int, tuple[float, float]]:
    """The centre of every box, by the node's identity."""
    places = {}
    step = _AREA[1] / (len(graph.ordered_nodes) + 0.5)
    for r, row in enumerate(graph.ordered_nodes):
        y = _TOP + _AREA[1] - r * step
        start = WIDTH / 2 - (len(row) - 1) * (_BOX[0] + _GAP) / 2
        for i, node in enumerate(row):
            x = start + i * (_BOX[0] + _GAP)
            places[id(node)] = (x, y)
            if node.replacement_node is not None:
                places[id(node.replacement_node)] = (x + _REPLACEMENT[0], y + _REPLACEMENT[1])
    return places


def _arrows(graph: InterventionGraph, places: dict[int, tuple[float, float]]) -> Iterator[str]:
    """Lines between centers; a replaced node has no arrows, its replacement has them instead."""
    replacements = {id(node.replacement_node) for row in graph.ordered_nodes for node in row}
    for node in _all_nodes(graph):
        if node.replacement_node is not None:
            continue
        new = id(node) in replacements
        for child in node.children:
            if id(child) not in places:
                continue
            (x1, y1), (x2, y2) = places[id(node)], places[id(child)]
            colour, thick = (_NEW_ARROW, 4) if new else (_ARROW, 2)
            yield (
                f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
                f'stroke-width="{thick}"/>'
            )


def _box(node: Supernode, x: float, y: float) -> str:
    lowered = "-" in (node.intervention or "") or "off" in (node.intervention or "")
    dim = lowered or (node.activation is not None and node.activation <= _DIM)
    fill, ink = ("#ececec", "#8a8a8a") if dim else ("#fffdf8", "#1c1b19")
    left, top = x - _BOX[0] / 2, y - _BOX[1] / 2
    parts = [
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{_BOX[0]}" height="{_BOX[1]}" rx="7" fill="{fill}" stroke="{ink}"/>',
        _text(x, y + 4, textwrap.shorten(node.name, 17, placeholder="…") or node.name[:16], ink),
    ]
    if node.activation is not None:
        parts.append(_badge(left, top, f"{node.activation:.0%}", "#57544d"))
    if node.intervention:
        parts.append(_badge(left + _BOX[0], top, node.intervention, "#b3246b"))
    return "".join(parts)


def _badge(x: float, y: float, value: str, colour: str) -> str:
    width = 10 + 7 * len(value)
    return (
        f'<rect x="{x - width / 2:.1f}" y="{y - 9:.1f}" width="{width}" height="17" rx="8" fill="{colour}"/>'
        + _text(x, y + 4, value, "#fff", size=11)
    )


def _outputs(outputs: Sequence[tuple[str, float]]) -> str:
    """The most likely tokens along the top."""
    parts, x = [], _LEFT
    for name, probability in outputs[:_MOST_OUTPUTS]:
        label = f"{name.strip() or name} {probability:.0%}"
        parts.append(_text(x, 20, label, "#1c1b19", anchor="start", weight=600))
        x += 18 + 7.4 * len(label)
    return "".join(parts)


def _prompt(prompt: str) -> str:
    lines = textwrap.wrap(prompt, 80) or [""]
    return "".join(
        _text(WIDTH / 2, HEIGHT - 50 + 16 * i, line, "#57544d") for i, line in enumerate(lines[:3])
    )


def _text(
    x: float, y: float, value: str, colour: str, *, anchor: str = "middle", weight: int = 500, size: int = 12
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}" '
        f'fill="{colour}">{text(value)}</text>'
    )
