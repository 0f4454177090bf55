"""Pieces of HTML that a notebook displays. External text is escaped by `text` or in a table's cells."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Html:
    """HTML that a notebook shows as a cell's last value, or through `display`."""

    content: str

    def _repr_html_(self) -> str:
        return self.content

    def __add__(self, other: Html) -> Html:
        """Stack two pieces vertically."""
        return Html(self.content + other.content)


_INVISIBLE = str.maketrans({"\n": "⏎", "\t": "→", "\r": "↵"})


def text(value: object) -> str:
    """Escape text for HTML."""
    return html.escape(str(value), quote=True)


def token(value: str) -> str:
    """A token as HTML, with invisible characters shown."""
    shown = value.translate(_INVISIBLE)
    return f'<code style="white-space:pre">{text(shown)}</code>'


def table(header: Sequence[str], rows: Iterable[Sequence[str | Html]], title: str = "") -> Html:
    """A table. Plain-text cells are escaped; `Html` is used as it is."""
    head = "".join(f'<th style="text-align:left">{text(name)}</th>' for name in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{_cell(c)}</td>' for c in row) + "</tr>"
        for row in rows
    )
    caption = f'<p style="margin:.4em 0 .2em"><b>{text(title)}</b></p>' if title else ""
    return Html(f"<div>{caption}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")


def beside(parts: Iterable[Html]) -> Html:
    """Pieces side by side."""
    inner = "".join(part.content for part in parts)
    return Html(f'<div style="display:flex;flex-wrap:wrap;gap:2em;align-items:flex-start">{inner}</div>')


def bar(share: float, colour: str = "#b3246b") -> Html:
    """A bar that fills a share of its cell, from 0 to 1."""
    width = 100 * min(1.0, max(0.0, share))
    return Html(
        f'<span style="display:block;width:8em"><span style="display:block;height:.7em;border-radius:2px;'
        f'width:{width:.1f}%;background:{colour}"></span></span>'
    )


def _cell(value: str | Html) -> str:
    return value.content if isinstance(value, Html) else text(value)
