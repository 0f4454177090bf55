"""A document of headings, facts, tables and one figure, as Markdown or as a page of its own. All text in it is escaped here.

Imports no torch.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1b19; background: #fff; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse } th, td { text-align: left; vertical-align: top; padding: .15rem 1rem .15rem 0 }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
th { color: #57544d; font-weight: 500 } td, dd { overflow-wrap: break-word; white-space: pre-wrap }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.5rem; margin: 0 } dt { color: #57544d } dd { margin: 0 }
footer { margin-top: 2rem } figure { margin: 1rem 0; overflow-x: auto } footer, p.note { color: #57544d }
@media print { body { margin: 0; max-width: none } h2 { break-after: avoid } tr { break-inside: avoid } }
"""
_BOX, _COLUMN, _ROW, _MARGIN = (148, 34), 160, 84, 16
_RAISES, _LOWERS = "#2f7d4f", "#8a3ab9"


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with their values, a line each."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Table:
    """A table; columns whose name ends in `#` hold numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Note:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Box:
    """A node of a figure.

    Attributes:
        column: Prompt position.
        row: 0 for tokens, then upwards.
        lines: One or two short lines.
    """

    column: int
    row: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Arrow:
    """An edge of a figure between two of its boxes; `strength` is 0..1."""

    source: int
    target: int
    strength: float
    raises: bool


@dataclass(frozen=True, slots=True)
class Figure:
    """Boxes in columns by position and rows from the tokens up. Markdown leaves it out."""

    boxes: Sequence[Box]
    arrows: Sequence[Arrow]
    caption: str


Block = Facts | Table | Note | Figure


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Document:
    """A whole document.

    Attributes:
        title: Its heading.
        sections: In order.
        footer: Last line.
    """

    title: str
    sections: Sequence[Section] = field(default_factory=list)
    footer: str = ""

    def to_html(self) -> str:
        """Return one page without scripts that asks the network for nothing."""
        parts = [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<title>{_text(self.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n",
            f"<h1>{_text(self.title)}</h1>\n",
        ]
        for section in self.sections:
            parts.append(f"<h2>{_text(section.title)}</h2>\n")
            parts += [_html_block(block) for block in section.blocks]
        return "".join(parts) + f"<footer>{_text(self.footer)}</footer>\n</body>\n</html>\n"

    def to_markdown(self) -> str:
        """Return the document in GitHub's Markdown."""
        lines = [f"# {_mark(self.title)}", ""]
        for section in self.sections:
            lines += [f"## {_mark(section.title)}", ""]
            for block in section.blocks:
                lines += [*_markdown_block(block), ""]
        return "\n".join([*lines, _mark(self.footer)]).rstrip() + "\n"


def _html_block(block: Block) -> str:
    if isinstance(block, Facts):
        rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>\n" for name, value in block.rows)
        return f"<dl>\n{rows}</dl>\n"
    if isinstance(block, Note):
        return f'<p class="note">{_text(block.text)}</p>\n'
    if isinstance(block, Figure):
        return f"<figure>{_svg(block)}<figcaption>{_text(block.caption)}</figcaption></figure>\n"
    kinds = [' class="n"' if name.endswith("#") else "" for name in block.columns]
    head = "".join(
        f"<th{kind}>{_text(name.rstrip('#'))}</th>" for kind, name in zip(kinds, block.columns, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{_text(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>\n"
        for row in block.rows
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"


def _markdown_block(block: Block) -> Iterator[str]:
    if isinstance(block, Facts):
        yield from (f"- **{_mark(name)}:** {_mark(value)}" for name, value in block.rows)
    elif isinstance(block, Note):
        yield re.sub(r"^([-+]|\d+(?=[.)]))", r"&#8203;\1", _mark(block.text).lstrip())  # no list
    elif isinstance(block, Table):
        yield _row(_mark(name.rstrip("#")) for name in block.columns)
        yield _row("---:" if name.endswith("#") else "---" for name in block.columns)
        yield from (_row(map(_mark, row)) for row in block.rows)


def _row(cells: Iterator[str] | map[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(value: str) -> str:
    """Any text as HTML; half a surrogate pair, which no file can hold, becomes a question mark."""
    return html.escape(value.encode("utf-8", "replace").decode(), quote=True)


def _mark(value: str) -> str:
    """Any text as Markdown that shows it as it is: no markup, no tags, no links, one line."""
    line = " ".join(value.encode("utf-8", "replace").decode().splitlines())
    escaped = re.sub(r"([\\`*_{}\[\]()#|~$!])", r"\\\1", line)
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"(?i)(:)(?=//)|(?<=www)(\.)", r"\\\g<0>", escaped)


def _svg(figure: Figure) -> str:
    """The figure as SVG: a grid of positions and rows, boxes of one cell side by side."""
    columns = sorted({box.column for box in figure.boxes})
    rows = sorted({box.row for box in figure.boxes}, reverse=True)
    widest = {column: max(_crowd(figure, column, row) for row in rows) for column in columns}
    left, at = {}, _MARGIN
    for column in columns:
        left[column] = at
        at += widest[column] * _COLUMN
    seen: dict[tuple[int, int], int] = {}
    places = []
    for box in figure.boxes:
        number = seen[box.column, box.row] = seen.get((box.column, box.row), -1) + 1
        spare = (widest[box.column] - _crowd(figure, box.column, box.row)) * _COLUMN / 2
        x = left[box.column] + spare + number * _COLUMN + _COLUMN / 2
        places.append((x, _MARGIN + rows.index(box.row) * _ROW + _BOX[1] / 2))
    width, height = at + _MARGIN, 2 * _MARGIN + (len(rows) - 1) * _ROW + _BOX[1]
    lines = "".join(_line(arrow, places) for arrow in figure.arrows)
    boxes = "".join(_drawn(box, *place) for box, place in zip(figure.boxes, places, strict=True))
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{_text(figure.caption)}" font-family="system-ui, sans-serif" font-size="11">{lines}{boxes}</svg>'
    )


def _crowd(figure: Figure, column: int, row: int) -> int:
    return sum(box.column == column and box.row == row for box in figure.boxes)


def _line(arrow: Arrow, places: list[tuple[float, float]]) -> str:
    (x1, y1), (x2, y2) = places[arrow.source], places[arrow.target]
    colour, dash = (_RAISES, "") if arrow.raises else (_LOWERS, ' stroke-dasharray="5 3"')
    start, end = y1 - _BOX[1] / 2, y2 + _BOX[1] / 2
    bend = (start - end) / 2
    return (
        f'<path d="M{x1:.1f} {start:.1f}C{x1:.1f} {start - bend:.1f} {x2:.1f} {end + bend:.1f} {x2:.1f} {end:.1f}" '
        f'fill="none" stroke="{colour}" stroke-opacity=".75" stroke-width="{1 + 7 * arrow.strength:.1f}"{dash}/>'
    )


def _drawn(box: Box, x: float, y: float) -> str:
    width, height = _BOX
    texts = "".join(
        f'<text x="{x:.1f}" y="{y + 4 + 13 * (number - (len(box.lines) - 1) / 2):.1f}" text-anchor="middle" '
        f'fill="#1c1b19">{_text(line)}</text>'
        for number, line in enumerate(box.lines)
    )
    return (
        f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width}" height="{height}" rx="6" '
        f'fill="#fffdf8" stroke="#8a8a8a"/>{texts}'
    )
