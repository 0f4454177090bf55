"""A chart of probabilities under several interventions, as SVG, so that notebooks need no plotting library."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.notebook.html import Html, text

_COLOURS = ("#b3246b", "#00768f", "#c28a1b", "#4c6b2f", "#5b4b9a", "#8a8780")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 700, 300, 46, 34, 44, 46


def display_ablation_chart(
    groups: Mapping[str, Mapping[str, float]],
    logit_diffs: Mapping[str, float] | None = None,
    title: str = "",
    colors: Mapping[str, str] | Sequence[str] | None = None,
) -> Html:
    """Grouped bars of probabilities, and a dashed line of logit differences on a separate axis.

    Args:
        groups: For each group (a condition such as "no Texas"), the probability of each token.
        logit_diffs: For each group, a difference of logits.
        title: Title above the chart.
        colors: Colors of the tokens, by name or in order.

    Raises:
        InvalidValue: There is no group, or a group without a logit difference.
    """
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    if not groups or not names:
        raise InvalidValue("the chart has no groups", "give at least one group with a probability")
    if logit_diffs is not None and set(logit_diffs) != set(groups):
        raise InvalidValue("logit_diffs and groups don't have the same names")
    colour = _colours(names, colors)
    width = (_WIDTH - _LEFT - _RIGHT) / len(groups)
    parts = [_text(_WIDTH / 2, 16, title, "middle", weight=600), *_axis()]
    for place, (group, values) in enumerate(groups.items()):
        x = _LEFT + place * width
        parts.append(_text(x + width / 2, _HEIGHT - 12, group, "middle"))
        each = 0.8 * width / len(names)
        for i, name in enumerate(names):
            y = _y(values.get(name, 0.0))
            parts.append(
                f'<rect x="{x + 0.1 * width + i * each:.1f}" y="{y:.1f}" width="{0.92 * each:.1f}" '
                f'height="{_HEIGHT - _BOTTOM - y:.1f}" fill="{text(colour[name])}">'
                f"<title>{text(name)}: {values.get(name, 0.0):.4f}</title></rect>"
            )
    if logit_diffs is not None:
        parts += _line([logit_diffs[group] for group in groups], width)
    parts += _legend(names, colour)
    return Html(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="currentColor">{"".join(parts)}</svg>'
    )


def _colours(names: Sequence[str], given: Mapping[str, str] | Sequence[str] | None) -> dict[str, str]:
    if isinstance(given, Mapping):
        rest = itertools.cycle(_COLOURS)
        return {name: given[name] if name in given else next(rest) for name in names}
    return dict(zip(names, itertools.cycle(given or _COLOURS), strict=False))


def _y(probability: float) -> float:
    return _HEIGHT - _BOTTOM - min(1.0, max(0.0, probability)) * (_HEIGHT - _BOTTOM - _TOP)


def _axis() -> list[str]:
    parts = []
    for step in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _y(step)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d8d4ca"/>'
        )
        parts.append(_text(_LEFT - 6, y + 4, f"{step:.0%}", "end"))
    return parts


def _line(values: Sequence[float], width: float) -> list[str]:
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    ys = [_y((value - low) / span) for value in values]
    points = " ".join(f"{_LEFT + (i + 0.5) * width:.1f},{y:.1f}" for i, y in enumerate(ys))
    labels = [
        _text(_LEFT + (i + 0.5) * width, y - 6, f"{value:+.2f}", "middle", weight=600)
        for i, (value, y) in enumerate(zip(values, ys, strict=True))
    ]
    line = f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-dasharray="5 4"/>'
    return [line, *labels]


def _legend(names: Sequence[str], colour: Mapping[str, str]) -> list[str]:
    parts, x = [], float(_LEFT)
    for name in names:
        parts.append(f'<rect x="{x:.0f}" y="24" width="10" height="10" fill="{text(colour[name])}"/>')
        parts.append(_text(x + 14, 33, name, "start"))
        x += 26 + 7.2 * len(name)
    return parts


def _text(x: float, y: float, value: str, anchor: str, weight: int = 400) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{text(value)}</text>'
