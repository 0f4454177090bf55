"""The names that a graph file can have, and the one made from a prompt."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from circuit_tracer_cli.errors import InvalidValue

MAX_SLUG_BYTES = 200
_LONGEST = 60
_FORBIDDEN = re.compile(r"[^\w.-]")
_RESERVED = ("graph-metadata",)


def check_slug(slug: str) -> str:
    """Return the slug. Raises InvalidValue unless it can be a file name: letters, digits, `.`, `_`, `-`, no leading dot."""
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


def invent_slug(prompt: str) -> str:
    """A file name made of the prompt's words, such as `the-capital-of-texas-is`; `graph-…` if it has none.

    A prompt whose words don't all fit, or can't be written in ASCII, also gets four digits to keep names apart.
    """
    plain = re.sub(r"<[^<>]*>", " ", prompt).lower()
    ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", ascii_only)
    slug = "-".join(words)
    whole = words == re.findall(r"[^\W_]+", plain)
    if whole and 0 < len(slug) <= _LONGEST:
        return slug
    digits = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:4]
    return f"{slug[:_LONGEST].rstrip('-') or 'graph'}-{digits}"
