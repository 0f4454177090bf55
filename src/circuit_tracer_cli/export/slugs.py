"""Which names a graph file may have."""

from __future__ import annotations

import re

from circuit_tracer_cli.errors import InvalidValue

MAX_SLUG_BYTES = 200
_FORBIDDEN = re.compile(r"[^\w.-]")
_RESERVED = ("graph-metadata",)


def check_slug(slug: str) -> str:
    """The slug. Raises InvalidValue unless it can be a file's name: letters, digits, `.`, `_`, `-`, no dot in front."""
    if slug and clean_slug(slug) == slug:
        return slug
    cleaned = clean_slug(slug)
    raise InvalidValue(
        f"{slug[:80]!r} can't name a graph: use letters, digits, dots, hyphens and underscores",
        f"--slug {cleaned}" if cleaned else "--slug my-graph",
    )


def clean_slug(text: str) -> str:
    """The nearest usable slug, perhaps empty."""
    slug = text
    if _FORBIDDEN.search(text) or text.startswith("."):
        slug = re.sub("-{2,}", "-", _FORBIDDEN.sub("-", text)).strip("-.")
    while len(slug.encode("utf-8", "replace")) > MAX_SLUG_BYTES:
        slug = slug[:-1]
    return f"{slug}-1" if slug in _RESERVED else slug
