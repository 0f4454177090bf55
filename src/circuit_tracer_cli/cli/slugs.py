"""Names for graphs: made from the prompt when none is given."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_LONGEST = 60


def invent_slug(prompt: str) -> str:
    """A file name made of the prompt's words, such as `the-capital-of-texas-is`; `graph-…` if it has none.

    A prompt whose words don't all fit, or can't be spelt in ASCII, also gets four digits that tell it from its like.
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
